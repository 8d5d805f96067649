"""What comes before a pivot, computed once: a checkpoint's tail as a model of its own.

A tail is exact, so figures are those of the whole model, up to rounding. For the zoo's
EfficientNets; a cache file is named after the weights' sha256, so new weights make a new one.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import feedback_adapter as fa
from fa_evaluate import data as readers
from feedback_adapter.checkpoint import find, read_config

FOLDERS = {"caption-words": "flickr8k", "coco-objects": "coco6k"}


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """One split of a checkpoint's data, through the model once.

    Args:
        images: Names and truth.
        logits: (N, labels), the plain model's.
        start: (N, ...) activations that the tail starts from; `None` if not asked for.
    """

    images: readers.LabelledImages
    logits: Tensor
    start: Tensor | None

    @property
    def truth(self) -> Tensor:
        """(N, labels) float32, 0 or 1."""
        return torch.from_numpy(self.images.targets.astype(np.float32))


class Cached:
    """A checkpoint with its splits.

    Args:
        name: Of the checkpoint.
        data: Folder with flickr8k and coco6k.
        cache: Folder for the files.
        block: The tail starts after this block; by default the last.
    """

    def __init__(self, name: str, data: Path, cache: Path, block: int = -1) -> None:
        self.name, self.cache = name, cache
        self.adapter = fa.load(name)
        self.config = read_config(find(name))
        source = self.config["data"]["source"]
        self.all = readers.read(data / FOLDERS[source], self.adapter.labels, source)
        net = self.adapter.model
        self.block = range(len(net.blocks))[block]
        tail = nn.Sequential()
        tail.add_module("start", nn.Identity())
        for index in range(self.block + 1, len(net.blocks)):
            tail.add_module(f"block{index}", net.blocks[index])
        for part in ("conv_head", "bn2", "global_pool", "classifier"):
            tail.add_module(part, net.get_submodule(part))
        self.tail = fa.Adapter(
            tail.eval(), self.adapter.outputs, defaults=self.adapter.defaults,
            priors=self.adapter.priors,
        )  # fmt: skip

    def split(self, split: str, *, start: bool = False) -> Split:
        """The plain model's logits of a split, and where the tail starts."""
        images = self.all.subset(split)
        sha = self.config["weights"]["sha256"][:8]
        place = f"-block{self.block}" if start else ""
        file = self.cache / f"{self.name}-{sha}-{split}{place}.npz"
        if not file.is_file():
            self._fill(images, file, start)
        kept = np.load(file)
        if list(kept["names"]) != list(images.names):
            raise SystemExit(f"{file} is of other images: remove it.")
        found = torch.from_numpy(kept["start"]) if start else None
        return Split(images, torch.from_numpy(kept["logits"]), found)

    def _fill(self, images: readers.LabelledImages, file: Path, start: bool) -> None:
        logits, starts = [], []
        net, transform = self.adapter.model, self.adapter.transform
        note = net.blocks[self.block].register_forward_hook(lambda *call: starts.append(call[2]))
        try:
            for rows in torch.arange(len(images)).split(32):
                batch = torch.stack([transform(images.open(i)) for i in rows.tolist()])
                logits.append(self.adapter.predict(batch))
                if not start:
                    starts.clear()
        finally:
            note.remove()
        extra = {"start": torch.cat(starts).numpy()} if start else {}
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, logits=torch.cat(logits).numpy(), names=np.array(images.names), **extra)
