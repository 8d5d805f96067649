"""
Backward pass: find planes one by one, and imagine some
=======================================================

The plugin `feedback-adapter-backward` explains a picture by objects: where a plane is, what it
would look like alone, and what is left without it. The network of this example knows planes,
ships and vehicles, from renders.
"""

import matplotlib.pyplot as plt
import torch

import feedback_adapter as fa
from fa_backward import Place

# %%
# Renders of two planes whose families weren't used in training.
adapter = fa.load("planes-backward")
images = adapter.transform.open("../../images/two_planes.png")

# %%
# ``parse`` finds the best object, takes it out of the picture, and looks again.
model = adapter.model.generative()
found = model.parse(images[0], max_objects=2, categories=["plane"])

# %%
# ``place`` says where to look. As evidence of ``refine``, ``Place`` says the same.
right = Place("right")
(asked,) = model.backward(images, ["plane"], place=lambda centres: right.log_prior(0, centres))

# %%
# Without a picture, the model imagines planes. It has learned their rough shape only.
imagined = model.sample(2, "plane", seed=3)

figure, axes = plt.subplots(1, 6, figsize=(12, 2.4), layout="constrained")
view = lambda picture: ((picture - 0.25) / 0.75).clamp(0, 1).permute(1, 2, 0)  # noqa: E731
axes[0].imshow(view(images[0]))
axes[0].set_title("picture")
names = ("first found", "second found", "asked: right")
for axis, one, name in zip(axes[1:4], [*found, asked], names, strict=True):
    axis.imshow(view(images[0] * torch.where(one.mask > 0.5, 1.0, 0.4)))
    axis.set_title(name)
for axis, picture in zip(axes[4:], imagined, strict=True):
    axis.imshow(view(picture))
    axis.set_title("imagined")
for axis in axes.flat:
    axis.set_axis_off()
figure.savefig("two_planes_found_one_by_one_and_two_imagined.png", dpi=110)

# %%
# Planes on one colour are easier than those in front of photographs. Read :doc:`/backward` for how
# well planes are found in front of what, and which part of the model fails.
