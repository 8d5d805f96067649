"""Finding pivots, and running only what follows one."""

import warnings
from typing import Any

from feedback_adapter.sites.discover import discover, named_sites
from feedback_adapter.sites.frozen import frozen
from feedback_adapter.sites.inputs import Inputs
from feedback_adapter.sites.site import INPUT, Site, SiteInfo
from feedback_adapter.sites.tail import Edit, Tail
from feedback_adapter.sites.torch_patches import uncompiled, unwrapped, weights_of
from feedback_adapter.sites.weights import same_bits

__all__ = [
    "INPUT",
    "Edit",
    "Inputs",
    "Site",
    "SiteInfo",
    "Tail",
    "discover",
    "frozen",
    "named_sites",
    "same_bits",
    "uncompiled",
    "unwrapped",
    "weights_of",
]


def __getattr__(name: str) -> Any:
    if name == "borrowed":
        warnings.warn(
            "feedback_adapter.sites.borrowed is deprecated: its name is frozen now.",
            DeprecationWarning,
            stacklevel=2,
        )
        return frozen
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
