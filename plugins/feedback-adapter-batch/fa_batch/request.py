"""What is asked for, as plain data that a worker anywhere can follow, and that a manifest keeps."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

import feedback_adapter as fa
from feedback_adapter.errors import ModelError

if TYPE_CHECKING:
    from feedback_adapter.transform import PhotoTransform

__all__ = ["Request", "label_outputs", "loaded", "sha256_of"]


@dataclasses.dataclass(frozen=True)
class Request:
    """What is done with each image, and to which images.

    Args:
        checkpoint: Name or folder.
        checkpoint_sha256: Of the weights, the labels and everything else that makes results.
        input_sha256: Of the images' names and what is known of them.
        rows: How many there are.
        shard_size: Rows per shard, at least 1; the last one may have fewer.
        strategy: As for `refine`.
        pivots: As for `refine`.
        options: The strategy's options.
        ignored: Names that aren't the model's and are left out.
    """

    checkpoint: str
    checkpoint_sha256: str
    input_sha256: str
    rows: int
    shard_size: int = 1000
    strategy: str | None = None
    pivots: tuple[str, ...] | str | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    ignored: tuple[str, ...] = ()

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return -(-self.rows // self.shard_size)

    def refine(self, adapter: fa.Adapter, images: Any, evidence: fa.Evidence) -> fa.Refinement:
        """Refine a batch as asked."""
        return adapter.refine(
            images, evidence, strategy=self.strategy, pivots=self.pivots, **self.options
        )

    def check(self, adapter: fa.Adapter) -> None:
        """Refine grey photos, so that what can't be asked for is said before the work.

        There are two, since some pivots can't be with several images only.

        Raises:
            FeedbackAdapterError: What is asked for can't be.
        """
        device = next(adapter.model.parameters()).device
        grey = [Image.new("RGB", (64, 64), "grey")] * 2
        label = next(iter(label_outputs(adapter).values())).labels[0]
        self.refine(adapter, self.transform(adapter).open(*grey).to(device), fa.Labels({label: 1}))

    def transform(self, adapter: fa.Adapter) -> PhotoTransform:
        """How photos become the model's input.

        Raises:
            ModelError: The checkpoint doesn't say.
        """
        if adapter.transform is None:
            raise ModelError(
                f"{self.checkpoint!r} doesn't say how photos become its input (no transform)."
            )
        return adapter.transform

    def to_dict(self) -> dict[str, Any]:
        """What must be the same for results to be the same, as JSON has it."""
        said = dataclasses.asdict(self)
        del said["checkpoint"]
        return json.loads(json.dumps(said))

    @functools.cached_property
    def sha256(self) -> str:
        """What tells this request from others."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()


def label_outputs(adapter: fa.Adapter) -> dict[str, fa.Output]:
    """The outputs whose probabilities are written: those of labels of whole images.

    Raises:
        ModelError: There is none.
    """
    kinds = {name: spec.kind for name, spec in adapter.outputs.items()}
    found = {n: s for n, s in adapter.outputs.items() if s.kind in ("multilabel", "multiclass")}
    if not found:
        raise ModelError(
            f"The model has no labels of whole images, only {kinds}: refine its images with "
            "`feedback-adapter refine` or in Python."
        )
    return found


@functools.lru_cache(maxsize=1)
def loaded(checkpoint: str, device: str) -> tuple[fa.Adapter, str]:
    """The checkpoint and its sha256, loaded once per process."""
    adapter = fa.load(checkpoint).to(device)
    return adapter, sha256_of(adapter)


def sha256_of(adapter: fa.Adapter) -> str:
    """The sha256 of everything of a checkpoint that results depend on."""
    digest = hashlib.sha256()
    for said in (label_outputs(adapter), adapter.transform, adapter.defaults):
        digest.update(repr(said).encode())
    tensors = dict(adapter.model.state_dict())
    for name, prior in adapter.priors.items():
        tensors |= {f"prior {name} {key}": value for key, value in vars(prior).items()}
    for name, value in sorted(tensors.items()):
        digest.update(name.encode())
        if isinstance(value, torch.Tensor):
            plain = value.detach().cpu().to_dense().contiguous().reshape(-1)
            digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
            digest.update(plain.view(torch.uint8).numpy())
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()
