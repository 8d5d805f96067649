"""
CNN-F: predict, generate, predict again
=======================================

The plugin `feedback-adapter-cnnf` makes a network generate its own features from its prediction,
and predict again from both. What you know goes in at the top, where the feedback starts. The
network of this example sorts clothes in grey images of 28 x 28 pixels.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image, ImageDraw

import feedback_adapter as fa

# %%
# A pair of trousers, drawn here, and the same under noise.
canvas = Image.new("L", (112, 112))
draw = ImageDraw.Draw(canvas)
draw.polygon([(38, 4), (74, 4), (80, 108), (62, 108), (56, 40), (50, 108), (32, 108)], fill=170)
clean = np.asarray(canvas.resize((28, 28))) / 255
noisy = (clean + np.random.default_rng(3).normal(0, 0.35, clean.shape)).clip(0, 1)
images = torch.tensor(np.stack([clean, noisy]) * 2 - 1, dtype=torch.float32)[:, None]

# %%
# ``unroll`` gives the prediction of every iteration, and what was fed back.
adapter = fa.load("fashion-cnnf-adversarial")
with torch.no_grad():
    unroll = adapter.model.unroll(images, 5)
probabilities = unroll.logits.softmax(-1)
for image, name in enumerate(["clean", "noisy"]):
    for iteration in (0, 1, 2, 5):
        most = probabilities[iteration, image].argmax()
        chance = probabilities[iteration, image, most]
        print(f"{name}, iteration {iteration}: {adapter.labels[most]} {chance:.0%}")

figure, axes = plt.subplots(2, 5, figsize=(10, 4.4), layout="constrained")
for row, image in enumerate(images):
    axes[row, 0].imshow(image[0], cmap="gray")
    axes[row, 0].set_title("image")
    axes[row, 1].imshow(unroll.features[0][row].mean(0))
    axes[row, 1].set_title("feature")
    for axis, iteration in zip(axes[row, 2:], (1, 2, 5), strict=True):
        axis.imshow(unroll.reconstructions[iteration - 1][row].mean(0))
        axis.set_title(f"feedback {iteration}")
for axis in axes.flat:
    axis.set_axis_off()
figure.savefig("a_clean_and_a_noisy_image_and_their_feedback.png", dpi=110)

# %%
# Now somebody says what it isn't. ``strategy="cnnf"`` is the default of this network: its
# feedback starts from the prediction that agrees with what is known.
result = adapter.refine(images, fa.Labels({"dress": 0, "coat": 0}))
print(result.table(top=3))

# %%
# Here feedback helps, on one drawing under one noise. On 300 test images under noise and under
# attacks, feedback made these networks no more robust than feedforward networks that were trained
# for as long. Read :doc:`the measurements </cnnf-report>` before you choose such a network.
