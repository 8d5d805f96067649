"""Solvers: how a pivot moves along its gradient. One image never affects another.

A solver sees the gradient (batch, ...) of a variable and returns the step to add. All are
elementwise or per image, so that a batch is many problems solved at once.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from feedback_adapter.errors import OptionsError, did_you_mean
from feedback_adapter.options import above, check, each, whole, within

__all__ = ["LBFGS", "SGD", "SOLVERS", "Adam", "Solver", "solver_note", "solver_of"]


class Solver(abc.ABC):
    """Turns gradients into steps. Solvers are frozen; what they remember is `state`."""

    @abc.abstractmethod
    def step(self, state: dict[str, Any], gradient: Tensor, step_size: float) -> Tensor:
        """The step to add to the variable.

        Args:
            state: What this solver remembers, empty at first; tensors in it (and in
                lists in it) are (batch, ...). It is updated in place.
            gradient: (batch, ...).
            step_size: Learning rate, above 0.
        """


@dataclasses.dataclass(frozen=True)
class SGD(Solver):
    """Gradient descent with heavy-ball momentum, as `torch.optim.SGD`.

    Args:
        momentum: In [0, 1).
    """

    momentum: float = 0.9

    def __post_init__(self) -> None:
        check(self, {"momentum": within(0, 1, ends="[)")})

    def step(self, state: dict[str, Any], gradient: Tensor, step_size: float) -> Tensor:
        """See `Solver.step`."""
        if self.momentum:
            if "velocity" in state:
                gradient = state["velocity"].mul_(self.momentum).add_(gradient)
            else:
                state["velocity"] = gradient.clone()
        return gradient.mul(-step_size)


@dataclasses.dataclass(frozen=True)
class Adam(Solver):
    """Adam, as `torch.optim.Adam`.

    Args:
        betas: Decay of the first and second moment, each in [0, 1).
        eps: Added to the root of the second moment, above 0.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        check(self, {"betas": each(within(0, 1, ends="[)"), 2), "eps": above(0)})

    def step(self, state: dict[str, Any], gradient: Tensor, step_size: float) -> Tensor:
        """See `Solver.step`."""
        first, second = self.betas
        if not state:
            state.update(
                count=0, mean=torch.zeros_like(gradient), square=torch.zeros_like(gradient)
            )
        state["count"] += 1
        mean = state["mean"].lerp_(gradient, 1 - first)
        square = state["square"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        root = square.sqrt().div_(math.sqrt(1 - second ** state["count"])).add_(self.eps)
        return torch.div(mean, root, out=root).mul_(-step_size / (1 - first ** state["count"]))


@dataclasses.dataclass(frozen=True)
class LBFGS(Solver):
    """Limited-memory BFGS, one independent problem per image, without line search.

    Steps are `step_size` times the quasi-Newton direction; the first is that long
    (per image, Euclidean norm). Pairs without positive curvature are left out.

    Args:
        history: How many past steps shape the direction, at least 1.
    """

    history: int = 5

    def __post_init__(self) -> None:
        check(self, {"history": whole(1)})

    def step(self, state: dict[str, Any], gradient: Tensor, step_size: float) -> Tensor:
        """See `Solver.step`."""
        batch = gradient.shape[0]
        g = gradient.reshape(batch, -1)
        moves: list[Tensor] = state.setdefault("moves", [])  # the last steps
        changes: list[Tensor] = state.setdefault("changes", [])  # of the gradient along them
        if moves:
            changes.append(g - state["gradient"])
            del moves[: -self.history], changes[: -self.history]
        state["gradient"] = g.clone()
        direction, alphas = -g, []
        for s, y in zip(reversed(moves), reversed(changes), strict=True):
            alpha = _ratio(_dot(s, direction), _dot(s, y))
            alphas.append(alpha)
            direction = direction - alpha * y
        if moves:
            s, y = moves[-1], changes[-1]
            gamma = _ratio(_dot(s, y), _dot(y, y))
            direction = direction * torch.where(gamma > 0, gamma, torch.ones_like(gamma))
        for s, y, alpha in zip(moves, changes, reversed(alphas), strict=True):
            direction = direction + s * (alpha - _ratio(_dot(y, direction), _dot(s, y)))
        if not moves:
            direction = direction / _dot(g, g).sqrt().clamp(min=1e-12)
        moves.append(direction.mul(step_size))
        return moves[-1].clone().reshape(gradient.shape)


def take(state: dict[str, Any], rows: Tensor) -> dict[str, Any]:
    """A solver's state for some of the images, by index (k,)."""
    return {
        name: value[rows] if isinstance(value, Tensor)
        else [item[rows] for item in value] if isinstance(value, list)
        else value
        for name, value in state.items()
    }  # fmt: skip


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1, keepdim=True)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b where b is positive, else 0 (no curvature to use)."""
    return torch.where(b > 1e-20, a / b.clamp(min=1e-20), torch.zeros_like(a))


SOLVERS: dict[str, Solver] = {
    "adam": Adam(),
    "momentum": SGD(),
    "gradient": SGD(momentum=0.0),
    "lbfgs": LBFGS(),
}
"""Solvers by name, as checkpoints and the command line give them."""


def solver_note(solver: Any) -> Any:
    """What a checkpoint says of a solver: its name, or an object with its name and settings.

    What is no solver of this library stays what it is.
    """
    for name, usual in SOLVERS.items():
        if solver == usual:
            return name
    for name, usual in SOLVERS.items():
        if type(solver) is type(usual):
            return {"name": name, **dataclasses.asdict(cast("Any", solver))}
    return solver


def solver_of(note: Any) -> Any:
    """The solver that `solver_note` made a note of; a name stays a name.

    Raises:
        OptionsError: No such solver, or settings that it hasn't.
    """
    if not isinstance(note, Mapping):
        return note
    settings = dict(note)
    name = settings.pop("name", None)
    if not isinstance(name, str) or name not in SOLVERS:
        raise OptionsError(f"There is no solver {name!r}. {did_you_mean(name, SOLVERS)}")
    settings = {key: tuple(v) if isinstance(v, list) else v for key, v in settings.items()}
    try:
        return type(SOLVERS[name])(**settings)
    except TypeError as error:
        raise OptionsError(f"The solver {name!r} can't take {settings}: {error}.") from error
