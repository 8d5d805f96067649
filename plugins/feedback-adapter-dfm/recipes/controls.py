"""Starting a network from its trained control, so that all it has to learn is to look again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from fa_dfm import DFM

__all__ = ["start_from"]

SMALL = 0.01
"""By how much the last norms of blocks that the control lacks are scaled."""


def start_from(net: DFM, file: Path, moved: Mapping[str, str], norm: str) -> None:
    """Give a network the weights of a trained network that looks once.

    Without feedback it predicts what the control predicts. The feedback of predictions and
    features starts at zero, and what the control learned of evidence is kept. Residual blocks that
    the control lacks start with outputs near zero.

    Args:
        net: Has the same layers, apart from feedback and further residual blocks.
        file: Safetensors with the state of the control.
        moved: Modules that have another name in `net`, by their name in the control.
        norm: The name, in a residual block, of its last norm.
    """
    control, state = load_file(file), net.state_dict()
    given = set()
    for name, value in control.items():
        module, _, last = name.rpartition(".")
        parts = [part for part in moved if module == part or module.startswith(f"{part}.")]
        where = f"{moved[parts[0]]}{module[len(parts[0]) :]}.{last}" if parts else name
        if name in ("feedback.maps.weight", "feedback.classes.weight"):
            value = _evidence_only(net, value, state[where])
        state[where] = value
        given.add(where)
    for name in state.keys() - given:
        if name.endswith(f".{norm}.weight"):
            state[name] = SMALL * state[name]
    net.load_state_dict(state)


def _evidence_only(net: DFM, control: Tensor, own: Tensor) -> Tensor:
    """A of the control without its part for predictions, which it never gets back.

    Known labels enter twice, in the prediction that they are put into, and by channels of their
    own. At the first look both say the same, and so the first part is added to the second.
    """
    labels, known = net.feedback.labels, net.feedback.known_channels
    weight = torch.zeros_like(own)
    weight[:, labels : 2 * labels + known] = control[:, labels : 2 * labels + known]
    weight[:, labels + known : 2 * labels + known] += control[:, :labels]
    return weight
