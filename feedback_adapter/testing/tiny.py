"""A small network that is hard to refine, and images and outputs for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from feedback_adapter.adapter import Adapter
from feedback_adapter.outputs import SINGLE, Kind, Output, Outputs

__all__ = ["LABELS", "TinyMapNet", "TinyNet", "tiny_adapter", "tiny_images", "tiny_outputs"]

LABELS = ("cat", "dog", "snow", "ball")
"""The labels of the tiny models."""


class TinyNet(nn.Module):
    """A network with what makes refinement hard, in 2,000 weights.

    Batch norm with statistics of its own, activations in place, a skip connection, a layer
    that is called twice, dropout. Sites: `stem`, `block`, `again#0`, `again#1`, `head` and
    more. It has no kinks: PyTorch rounds differently for other batch sizes, and where a ReLU
    sits within rounding of zero, an image's gradient in a batch isn't that of it alone.

    Args:
        labels: Number of outputs.
        seed: Of the weights.
    """

    def __init__(self, labels: int = len(LABELS), seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stem = nn.Sequential(
                nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ELU(inplace=True)
            )
            self.block = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.GELU())
            self.again = nn.Conv2d(8, 8, 3, 1, 1)
            self.drop = nn.Dropout(0.5)
            self.head = nn.Linear(8, labels)
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    nn.init.normal_(module.running_mean, 0, 0.2)  # pyright: ignore[reportArgumentType]
                    nn.init.uniform_(module.running_var, 0.5, 1.5)  # pyright: ignore[reportArgumentType]
            nn.init.normal_(self.head.weight)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to (batch, labels)."""
        return self.head(self.drop(self.features(images).mean((2, 3))))

    def features(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to (batch, 8, height / 2, width / 2)."""
        x = self.stem(images)
        x = x + self.block(x)
        return self.again(self.again(x).tanh()).tanh_()


class TinyMapNet(TinyNet):
    """A `TinyNet` that labels each pixel of a map half as wide and half as high as the image."""

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to (batch, labels, height / 2, width / 2)."""
        return self.head(self.drop(self.features(images).movedim(1, -1))).movedim(-1, 1)


def tiny_images(batch: int = 4, size: int = 16, seed: int = 0) -> Tensor:
    """Random images of random colours, (batch, 3, size, size), the same every time."""
    generator = torch.Generator().manual_seed(seed)
    colour = torch.randn(batch, 3, 1, 1, generator=generator)
    return colour + torch.randn(batch, 3, size, size, generator=generator)


SCENES = ("indoor", "outdoor", "night")
"""The labels of the tiny models' second output."""


class _TwoHeads(nn.Module):
    """A `TinyNet` with a second output."""

    def __init__(self) -> None:
        super().__init__()
        self.net = TinyNet(len(LABELS) + len(SCENES))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        first, second = self.net(images).split([len(LABELS), len(SCENES)], 1)
        return {SINGLE: first, "scene": second}


def tiny_adapter(
    kind: Kind = "multilabel", *, double: bool = False, second: Kind | None = None
) -> Adapter:
    """A `TinyNet` with `LABELS` as an adapter.

    Args:
        kind: Of its output; `"map"` only without a second one.
        double: Whether it works in float64.
        second: Kind of a second output, `"scene"`; `None` for none.
    """
    single = TinyMapNet if kind == "map" else TinyNet
    net = single() if second is None else _TwoHeads()
    specs = {SINGLE: Output(LABELS, kind, None if second is None else SINGLE)}
    if second is not None:
        specs["scene"] = Output(SCENES, second, "scene")
    return Adapter((net.double() if double else net).eval(), specs)


def tiny_outputs(
    batch: int = 4,
    *,
    kind: Kind = "multilabel",
    labels: Sequence[str] = LABELS,
    second: Kind | None = None,
    seed: int = 0,
) -> Outputs:
    """Random logits in float64, for checks of evidence; maps are 5 pixels high and 6 wide.

    Args:
        batch: Number of images.
        kind: Of the output.
        labels: Its labels.
        second: Kind of a second output, `"scene"`; `None` for none.
        seed: Of the numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    specs = {SINGLE: Output(tuple(labels), kind)}
    if second is not None:
        specs["scene"] = Output(SCENES, second)
    shapes = {n: (len(s.labels), 5, 6) if s.kind == "map" else (len(s.labels),)
              for n, s in specs.items()}  # fmt: skip
    logits = {
        name: torch.randn(batch, *shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }
    return Outputs(logits, specs)
