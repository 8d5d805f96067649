"""A batch whose forward pass has been recorded once, for as many refinements as wanted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from torch import Tensor, nn

from feedback_adapter.errors import InputError, SiteError
from feedback_adapter.outputs import Outputs
from feedback_adapter.rows import indices
from feedback_adapter.sites import Inputs, Site, Tail, frozen, same_bits, weights_of

__all__ = ["Prepared", "prepare"]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Prepared:
    """A batch and its recorded forward pass. Make it with `Adapter.prepare`.

    It is only read, so that threads can share it. Nothing of it is on the model.

    Args:
        model: The model that ran.
        inputs: The images and what else the model takes.
        pivots: Where refinements can move activations.
        tail: The recorded pass, from the first pivot on.
        weights: What the images and the model's parameters were then, by name.
        buffers: The model's buffers, and what they held.

    Example:
        >>> import timm, torch, feedback_adapter as fa
        >>> model = timm.create_model("resnet18", num_classes=3)
        >>> adapter = fa.wrap(model, labels=["cat", "dog", "sofa"])
        >>> prepared = adapter.prepare(torch.randn(2, 3, 64, 64), pivots="layer4")
        >>> prepared
        Prepared(batch=2, pivots=['layer4'], 16.1 KiB)
        >>> with_cat = adapter.refine(prepared, fa.Labels({"cat": 1}))
        >>> without_dog = adapter.refine(prepared, fa.Labels({"dog": 0}))
    """

    model: nn.Module
    inputs: Inputs
    pivots: tuple[Site, ...]
    tail: Tail
    weights: Mapping[str, tuple[int, int]]
    buffers: Mapping[str, tuple[Tensor, int, Tensor]]

    def __len__(self) -> int:
        return self.batch

    def take(self, rows: Any) -> Prepared:
        """Some of the images, prepared again: their forward pass runs once more.

        Args:
            rows: Indices, which may repeat: a tensor, a list, an array, a slice; or True and
                False for each image.

        Raises:
            InputError: Something else, an image that isn't there, or none; or a parameter of the
                model has changed since.
        """
        self.check(self.model)
        return prepare(self.model, self.inputs.take(indices(rows, self.batch)), self.pivots)

    def __reduce__(self) -> NoReturn:
        raise InputError(
            f"{self!r} can't be copied or saved, as it belongs to a model in memory. Copy or save "
            "the adapter and the images, and call prepare(images) there."
        )

    @property
    def batch(self) -> int:
        """Number of images."""
        return self.inputs.batch

    @property
    def nbytes(self) -> int:
        """Bytes of the activations and outputs that are kept, without the images themselves.

        These are the pivots' activations and whatever else the tail reads of what was computed
        before the first of them.
        """
        return self.tail.nbytes

    def check(self, model: nn.Module) -> None:
        """Refuse another model, or other weights, than those that the batch was prepared with.

        Raises:
            InputError: It is another model; or a parameter, a buffer or the images have been
                written to or moved since.
        """
        if model is not self.model:
            raise InputError(
                f"{self!r} was prepared by an adapter of another {type(self.model).__name__}: "
                "call prepare(images) of the adapter that refines."
            )
        weights, buffers = _weights(model, self.inputs), dict(model.named_buffers())
        changed = [name for name, now in weights.items() if self.weights.get(name) != now]
        changed += [name for name in self.weights if name not in weights]
        changed += sorted({*buffers} ^ {*self.buffers})
        for name, (tensor, version, value) in self.buffers.items():
            now = buffers.get(name, tensor)  # one that a forward pass wrote to was put back
            if (now is not tensor or now._version != version) and not same_bits(now, value):
                changed.append(name)
        if changed:
            raise InputError(
                f"{self!r} was prepared with other numbers: {changed[0]!r} (of {len(changed)} "
                "tensors) has changed since. Call prepare(images) again."
            )

    def from_pivots(self, pivots: Sequence[Site]) -> Tail:
        """The recorded pass, for a refinement at all or some of the pivots.

        Raises:
            SiteError: One wasn't prepared.
        """
        for site in pivots:
            if site not in self.pivots:
                names = [pivot.name for pivot in (*self.pivots, site)]
                raise SiteError(
                    f"{site.name!r} is not among the pivots of {self!r}. Call prepare(images, "
                    f"pivots={names}), or leave pivots out."
                )
        return self.tail

    def unrefined(self, read: Callable[[Any], Outputs]) -> Outputs:
        """The unrefined model's outputs, in tensors of their own."""
        return read(self.tail.value).clone()

    def __repr__(self) -> str:
        names = [site.name for site in self.pivots]
        size = self.nbytes / 2**10
        amount = f"{size:.1f} KiB" if size < 2**10 else f"{size / 2**10:.1f} MiB"
        return f"Prepared(batch={self.batch}, pivots={names}, {amount})"


def prepare(model: nn.Module, inputs: Inputs, pivots: Sequence[Site]) -> Prepared:
    """Record one forward pass of a batch. See `Adapter.prepare`.

    Raises:
        InputError: There is no image.
        SiteError: There is no such pivot.
    """
    if inputs.batch == 0:
        raise InputError("There is no image to prepare: the batch is empty.")
    with frozen(model):
        tail = Tail.record(model, inputs, pivots)
    buffers = {n: (b, b._version, b.detach().clone()) for n, b in model.named_buffers()}
    return Prepared(model, inputs, tuple(pivots), tail, _weights(model, inputs), buffers)


def _weights(model: nn.Module, inputs: Inputs) -> dict[str, tuple[int, int]]:
    images = inputs.images
    return {**weights_of(model), "the images": (images.data_ptr(), images._version)}
