"""Draw the pictures of docs/backward.md: `python benchmarks/gallery.py --objects objects.npz`.

Planes are of held-out families (test); the scenes are the first of each kind, not chosen. The
photographs are scikit-image's, which are free. Pictures show colours as the renderer made them.
"""

import matplotlib
import numpy as np
import torch
from command import parser
from drawn import SEEDS, Drawn, bank, draw
from skimage import data as free
from skimage.transform import resize
from torch import Tensor

import feedback_adapter as fa
from fa_backward import GenerativeModel, Place
from fa_backward.agreement import agreement
from fa_backward.queries import choose, modes
from fa_backward.search import Hypotheses

matplotlib.use("agg")
from matplotlib import pyplot as plt

from scenes import DARKEST, SIDE  # isort: skip  (drawn adds recipes/training to the path)

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
MANY = {"fine": 8}  # places, with three hypotheses at each
SHOWN, DOUBTFUL = 15, 0.1  # bars; agreement below which a hypothesis is about nothing


def show(axis, picture: Tensor, title: str = "") -> None:
    """One encoded picture (3, H, W), or a map (H, W) from 0 to 1."""
    if picture.ndim == 3:
        colours = (picture - DARKEST) / (1 - DARKEST)
        nothing = picture.amax(0) < DARKEST / 2
        axis.imshow(torch.where(nothing, 1.0, colours).clamp(0, 1).permute(1, 2, 0))
    else:
        axis.imshow(picture.float(), cmap="gray", vmin=0, vmax=1)
    axis.set_title(title, fontsize=8)


def grid(rows: int, columns: int, size: float = 1.3):
    """A figure of empty axes, (rows, columns)."""
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * size, rows * size * 1.12), squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    return figure, axes


def over(image: Tensor, mask: Tensor) -> Tensor:
    """The image, dimmed away from the mask."""
    return torch.where(mask > 0.5, image, DARKEST + (image - DARKEST) * 0.25)


def samples(model: GenerativeModel, count: int = 8):
    """Imagined without an image: the first of each category."""
    figure, axes = grid(len(model.categories), count)
    for row, category in zip(axes, model.categories, strict=True):
        for axis, picture in zip(row, model.sample(count, category, seed=0), strict=True):
            show(axis, picture)
        row[0].set_title(category, fontsize=8)
    return figure


def groups(model: GenerativeModel, drawn: Drawn, count: int = 8):
    """Planes on nothing whose best explanations share the component of the second site."""
    found = [model.backward(image[None], ["plane"])[0].alternatives for image in drawn.images]
    component = torch.stack([each.components[0, 0] for each in found])
    used = [k for k in component.unique().tolist() if (component == k).sum() > 1]
    figure, axes = grid(len(used), count)
    for row, k in zip(axes, used, strict=True):
        members = torch.where(component == k)[0]
        row[0].set_title(f"component {k}: {len(members)}", fontsize=8)
        for axis, i in zip(row, members.tolist(), strict=False):
            axis.imshow(np.ones((2, 2, 3)))
            show(axis, drawn.images[i], axis.get_title())
    return figure


def explained(model: GenerativeModel, drawn: Drawn, names=None):
    """Scene, what is seen of the plane, what was found, what the plane should look like."""
    figure, axes = grid(4, len(drawn))
    for i, image in enumerate(drawn.images):
        (found,) = model.backward(image[None], ["plane"])
        show(axes[0, i], image, names[i] if names else "scene")
        show(axes[1, i], drawn.seen[i, 0], "true")
        show(axes[2, i], found.mask, "found")
        show(axes[3, i], found.picture, "expected")
    return figure


def completed(model: GenerativeModel, drawn: Drawn):
    """Behind an occluder: what is seen, and what the whole should look like."""
    figure, axes = grid(5, len(drawn))
    for i, image in enumerate(drawn.images):
        (found,) = model.backward(image[None], ["plane"])
        show(axes[0, i], image, "scene")
        show(axes[1, i], drawn.whole[i, 0], "whole, true")
        show(axes[2, i], found.mask, "found, seen")
        show(axes[3, i], found.amodal, "found, whole")
        show(axes[4, i], found.picture, "expected")
    return figure


