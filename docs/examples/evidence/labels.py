"""
Labels: what is there and what isn't
====================================

You looked at a photo and know some of its labels. Each label that you tell helps the network with
the others. A label can also be likely only, or come from a source that you don't fully trust.
"""

from skimage import data

import feedback_adapter as fa

adapter = fa.load("caption-words-lite0")  # which of 305 words people use for a photo
images = adapter.transform.open(data.astronaut())

# %%
# 1 means that the label is there, and 0 that it isn't.
known = fa.Labels({"woman": 1, "car": 0})
result = adapter.refine(images, known)
print(result.table(top=6))
result.plot("astronaut_before_and_after.png", top=6)

# %%
# A number between 0 and 1 says how likely the label is. ``confidence`` says how far the source is
# to be trusted: at 0.5 the label counts half as much. ``&`` joins several pieces of evidence.
unsure = fa.Labels({"woman": 0.8}) & fa.Labels({"smile": 1}, confidence=0.5)
result = adapter.refine(images, unsure)
print(result.table(top=4))

# %%
# Each image of a batch can have labels of its own, or none. What is known about one image never
# changes another one.
images = adapter.transform.open(data.astronaut(), data.coffee())
each = fa.Labels([{"woman": 1}, {"table": 1}])
result = adapter.refine(images, each)
print(result.table(top=3))
