"""
Pixels: clicks, boxes, scribbles and masks
==========================================

A segmentation network gives each pixel a label. You correct some pixels, and the network looks at
the others again. The network of this example was trained on street scenes, and it is shown a
garage, which is new to it: it takes the garage's floor for a road.
"""

from skimage.data import stereo_motorcycle

import feedback_adapter as fa

photo, _, _ = stereo_motorcycle()
adapter = fa.load("camvid-feedforward")
images = adapter.transform.open(photo)
print(adapter.labels)
print(images.shape)

# %%
# A box along the lower edge is pavement, in pixels of the map: (left, top, right, bottom, label).
# ``newton`` changes the activation behind the first convolution until the network agrees.
floor = fa.Pixels(boxes=[(10, 155, 230, 178, "pavement")])
result = adapter.refine(images, floor, strategy="newton")
print(result.table(top=5))
result.plot("garage_before_and_after_a_box.png", top=8)

# %%
# Clicks have a label each. A fourth number says how likely it is: 0 means that the label isn't
# there. ``radius`` makes them wider.
clicks = fa.Pixels(clicks=[(60, 170, "pavement"), (150, 100, "car", 0)], radius=6)
result = adapter.refine(images, clicks, strategy="newton")
print(result.table(top=5))
result.plot("garage_before_and_after_two_clicks.png", top=8)

# %%
# ``Labels`` says of a whole map that a label is somewhere, or nowhere.
result = adapter.refine(images, fa.Labels({"road": 0}), strategy="newton")
print(result.table(top=5))
