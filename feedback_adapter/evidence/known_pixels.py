"""Known pixels of a map as tensors: their loss and their clamp.

The known pixels are taken out of the map, so that they are rows of labels like any others, and
the arithmetic is that of `BoundLabels`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from feedback_adapter.errors import EvidenceError
from feedback_adapter.evidence.base import Evidence
from feedback_adapter.evidence.bound import BoundLabels
from feedback_adapter.evidence.certain import Certain, CertainOnMap
from feedback_adapter.evidence.given import everywhere
from feedback_adapter.evidence.painting import Mark, Size, paint
from feedback_adapter.outputs import Output, Outputs


@dataclasses.dataclass(frozen=True)
class ImageMarks:
    """What is known of the pixels of one image.

    Args:
        marks: Clicks, scribbles and boxes, in order.
        mask: As for `painting.paint`.
        frame: Height and width of what the marks are on; `None` for the map itself.
    """

    marks: tuple[Mark, ...] = ()
    mask: Tensor | None = None
    frame: Size | None = None

    def certain(self, labels: int) -> list[float]:
        """For each label 1 where a pixel is certain to have it, else NaN."""
        there = {mark.label for mark in self.marks if mark.value == 1}
        if self.mask is not None and self.mask.ndim == 3:
            there.update((self.mask == 1).flatten(1).any(1).nonzero()[:, 0].tolist())
        elif self.mask is not None:
            there.update(self.mask.unique().tolist())
        return [1.0 if label in there else torch.nan for label in range(labels)]


@dataclasses.dataclass(frozen=True)
class _Rows:
    """The known pixels of a batch in maps of one size, `most` of each image at most.

    Args:
        index: (batch, most) int64, y * width + x; 0 where an image has fewer.
        there: (batch, most) bool: where it hasn't fewer.
        labels: Target and weight (batch * most, labels) of each.
    """

    index: Tensor
    there: Tensor
    labels: BoundLabels


class KnownPixels(Evidence):
    """Some pixels' labels are known, of each image of an output that is a map."""

    def __init__(
        self, output: str, spec: Output, images: Sequence[ImageMarks], confidence: float
    ) -> None:
        self.output, self.spec = output, spec
        self.images, self.confidence = tuple(images), confidence
        kind = "multiclass" if spec.one_holds else "multilabel"
        self.row = {output: Output(spec.labels, kind)}
        self.cached: tuple[Size, torch.device, _Rows] | None = None

    def certain(self) -> list[Certain]:
        if self.confidence < 1:
            return []
        labels = len(self.spec.labels)
        value = [image.certain(labels) for image in self.images]
        return [
            _CertainPixels(
                self.output, torch.tensor(value, device="cpu").reshape(-1, labels), pixels=self
            )
        ]

    def loss(self, outputs: Outputs) -> Tensor:
        return self.loss_of(self.read(outputs))

    def read(self, outputs: Outputs) -> Outputs:
        """The known pixels' logits, (batch, labels, most). See `Evidence.read`."""
        logits = outputs[self.output]
        index = self.rows(logits).index[:, None].expand(-1, logits.shape[1], -1)
        return Outputs({self.output: logits.flatten(2).gather(2, index)}, outputs.specs)

    def loss_of(self, read: Outputs) -> Tensor:
        assert self.cached is not None, "read(outputs) comes first"
        rows = self.cached[2]
        losses = rows.labels.loss(self._as_rows(read[self.output]))
        return losses.reshape(rows.index.shape).sum(1)

    def clamp(self, outputs: Outputs) -> Outputs:
        logits = outputs[self.output]
        rows = self.rows(logits)
        clamped = rows.labels.clamp(self.gathered(outputs))[self.output]
        return outputs.replace(**{self.output: self._put(logits.clone(), rows, clamped)})

    def known(self, outputs: Outputs) -> dict[str, Tensor]:
        return self._masks(outputs, present=False)

    def present(self, outputs: Outputs) -> dict[str, Tensor]:
        return self._masks(outputs, present=True)

    def take(self, rows: Tensor) -> KnownPixels:
        images = [self.images[row] for row in rows.tolist()]
        return KnownPixels(self.output, self.spec, images, self.confidence)

    def rows(self, logits: Tensor) -> _Rows:
        """The known pixels in a map of the size of these logits (batch, labels, h, w).

        Raises:
            EvidenceError: A mark is outside of the picture, or a pixel can have no label.
        """
        size, device = (logits.shape[2], logits.shape[3]), logits.device
        if self.cached is None or self.cached[:2] != (size, device):
            self.cached = size, device, self._painted(size, device)
        return self.cached[2]

    def _painted(self, size: Size, device: torch.device) -> _Rows:
        count = len(self.spec.labels)
        places: list[Tensor] = []
        values: list[Tensor] = []
        for number, image in enumerate(self.images):
            try:
                known = paint(
                    image.marks, image.mask, image.frame, size, count, one_holds=self.spec.one_holds
                )
            except EvidenceError as error:
                error.args = (f"In image {number}: {error}",)
                raise
            place = (~known.isnan()).any(0).nonzero()[:, 0]
            value = known[:, place].T
            if self.spec.one_holds:
                for row in (value == 0).all(1).nonzero()[:1, 0].tolist():
                    y, x = divmod(int(place[row]), size[1])
                    raise EvidenceError(
                        f"Contradiction: in image {number} each label is ruled out at pixel "
                        f"(x={x}, y={y}) of the map, but one must be right."
                    )
            places.append(place)
            values.append(value)
        most = max(map(len, places), default=0)
        index = torch.zeros(len(places), most, dtype=torch.long, device="cpu")
        there = torch.zeros(len(places), most, dtype=torch.bool, device="cpu")
        target = torch.full((len(places), most, count), torch.nan, device="cpu")
        for number, (place, value) in enumerate(zip(places, values, strict=True)):
            index[number, : len(place)], there[number, : len(place)] = place, True
            target[number, : len(place)] = value
        target = target.flatten(0, 1).to(device)
        weight = (~target.isnan()).to(target.dtype) * self.confidence
        labels = BoundLabels({self.output: target.nan_to_num(0)}, {self.output: weight})
        return _Rows(index.to(device), there.to(device), labels)

    def gathered(self, outputs: Outputs) -> Outputs:
        """The known pixels' logits as labels, (batch * most, labels)."""
        return self._as_rows(self.read(outputs)[self.output])

    def _as_rows(self, read: Tensor) -> Outputs:
        return Outputs({self.output: read.transpose(1, 2).flatten(0, 1)}, self.row)

    def _put(self, onto: Tensor, rows: _Rows, values: Tensor) -> Tensor:
        """A map of one's own with rows (batch * most, labels) written onto it."""
        image, place = rows.there.nonzero().unbind(1)
        flat = onto.flatten(2)
        flat[image, :, rows.index[image, place]] = values[rows.there.flatten()]
        return flat.reshape(onto.shape)

    def _masks(self, outputs: Outputs, *, present: bool) -> dict[str, Tensor]:
        logits = outputs[self.output]
        rows = self.rows(logits)
        said = rows.labels.weight[self.output] > 0
        if present:
            said = said & (rows.labels.target[self.output] > 0.5)
        mask = self._put(torch.zeros_like(logits, dtype=torch.bool), rows, said)
        return everywhere(outputs, {self.output: mask})


@dataclasses.dataclass(frozen=True)
class _CertainPixels(CertainOnMap):
    """Pixels that are certain, and by that labels that are somewhere."""

    pixels: KnownPixels = dataclasses.field(kw_only=True)

    def hold(self, outputs: Outputs) -> Outputs:
        return self.pixels.clamp(outputs)

    def broken(self, outputs: Outputs) -> str | None:
        logits = outputs[self.output]
        rows = self.pixels.rows(logits)
        found = self.pixels.gathered(outputs)
        p = self.pixels.row[self.output].probabilities(found[self.output])
        target, weight = rows.labels.on(p, self.output)
        off = ((p - target).abs() > self.tolerance) & (weight == 1)
        for row, label in off.nonzero()[:1].tolist():
            image, place = divmod(row, rows.index.shape[1])
            y, x = divmod(int(rows.index[image, place]), logits.shape[3])
            share = float(target[row, label])
            what = {1.0: "known", 0.0: "known not to be there"}.get(share, f"{share:.2f} likely")
            name = self.pixels.spec.labels[label]
            return f"{name!r} is {what} at pixel (x={x}, y={y}) of the map in image {image}"
        return None
