"""
Compare the strategies
======================

The same photo and the same evidence, refined by each strategy of the library in turn. What was
told holds after each of them. They differ in what they do with everything else.
"""

import time

import matplotlib.pyplot as plt
import numpy as np
from skimage import data

import feedback_adapter as fa

adapter = fa.load("caption-words-lite0")
images = adapter.transform.open(data.astronaut())
known = fa.Labels({"woman": 1})
plain = adapter.predict(images).sigmoid()[0]

# %%
# ``prepare`` runs the network once. After that a refinement costs the tail only.
strategies = ["clamp", "residual", "layerwise", "newton", "posterior"]
prepared = adapter.prepare(images)
results = {}
for name in strategies:
    start = time.perf_counter()
    results[name] = adapter.refine(prepared, known, strategy=name)
    seconds = time.perf_counter() - start
    pivots = ", ".join(results[name].pivots) or "nowhere"
    print(f"{name:10} at {pivots:10} in {seconds * 1000:4.0f} ms; {results[name].status[0]}")

# %%
# ``clamp`` moves nothing but what was told. ``posterior`` uses statistics of which words go
# together, which come with this checkpoint. The other three use the network alone.
shown = ["lady", "female", "boy", "girl", "child", "person", "smile", "wear"]
where = [adapter.labels.index(label) for label in shown]
figure, axis = plt.subplots(figsize=(10, 4.5), layout="constrained")
width = 0.8 / (len(strategies) + 1)
bars = {"unrefined": plain} | {name: results[name].probabilities[0] for name in strategies}
for number, (name, probabilities) in enumerate(bars.items()):
    colour = "#b8c0cc" if name == "unrefined" else None
    places = np.arange(len(shown)) + number * width
    axis.bar(places, probabilities[where], width, label=name, color=colour)
axis.set_xticks(np.arange(len(shown)) + 0.4 - width / 2, shown)
axis.set_ylabel("probability, once a woman is known")
axis.legend(frameon=False, ncols=3)
axis.spines[["top", "right"]].set_visible(False)
figure.savefig("the_probabilities_of_eight_words_by_strategy.png", dpi=110)

# %%
# The loss says how much the outputs disagree with the evidence, in nats. ``residual`` and
# ``layerwise`` take steps of a fixed size. ``newton`` works out its own steps and needs few.
figure, axis = plt.subplots(figsize=(10, 3.5), layout="constrained")
for name in ("residual", "layerwise", "newton"):
    axis.plot(results[name].losses[:, 0], marker="o", label=name)
axis.set_xlabel("step")
axis.set_ylabel("evidence loss (nats)")
axis.legend(frameon=False)
axis.spines[["top", "right"]].set_visible(False)
figure.savefig("the_evidence_loss_step_by_step.png", dpi=110)

# %%
# One photo says little about which strategy is best. :doc:`The results </results/index>` on whole
# data sets say more, and :doc:`/strategies` draws the conclusions.
