"""The evidence `Place`: whereabouts in the image an object is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fa_backward.errors import BackwardError
from feedback_adapter.evidence.base import Evidence
from feedback_adapter.outputs import Output, Outputs

WORDS = {
    "left": (0.0, 0.0, 0.5, 1.0),
    "right": (0.5, 0.0, 1.0, 1.0),
    "upper": (0.0, 0.0, 1.0, 0.5),
    "lower": (0.0, 0.5, 1.0, 1.0),
    "middle": (0.25, 0.25, 0.75, 0.75),
}
SOFTNESS = 0.05  # how far outside the box, as a share of the image, costs one nat

Box = tuple[float, float, float, float]


class Place(Evidence):
    """Where the object's middle is: words such as `"left"` and `"upper right"`, or a box.

    It says nothing of the labels, so its loss is 0 and its clamp changes nothing: only a
    strategy that looks for objects in places makes use of it.

    Args:
        where: One place for all images, or a list with one per image: words out of left,
            right, upper, lower, middle; a box (left, top, right, bottom) in shares of the
            image's sides; or `None` where nothing is known.

    Raises:
        BackwardError: Another word, or a box that isn't inside the image.

    Example:
        >>> place = Place("upper left")
        >>> place.log_prior(0, torch.tensor([[-0.5, -0.5], [0.5, 0.5]])).tolist()
        [0.0, -10.0]
    """

    silence = "a place says nothing to this strategy: strategy='backward' looks in places"

    def __init__(self, where: str | Box | Sequence[str | Box | None]):
        several = isinstance(where, list)
        self.boxes = [_box(w) for w in where] if several else [_box(where)]  # pyright: ignore
        self.shared = not several

    def bind(self, specs: Mapping[str, Output], batch: int) -> Place:
        """Check the number of images. See `Evidence.bind`."""
        del specs
        if not self.shared and len(self.boxes) != batch:
            raise BackwardError(f"Place has {len(self.boxes)} places for {batch} images.")
        return self

    def box(self, image: int) -> Box | None:
        """Where the object of one image is, or `None` if nothing is known."""
        return self.boxes[0 if self.shared else image]

    def log_prior(self, image: int, centres: Tensor) -> Tensor:
        """log P(centre) up to a constant: 0 inside the box, falling outside it.

        Args:
            image: Which one.
            centres: (n, 2), y and x from -1 to 1.

        Returns:
            (n,), in nats.
        """
        box = self.box(image)
        if box is None:
            return torch.zeros(len(centres))
        y, x = ((centres + 1) / 2).unbind(1)
        left, top, right, bottom = box
        outside = (left - x).clamp(min=0) + (x - right).clamp(min=0)
        outside = outside + (top - y).clamp(min=0) + (y - bottom).clamp(min=0)
        return -outside / SOFTNESS

    def loss(self, outputs: Outputs) -> Tensor:
        """Nothing: a place isn't a label. See `Evidence.loss`."""
        return sum((value.flatten(1).sum(1) * 0 for _, value in outputs.items()), torch.zeros(()))

    def clamp(self, outputs: Outputs) -> Outputs:
        """The outputs as they are. See `Evidence.clamp`."""
        return outputs

    def known(self, outputs: Outputs) -> dict[str, Tensor]:
        """No label. See `Evidence.known`."""
        return {name: torch.zeros_like(v, dtype=torch.bool) for name, v in outputs.items()}

    def take(self, images: Tensor) -> Place:
        """The places of some of the images. See `Evidence.take`."""
        if self.shared:
            return self
        return Place([self.boxes[i] for i in images.tolist()])

    def __repr__(self) -> str:
        return f"Place({self.boxes[0] if self.shared else self.boxes})"


def _box(where: str | Box | None) -> Box | None:
    if where is None:
        return None
    if isinstance(where, str):
        boxes = []
        for word in where.split():
            if word not in WORDS:
                raise BackwardError(
                    f"Place doesn't know {word!r}: {', '.join(WORDS)}, and pairs such as "
                    "'upper left', are possible."
                )
            boxes.append(WORDS[word])
        lefts, tops, rights, bottoms = zip(*boxes, strict=True) if boxes else [(0,)] * 4
        box = (max(lefts), max(tops), min(rights), min(bottoms))
    else:
        try:
            box = tuple(float(side) for side in where)
        except (TypeError, ValueError):
            box = ()
    if len(box) != 4 or not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
        raise BackwardError(
            f"Place got {where!r}: a box is (left, top, right, bottom) in shares of the image's "
            "sides, such as (0.5, 0, 1, 1), and words that contradict each other make none."
        )
    return box
