"""
Ask the question that helps most
================================

Somebody labels a photo by answering yes or no. Every answer improves the predictions of the
labels that are left, and so it matters which question comes first. The page that
`feedback-adapter annotate` opens does this for a whole folder. Here a script does it for one
photo.
"""

import torch
from skimage import data

import feedback_adapter as fa
from fa_annotate.questions import next_label

adapter = fa.load("caption-words-lite0")
prepared = adapter.prepare(adapter.transform.open(data.astronaut()))  # one forward pass, kept
couplings = adapter.priors["output"].couplings  # which words go together

# %%
# This is what a person would answer.
true = set(
    "woman wear white black person lady female smile orange suit uniform hair face mouth eye "
    "ear head arm red blue helmet background pose outfit clothes clothing".split()
)

# %%
# ``next_label`` puts the question first whose answer is expected to mend most, of its own label
# and of those that are left. After each answer the photo is refined with all that is known by
# now.
answers: dict[str, int] = {}
probabilities = adapter.predict(prepared).sigmoid()[0]
for _ in range(12):
    asked = [adapter.labels.index(label) for label in answers]
    (best, gain), *_ = next_label(probabilities, asked, couplings=couplings)
    label = adapter.labels[best]
    answers[label] = int(label in true)
    result = adapter.refine(prepared, fa.Labels(answers))
    probabilities = result.probabilities[0]
    said = "yes" if answers[label] else "no"
    print(f"{label:8} {said:4} expected to mend {gain:.2f} labels")

# %%
# Twelve answers later, these words are the likeliest of those that nobody asked for:
left = [label for label in adapter.labels if label not in answers]
chances = torch.stack([probabilities[adapter.labels.index(label)] for label in left])
for index in chances.argsort(descending=True)[:6].tolist():
    right = "right" if left[index] in true else "wrong"
    print(f"{left[index]:10} {chances[index]:.0%} {right}")

# %%
# What was answered, and what moved most:
result.plot("astronaut_after_twelve_answers.png", top=6)
