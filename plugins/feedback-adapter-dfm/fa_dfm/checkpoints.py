"""How the networks of this plugin's checkpoints are built; the core reads and checks the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm

from fa_dfm.convert import convert
from fa_dfm.dense import DenseHead
from fa_dfm.nets import NETS
from fa_dfm.network import DFM
from feedback_adapter.errors import CheckpointError

__all__ = ["LIBRARY", "build"]

LIBRARY = "fa_dfm"
"""What feedback_adapter.json says under architecture.library."""


def build(net: str, kwargs: Mapping[str, Any]) -> DFM:
    """A converted network with fresh weights; torch's random state decides them.

    Args:
        net: A key of `fa_dfm.nets.NETS`, or the name of a model of timm. Nothing else: a name
            never imports anything.
        kwargs: `net`: options of the network; `head`: options of `fa_dfm.dense.DenseHead`, which
            replaces what follows the loop; the rest goes to `fa_dfm.convert`.

    Raises:
        CheckpointError: No such network, or no such option.
    """
    options = dict(kwargs)
    own, head = options.pop("net", {}), options.pop("head", None)
    try:
        if net in NETS:
            model = NETS[net](**own)
        elif net in timm.list_models():
            model = timm.create_model(net, pretrained=False, **own)
        else:
            raise ValueError(f"{', '.join(NETS)} and the models of timm are possible")
        return convert(model, head=None if head is None else DenseHead(**head), **options)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"fa_dfm can't build {net!r} with {dict(kwargs)}: {error}") from error
