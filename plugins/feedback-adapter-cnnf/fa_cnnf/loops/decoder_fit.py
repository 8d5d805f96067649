"""Training decoders as denoisers, then how far activations follow them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from fa_cnnf.loops.decoder import DecoderLoop
from feedback_adapter.sites import Inputs, Tail, frozen

__all__ = ["fit_decoders", "fit_gammas"]

Corrupt = Callable[[Tensor], Tensor]


def fit_decoders(
    loop: DecoderLoop,
    batches: Iterable[Tensor],
    corrupt: Corrupt,
    *,
    lr: float = 1e-3,
    report: Callable[[list[float]], None] = lambda _: None,
) -> None:
    """Train each decoder to make the clean h_l of the h_{l+1} of a corrupted image.

    The loss of a stage is the mean squared error over the variance of its clean activation:
    1 for a decoder that only knows the mean. The model's weights stay as they are.

    Args:
        loop: Its decoders are trained, in place.
        batches: Clean images (batch, ...), as often as wanted.
        corrupt: Makes corrupted images of clean ones, the same shape.
        lr: Of Adam.
        report: Called with the stages' losses after each batch.
    """
    optimizer = torch.optim.Adam(loop.decoders.parameters(), lr=lr)
    loop.train()
    for clean in batches:
        targets, _ = _activations(loop, clean)
        h, logits = _activations(loop, corrupt(clean))
        losses = [
            F.mse_loss(made, target) / target.var().clamp(min=1e-8)
            for made, target in zip(loop.reconstruct(h, logits), targets, strict=True)
        ]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
        report([float(loss.detach()) for loss in losses])
    loop.eval()


def fit_gammas(
    loop: DecoderLoop,
    batches: Iterable[tuple[Tensor, Tensor]],
    corrupt: Corrupt,
    *,
    lr: float = 1e-2,
    distil: float = 1.0,
    report: Callable[[float], None] = lambda _: None,
) -> None:
    """Learn gamma, with the decoders as they are.

    The loss is the cross-entropy (or each label's own) of every iterate, of clean and of
    corrupted images, plus `distil` times the divergence of every iterate of clean images
    from what the unrefined model says of them.

    Args:
        loop: Its gammas are trained, in place.
        batches: Clean images (batch, ...) and targets: (batch) classes, or (batch, labels).
        corrupt: Makes corrupted images of clean ones, the same shape.
        lr: Of Adam.
        distil: At least 0.
        report: Called with the loss after each batch.
    """
    optimizer = torch.optim.Adam(loop.gammas.parameters(), lr=lr)
    loop.decoders.requires_grad_(False)
    try:
        for clean, targets in batches:
            of_clean, of_corrupt = loop.unroll(clean).logits, loop.unroll(corrupt(clean)).logits
            unrefined = of_clean[0].detach()
            loss = torch.stack(
                [_task(loop, o, targets) for o in (*of_clean[1:], *of_corrupt[1:])]
            ).mean()
            kept = torch.stack([_divergence(loop, unrefined, o) for o in of_clean[1:]]).mean()
            loss = loss + distil * kept
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            report(float(loss.detach()))
    finally:
        loop.decoders.requires_grad_(True)


def _activations(loop: DecoderLoop, images: Tensor) -> tuple[list[Tensor], Tensor]:
    with frozen(loop.model), torch.no_grad():
        tail = Tail.record(loop.model, Inputs.of(images), list(loop.sites))
    return [a.detach() for a in tail.activations], tail.value.detach()


def _task(loop: DecoderLoop, logits: Tensor, targets: Tensor) -> Tensor:
    if loop.kind == "multiclass":
        return F.cross_entropy(logits, targets)
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits)) * logits.shape[1]


def _divergence(loop: DecoderLoop, unrefined: Tensor, logits: Tensor) -> Tensor:
    """KL(unrefined model || iterate), in nats, mean over images."""
    if loop.kind == "multiclass":
        return F.kl_div(
            logits.log_softmax(1), unrefined.log_softmax(1), reduction="batchmean", log_target=True
        )
    p = unrefined.sigmoid()
    apart = F.binary_cross_entropy_with_logits(logits, p, reduction="sum")
    own = F.binary_cross_entropy_with_logits(unrefined, p, reduction="sum")
    return (apart - own) / len(unrefined)
