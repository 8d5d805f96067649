"""The state at which looking again changes nothing, found by a root finder instead of by steps.

Needs torchdeq: `pip install 'feedback-adapter-dfm[fixed-point]'`.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from fa_dfm.known import Known
from fa_dfm.network import DFM
from fa_dfm.predictions import probabilities
from fa_dfm.state import State
from fa_dfm.updates import Published
from feedback_adapter.errors import OptionsError

__all__ = ["FixedPoint", "fixed_point"]


@dataclasses.dataclass(frozen=True)
class FixedPoint:
    """What the solver found for a batch.

    Args:
        state: The last state; its logits are those of the fixed point.
        residuals: (batch,), how far another step would move the features and logits of each
            image, as a share of their size.
        converged: (batch,) bool, whether that is within the tolerance.
        evaluations: (batch,), how many looks the solver took until it was closest.
    """

    state: State
    residuals: Tensor
    converged: Tensor
    evaluations: Tensor


@torch.no_grad()
def fixed_point(
    net: DFM,
    images: Tensor,
    known: Known | None = None,
    *,
    tolerance: float = 1e-3,
    most: int = 40,
    solver: str = "broyden",
) -> FixedPoint:
    """Solve for the features and logits that a network in evaluation mode keeps.

    Args:
        net: With the update `"replace"` or `"leaky"`; in `"published"`, steps weigh less and less.
        images: (batch, channels, height, width).
        known: What is known about them.
        tolerance: Relative change that counts as none, above 0.
        most: Looks at most, at least 1.
        solver: Of torchdeq: `"broyden"`, `"anderson"` or `"fixed_point_iter"` (plain steps).

    Raises:
        OptionsError: The update is `"published"`, an option is out of range, or torchdeq isn't
            installed.
    """
    if isinstance(net.update, Published) or not tolerance > 0 or most < 1:
        raise OptionsError(
            f"fixed_point needs update='replace' or 'leaky', a tolerance above 0 and most >= 1; "
            f"given {type(net.update).__name__}, tolerance={tolerance}, most={most}."
        )
    try:
        from torchdeq.solver import get_solver
    except ImportError as error:
        raise OptionsError(
            "fixed_point needs torchdeq: pip install 'feedback-adapter-dfm[fixed-point]'."
        ) from error
    start = net.step(images, State(), known)
    latest = start

    def look(x: Tensor) -> Tensor:
        nonlocal latest
        features, logits = _unpacked(x, start)
        given = dataclasses.replace(
            start, features=features, logits=logits, prediction=probabilities(logits, net.kind)
        )
        latest = net.step(images, given, known)
        return _packed(latest)

    solve = get_solver(solver)
    x, _, info = solve(look, _packed(start), max_iter=most, tol=tolerance, stop_mode="rel")
    moved = (look(x) - x).norm(dim=1) / x.norm(dim=1).clamp(min=1e-12)
    evaluations = info["nstep"].to(torch.long).expand(len(images))
    return FixedPoint(latest, moved, moved <= tolerance, evaluations)


def _packed(state: State) -> Tensor:
    """What goes round, as one vector per image: features and logits."""
    assert state.features is not None
    assert state.logits is not None
    return torch.cat([state.features.flatten(1), state.logits.flatten(1)], 1)


def _unpacked(x: Tensor, like: State) -> tuple[Tensor, Tensor]:
    assert like.features is not None
    assert like.logits is not None
    features, logits = x.split([like.features[0].numel(), like.logits[0].numel()], 1)
    return features.view_as(like.features), logits.view_as(like.logits)
