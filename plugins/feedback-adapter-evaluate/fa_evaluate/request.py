"""What a protocol is asked to measure, as the command line takes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor

from fa_evaluate import data as readers
from fa_evaluate.data.files import Opener
from feedback_adapter import load
from feedback_adapter.adapter import Adapter
from feedback_adapter.checkpoint import find, read_config
from feedback_adapter.errors import CheckpointError, ModelError

__all__ = ["Photos", "Request"]


@dataclasses.dataclass(frozen=True)
class Photos:
    """Images that are read and transformed when they are asked for, by number.

    Args:
        names: (N) file names.
        opener: Opens a photo by its name, as RGB.
        transform: Makes a photo what the model takes, (channels, height, width).
    """

    names: Sequence[str]
    opener: Opener
    transform: Callable[[Image.Image], Tensor]

    def __len__(self) -> int:
        """N."""
        return len(self.names)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """The images of those numbers (k,), as (k, channels, height, width).

        Raises:
            DataError: A photo is missing or can't be decoded.
        """
        return torch.stack([self.transform(self.opener(self.names[int(row)])) for row in rows])


@dataclasses.dataclass(frozen=True)
class Request:
    """A model, data with the truth, and which methods to measure how.

    Args:
        checkpoint: Name to report.
        adapter: The model.
        config: Its `feedback_adapter.json`.
        data: Folder with the images and their truth.
        source: What the truth means (a key of `fa_evaluate.data.SOURCES`); by default
            what the checkpoint says.
        split: `"train"`, `"dev"`, `"test"` or `"all"`.
        limit: The first so many images only.
        known: Amounts of evidence, in the protocol's unit; by default the protocol's own.
        strategies: Names of strategies; by default the protocol's own.
        pivots: Sites; by default the checkpoint's.
        options: Of the strategies, by name.
        draws: How many draws of what is known.
        splits: How many splits into what may be known and what is scored.
        flip: Shares of wrong evidence to try, in percent.
        seed: Of everything random.
        batch: Images at a time.
        progress: Called with a note before each pass.
    """

    checkpoint: str
    adapter: Adapter
    config: Mapping[str, Any]
    data: Path
    source: str | None = None
    split: str = "test"
    limit: int | None = None
    known: tuple[float, ...] = ()
    strategies: tuple[str, ...] = ()
    pivots: tuple[str, ...] | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    draws: int = 5
    splits: int = 1
    flip: tuple[float, ...] = ()
    seed: int = 0
    batch: int = 64
    progress: Callable[[str], None] = lambda _: None

    @classmethod
    def of(cls, checkpoint: str, data: Path, **rest: Any) -> Self:
        """A request to measure a checkpoint by name or folder, which is loaded.

        Args:
            checkpoint: Name or folder.
            data: Folder with the images and their truth.
            **rest: Other fields.

        Raises:
            CheckpointError: There is no such checkpoint.
        """
        return cls(checkpoint, load(checkpoint), read_config(find(checkpoint)), data, **rest)

    @property
    def what(self) -> str:
        """The source of the truth.

        Raises:
            CheckpointError: Neither the request nor the checkpoint says.
        """
        source = self.source or (self.config.get("data") or {}).get("source")
        if source is None:
            raise CheckpointError(
                f"{self.checkpoint!r} doesn't say what data its labels come from. "
                f"Say it with --source: one of {', '.join(readers.SOURCES)}."
            )
        return source

    def labelled(self, output: str | None = None) -> readers.LabelledImages:
        """The images of the split with the truth for an output's labels.

        Args:
            output: Which output; by default the only one.
        """
        labels = self.adapter.outputs[output].labels if output else self.adapter.labels
        found = readers.read(self.data, labels, self.what).subset(self.split)
        return found.select(range(min(self.limit or len(found), len(found))))

    def photos(self, images: readers.LabelledImages | readers.CaptionedImages) -> Photos:
        """The images as the model takes them, read when they are asked for.

        Raises:
            ModelError: The checkpoint doesn't say how photos become its input.
        """
        if self.adapter.transform is None:
            raise ModelError(
                "The checkpoint doesn't say how photos become its input (no transform)."
            )
        return Photos(images.names, images.opener, self.adapter.transform)