def agreements(model: GenerativeModel, image: Tensor, found: Hypotheses) -> Tensor:
    """How well each hypothesis about a plane agrees with the network's map, (n,)."""
    coverage = model.coverage(image[None])[0, 0]
    return agreement((found.mask > 0.5).float(), coverage.expand(len(found), *coverage.shape))


def two(model: GenerativeModel, drawn: Drawn):
    """Two planes one by one, and how well the first search's hypotheses agree with the map."""
    figure, axes = grid(len(drawn), 4, 1.6)
    many = model.with_options(**MANY)
    for row, image in zip(axes, drawn.images, strict=True):
        show(row[0], image, "scene")
        instances = model.parse(image, 2, ["plane"])
        for axis, one, name in zip(row[1:3], instances, ("first", "second"), strict=False):
            show(axis, over(image, one.mask), name)
        (found,) = many.backward(image[None], ["plane"])
        beam = found.alternatives.take(torch.arange(min(SHOWN, len(found.alternatives))))
        first = beam.mask[0] > 0.5
        same = [bool(((m > 0.5) & first).sum() * 2 > (m > 0.5).sum()) for m in beam.mask]
        row[3].axis("on")
        colours = ["C0" if s else "C1" for s in same]
        row[3].bar(range(len(beam)), agreements(many, image, beam), color=colours)
        row[3].tick_params(labelsize=6)
        row[3].yaxis.tick_right()
        row[3].set_title(f"agreement of the best {len(beam)}", fontsize=7)
    return figure


def choices(model: GenerativeModel, drawn: Drawn):
    """Left and right by `Place`; largest and darkest among the modes of many hypotheses."""
    figure, axes = grid(len(drawn), 5)
    many = model.with_options(**MANY)
    for row, image in zip(axes, drawn.images, strict=True):
        show(row[0], image, "scene")
        for axis, word in zip(row[1:3], ("left", "right"), strict=True):
            place = Place(word)
            (found,) = model.backward(
                image[None], ["plane"], place=lambda c, place=place: place.log_prior(0, c)
            )
            show(axis, over(image, found.mask), word)
        (found,) = many.backward(image[None], ["plane"])
        agree = agreements(many, image, found.alternatives)
        beam = found.alternatives.take(torch.where(agree >= DOUBTFUL)[0])
        for axis, word in zip(row[3:], ("largest", "darkest"), strict=True):
            best = choose(beam, word)
            show(axis, over(image, beam.mask[best]), f"{word} of {len(modes(beam))}")
    return figure


def free_photographs() -> Tensor:
    """Encoded, (n, 3, SIDE, SIDE)."""
    pictures = [resize(getattr(free, name)(), (SIDE, SIDE)) for name in PHOTOGRAPHS]
    stack = torch.from_numpy(np.stack(pictures)).float().permute(0, 3, 1, 2)
    return DARKEST + (1 - DARKEST) * stack


@torch.no_grad()
def main() -> None:
    """Draw all, or some."""
    command = parser(__doc__, "objects", out="docs/images")
    command.add_argument("--only", nargs="*", default=())
    options = command.parse_args()
    model = fa.load(options.checkpoint).model.generative()
    objects, photographs = bank(options.objects, "test"), free_photographs()
    some = lambda kind, n: draw(kind, n, objects, photographs, SEEDS["test"])  # noqa: E731
    figures = {
        "samples": lambda: samples(model),
        "groups": lambda: groups(model, some("nothing", 40)),
        "clutter": lambda: explained(model, some("clutter", 6)),
        "photographs": lambda: explained(model, some("photo", 6)),
        "completion": lambda: completed(model, some("occluded", 6)),
        "two": lambda: two(model, some("two", 3)),
        "choices": lambda: choices(model, some("two", 3)),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for name, make in figures.items():
        if options.only and name not in options.only:
            continue
        figure = make()
        figure.tight_layout(pad=0.3)
        figure.savefig(options.out / f"{name}.png", dpi=110, pil_kwargs={"optimize": True})
        plt.close(figure)
        print(name, flush=True)


if __name__ == "__main__":
    main()
