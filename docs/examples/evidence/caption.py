"""
A whole caption
===============

Some networks write captions. A caption that somebody else wrote is then evidence, word for word:
the network's activation changes until it would have written that caption, and its other outputs
follow.
"""

from skimage import data

import feedback_adapter as fa

adapter = fa.load("flickr8k-caption-lite0")  # words of a photo, and a caption
images = adapter.transform.open(data.astronaut())
print(adapter)

# %%
# The network's own caption, and the words that it finds in the photo:
plain = adapter.refine(images, fa.Labels([{}]))
print(fa.write_captions(plain.outputs_before)[0])

# %%
# A caption for each image is a list of lists, since an image can have several.
caption = fa.Captions("a smiling woman in an orange suit stands in front of a flag")
result = adapter.refine(images, caption)
print(result.table(top=8))
result.plot("astronaut_before_and_after.png", top=8)

# %%
# The other way round works, too: labels that you know change the caption that the network writes.
result = adapter.refine(images, fa.Labels({"woman": 1, "orange": 1, "boy": 0}))
for when, outputs in {"before": result.outputs_before, "after": result.outputs_after}.items():
    print(f"{when:7} {fa.write_captions(outputs)[0]}")
