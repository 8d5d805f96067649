"""
Deep feedback: one click travels
================================

A network of the plugin `feedback-adapter-dfm` looks at an image several times, and each look
takes in the last prediction and what is known. Here two triangles are hidden in noise, and one
click says which one is meant.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image, ImageDraw

import feedback_adapter as fa
from fa_dfm import Known

# %%
# Two triangles of 48 x 48 pixels, drawn three times as large and then made smaller, and noise
# with half the contrast of the triangles.
canvas = Image.new("L", (144, 144))
draw = ImageDraw.Draw(canvas)
draw.polygon([(20, 110), (62, 118), (40, 72)], fill=255)
draw.polygon([(84, 62), (126, 54), (96, 20)], fill=255)
picture = np.asarray(canvas.resize((48, 48))) / 255
noisy = picture + np.random.default_rng(0).normal(0, 0.5, picture.shape)
noisy = (noisy - noisy.min()) / (noisy.max() - noisy.min())
images = torch.tensor((noisy - 0.5) * 4, dtype=torch.float32)[None, None]  # as it was trained

# %%
# The click is in the triangle on the lower left.
adapter = fa.load("triangles-clicks-dfm")
click = fa.Pixels(clicks=[(13, 33, "triangle")])
result = adapter.refine(images, click)
print(result.table())

# %%
# The model can also be run by hand: ``unroll`` returns every look. Without the click it can't
# know which triangle is meant.
meant = torch.zeros(1, 1, 48, 48)
meant[0, 0, 33, 13] = 1
with torch.no_grad():
    without = adapter.model.unroll(images, steps=6)
    told = adapter.model.unroll(images, Known(meant, meant), steps=6)

figure, axes = plt.subplots(2, 5, figsize=(10, 4.4), layout="constrained")
for row, (looks, title) in enumerate([(without, "nothing known"), (told, "one click")]):
    axes[row, 0].imshow(noisy, cmap="gray")
    axes[row, 0].set_title(title)
    for axis, look in zip(axes[row, 1:], (0, 1, 3, 5), strict=True):
        axis.imshow(looks.logits[look, 0, 0].sigmoid(), cmap="viridis", vmin=0, vmax=1)
        axis.set_title(f"look {look + 1}")
axes[1, 0].plot(13, 33, "x", color="tab:red", markersize=10, markeredgewidth=3)
for axis in axes.flat:
    axis.set_axis_off()
figure.savefig("two_triangles_look_by_look_without_and_with_a_click.png", dpi=110)

# %%
# :doc:`/dfm` says how such networks are made and trained, and when they are worth it.
