"""The promises of evidence."""

from __future__ import annotations

import torch
from torch import Tensor

from feedback_adapter.evidence.base import Evidence
from feedback_adapter.evidence.certain import CertainOnMap
from feedback_adapter.outputs import Outputs
from feedback_adapter.testing.promises import ConformanceError, close, require

__all__ = ["check_evidence"]


def check_evidence(evidence: Evidence, outputs: Outputs) -> None:
    """Check that evidence keeps the promises of `feedback_adapter.Evidence`.

    Args:
        evidence: What is known of `outputs.batch` images; vary it from image to image.
        outputs: Some logits in float64 (`tiny_outputs()`), of at least two images.

    Raises:
        ConformanceError: A promise that it breaks: the loss is (batch,), finite, right in its
            gradient and each image's own; the clamp keeps names and shapes, is finite, each
            image's own, holds what is `certain` and changes nothing in place; `known` has every
            output; `take` picks; `evidence & evidence` has twice the loss.
    """
    who = type(evidence).__name__
    batch = outputs.batch
    originals = {name: value.clone() for name, value in outputs.items()}
    bound = evidence.bind(outputs.specs, batch)
    require(isinstance(bound, Evidence), f"{who}.bind returns {type(bound).__name__}")
    loss = bound.loss(outputs)
    require(tuple(loss.shape) == (batch,), f"{who}.loss is {tuple(loss.shape)}, not {(batch,)}")
    require(bool(loss.isfinite().all()), f"{who}.loss isn't finite: {loss.tolist()}")
    read = bound.loss_of(bound.read(outputs))
    close(read, loss, f"{who}.loss_of(read(outputs)) isn't the loss of the outputs")
    known = bound.known(outputs)
    for name, value in outputs.items():
        mask = known.get(name)
        fine = mask is not None and mask.dtype == torch.bool and mask.shape == value.shape
        require(fine, f"{who}.known has no bool mask {tuple(value.shape)} of output {name!r}")
    clamped = bound.clamp(outputs)
    for name, value in outputs.items():
        new = clamped[name]
        fine = new.shape == value.shape and new.dtype == value.dtype
        require(fine, f"{who}.clamp makes {new.dtype} {tuple(new.shape)} of output {name!r}")
        require(bool(new.isfinite().all()), f"{who}.clamp isn't finite for output {name!r}")
        same = torch.equal(value, originals[name])
        require(same, f"{who} changes the outputs it is given, in place")
    for fact in bound.certain():
        if isinstance(fact, CertainOnMap):
            broken = fact.broken(clamped)
            require(broken is None, f"{who}.clamp doesn't hold what is certain: {broken}")
            continue
        p = clamped.specs[fact.output].probabilities(clamped[fact.output])
        sure = torch.eq(fact.value, 0) | torch.eq(fact.value, 1)
        kept = bool(((p - fact.value).abs()[sure] < 1e-5).all())
        require(kept, f"{who}.clamp doesn't hold what is certain of {fact.output!r}")
    for rows in _choices(batch):
        part = Outputs({name: value[rows] for name, value in outputs.items()}, outputs.specs)
        for form, taken in (("", evidence.take(rows)), (" once bound", bound.take(rows))):
            what = f"{who}.take({rows.tolist()}){form}"
            close(taken.loss(part), loss[rows], f"{what} has another loss")
            for name, value in taken.clamp(part).items():
                close(value, clamped[name][rows], f"{what} clamps {name!r} differently")
            for name, mask in taken.known(part).items():
                require(torch.equal(mask, known[name][rows]), f"{what} knows something else")
    _check_gradient(who, bound, outputs)
    twice = (evidence & evidence).bind(outputs.specs, batch)
    close(twice.loss(outputs), 2 * loss, f"the loss of {who} & {who} isn't the sum")


def _check_gradient(who: str, bound: Evidence, outputs: Outputs) -> None:
    leaves = {name: v.detach().clone().requires_grad_() for name, v in outputs.items()}

    def loss(*values: Tensor) -> Tensor:
        return bound.loss(outputs.replace(**dict(zip(leaves, values, strict=True))))

    try:
        torch.autograd.gradcheck(loss, tuple(leaves.values()))
    except RuntimeError as error:
        raise ConformanceError(f"{who}.loss has a wrong gradient: {error}") from error
    inputs = tuple(leaves.values())
    first = torch.autograd.grad(loss(*inputs)[0], inputs, allow_unused=True)
    for gradient in first:
        alone = gradient is None or not bool(gradient[1:].any())
        require(alone, f"{who}.loss of image 0 depends on other images")


def _choices(batch: int) -> list[Tensor]:
    rows = [torch.arange(batch).flip(0), torch.tensor([0]), torch.tensor([batch - 1, 0, 0])]
    return [*rows, torch.arange(0, batch, 2)]
