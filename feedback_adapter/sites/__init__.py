"""Finding pivots, and running only what follows one."""

from feedback_adapter.sites.borrow import borrowed, unwrapped
from feedback_adapter.sites.discover import discover
from feedback_adapter.sites.inputs import Inputs
from feedback_adapter.sites.site import INPUT, Site
from feedback_adapter.sites.tail import Edit, Tail

__all__ = ["INPUT", "Edit", "Inputs", "Site", "Tail", "borrowed", "discover", "unwrapped"]
