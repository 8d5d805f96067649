"""
Choose pivots by data
=====================

Which activation should change, how far in each step, and how often? `adapter.choose_pivots` finds
out on images of which some labels are known. It hides half of what is known of each image,
refines with the other half, and compares how well each setting predicts what was hidden.
"""

import matplotlib.pyplot as plt
import torch
from matplotlib.ticker import MaxNLocator
from skimage import data
from torchvision.transforms.functional import gaussian_blur

import feedback_adapter as fa

# %%
# A real search wants some hundreds of images. So that this one ends within seconds, it has 16
# crops of one photo, which are blurred so that the network sees less. Their labels are the words
# that the network finds in the sharp crops. The figures show how a search runs. They don't say
# which setting is good.
adapter = fa.load("caption-words-lite0")
photo = data.astronaut()
generator = torch.Generator().manual_seed(0)
corners = torch.randint(0, 512 - 320, (16, 2), generator=generator).tolist()
sharp = adapter.transform.open(*[photo[y : y + 320, x : x + 320] for y, x in corners])
images = gaussian_blur(sharp, kernel_size=[21, 21])
truth = adapter.predict(sharp).sigmoid() > 0.3
evidence = fa.Labels.from_tensors(truth, torch.ones_like(truth))

# %%
# Two late pivots and two step sizes are tried.
choice = adapter.choose_pivots(
    images, evidence, pivots=["conv_head", "global_pool"], step_sizes=[3, 30], steps=3
)
best = choice.chosen
print(f"{best.pivot}, step size {best.step_size:g}, {best.steps} steps")
print(f"chosen in {choice.seconds:.0f} seconds")

# %%
# The trials that ran to the end, the best first. Those that were clearly worse were dropped
# early. ``gain`` is in points of mean average precision, and ``cost`` compares with one forward
# pass of the whole model.
for trial in choice.trials:
    print(
        f"{trial.pivot:12} step size {trial.step_size:<4g} {trial.steps} steps: "
        f"gain {trial.gain:+.1f} ± {trial.error:.1f}, cost {trial.cost:.1%}"
    )

# %%
# The same as a picture: how much is gained after each number of steps.
figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
for pivot, step_size in dict.fromkeys((t.pivot, t.step_size) for t in choice.trials):
    own = [t for t in choice.trials if (t.pivot, t.step_size) == (pivot, step_size)]
    own.sort(key=lambda trial: trial.steps)
    steps, gains = [t.steps for t in own], [t.gain for t in own]
    axis.plot(steps, gains, marker="o", label=f"{pivot}, step size {step_size:g}")
axis.axhline(0, color="0.7", linewidth=1)
axis.set_xlabel("steps")
axis.set_ylabel("gain (mean average precision)")
axis.xaxis.set_major_locator(MaxNLocator(integer=True))
axis.legend(frameon=False)
axis.spines[["top", "right"]].set_visible(False)
figure.savefig("gain_by_pivot_step_size_and_steps.png", dpi=110)

# %%
# The choice goes into ``refine`` as arguments.
result = adapter.refine(images[:1], fa.Labels({"woman": 1}), **choice.arguments)
print(result.table(top=4))
