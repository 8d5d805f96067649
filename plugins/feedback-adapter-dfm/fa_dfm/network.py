"""A network that looks again: its own prediction, and what is known, enter its first layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fa_dfm.feedback import Feedback
from fa_dfm.injection import Call
from fa_dfm.known import Known
from fa_dfm.predictions import Kind, probabilities
from fa_dfm.receptive_field import ReceptiveField
from fa_dfm.state import State
from fa_dfm.updates import Update
from feedback_adapter.errors import OptionsError
from feedback_adapter.outputs import pick

__all__ = ["DFM", "Unroll"]


@dataclasses.dataclass(frozen=True)
class Unroll:
    """Every step of the loop on a batch.

    Args:
        logits: (T, batch, K, ...), the output of each step.
        changes: (T, batch), mean |p_t - p_(t-1)| of each image: how far a step moved it.
        steps: (batch,), how many steps each image took; fewer than T if it settled earlier.
        state: The last state, from which `DFM.step` goes on.
    """

    logits: Tensor
    changes: Tensor
    steps: Tensor
    state: State


class DFM(nn.Module):
    """A converted network; `fa_dfm.convert` makes one.

    Args:
        model: The converted copy, with a `Stem` and a `Frontier` in it.
        feedback: A, B and what they read.
        update: How features accumulate.
        kind: Whether one softmax decides between the labels, or each has a sigmoid.
        steps: T of `forward`, at least 1.
        output: Where the logits are in what the model returns; see `feedback_adapter.Output`.
        field: How much of the image the loop sees in one step.
        frozen_norms: Batch norms stay in evaluation mode in training. With `False`, every step
            computes statistics of its own.
    """

    def __init__(
        self,
        model: nn.Module,
        feedback: Feedback,
        update: Update,
        *,
        kind: Kind,
        steps: int,
        output: str | None,
        field: ReceptiveField,
        frozen_norms: bool = True,
    ) -> None:
        super().__init__()
        self.model, self.feedback, self.update = model, feedback, update
        self.kind: Kind = kind
        self.steps, self.output, self.field = _steps(steps), output, field
        self.frozen_norms = frozen_norms

    def forward(
        self, images: Tensor, known: Known | None = None, steps: int | None = None
    ) -> Tensor:
        """Images (batch, channels, h, w) to the logits (batch, K, ...) of the last step."""
        state = State()
        for _ in range(self.steps if steps is None else _steps(steps)):
            state = self.step(images, state, known)
        assert state.logits is not None
        return state.logits

    def step(
        self, images: Tensor, state: State, known: Known | None = None, *, cut: bool = False
    ) -> State:
        """Look once more.

        Args:
            images: (batch, channels, height, width); read in step 1 only, apart from its shape.
            state: The last state; `State()` before step 1.
            known: What is known about the images.
            cut: Leave out what is fed back. Evidence still enters.

        Raises:
            KnownError: What is known doesn't fit these images and this network.
        """
        injected = self.feedback(images, state, known, cut=cut)

        def update(delta: Tensor) -> Tensor:
            return self.update(state.features, delta, state.step)

        call = Call(state.stem, injected, update)
        with call.active():
            logits = pick(self.model(images), self.output)
        p = probabilities(logits, self.kind)
        return State(state.step + 1, call.stem, call.features, logits, p)

    def unroll(
        self,
        images: Tensor,
        known: Known | None = None,
        steps: int | None = None,
        *,
        cut: bool = False,
        shuffle: bool = False,
        truncate: bool = False,
        tolerance: float = 0.0,
        clamp: Callable[[Tensor], Tensor] | None = None,
    ) -> Unroll:
        """Every step of the loop, with what a study of it needs.

        Args:
            images: (batch, channels, height, width).
            known: What is known about them.
            steps: T, at least 1; `None` for the network's own.
            cut: Leave out what is fed back, as a control. Evidence still enters.
            shuffle: In the last step, give each image the feedback of its neighbour in the
                batch, as a control.
            truncate: Gradients go through one step only.
            tolerance: An image whose prediction moved by less (mean over its probabilities) is
                left as it is from then on, whatever the rest of the batch does. 0: never.
            clamp: Puts further knowledge into the probabilities that are fed back.

        Raises:
            KnownError: What is known doesn't fit these images and this network.
            OptionsError: `steps` is below 1.
        """
        total = self.steps if steps is None else _steps(steps)
        state, logits, changes = State(), [], []
        moving = torch.ones(len(images), dtype=torch.bool, device=images.device)
        taken = torch.zeros(len(images), dtype=torch.long, device=images.device)
        for t in range(total):
            given = state.detach() if truncate else state
            given = given.roll() if shuffle and t == total - 1 else given
            new = self.step(images, given, known, cut=cut)
            if clamp is not None:
                new = dataclasses.replace(new, prediction=clamp(new.logits))
            new = _where(moving, new, state) if t and tolerance else new
            change = _change(state.prediction, new.prediction, self.feedback.labels, self.kind)
            taken = taken + moving
            moving = moving & (change > tolerance) if tolerance else moving
            state = new
            logits.append(new.logits)
            changes.append(change)
            if not moving.any():
                break
        missing = total - len(logits)
        logits += logits[-1:] * missing
        changes += [torch.zeros_like(changes[-1])] * missing
        return Unroll(torch.stack(logits), torch.stack(changes), taken, state)

    def train(self, mode: bool = True) -> DFM:
        """Training or evaluation mode; see `frozen_norms`."""
        super().train(mode)
        if self.frozen_norms:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


def _steps(steps: int) -> int:
    if steps < 1:
        raise OptionsError(f"steps={steps} is out of range: it must be at least 1.")
    return steps


def _change(before: Tensor | None, after: Tensor, labels: int, kind: Kind) -> Tensor:
    start = 1 / labels if kind == "multiclass" else 0.5
    moved = (after - (start if before is None else before)).detach().abs()
    return moved.flatten(1).mean(1)


def _where(moving: Tensor, new: State, old: State) -> State:
    def choose(a: Any, b: Any) -> Any:
        return a if a is None or b is None else torch.where(_over(moving, a), a, b)

    return dataclasses.replace(
        new,
        features=choose(new.features, old.features),
        logits=choose(new.logits, old.logits),
        prediction=choose(new.prediction, old.prediction),
    )


def _over(rows: Tensor, like: Tensor) -> Tensor:
    return rows.reshape(-1, *[1] * (like.ndim - 1))
