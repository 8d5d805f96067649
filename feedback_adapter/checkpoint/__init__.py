"""Checkpoints: a folder with weights, what they mean and how they were made.

`format` reads the files and `writing` writes them, `architecture` builds models
from what a config says, and `io` turns a folder into its parts and back. `feedback_adapter.load`
and `Adapter.save` are the front door.
"""

from feedback_adapter.checkpoint.architecture import Architecture
from feedback_adapter.checkpoint.card import Card
from feedback_adapter.checkpoint.format import find, read_card, read_config
from feedback_adapter.checkpoint.hub import HUB, LOCAL, push_to_hub
from feedback_adapter.checkpoint.io import Checkpoint, read, write
from feedback_adapter.checkpoint.timm_folder import timm_model
from feedback_adapter.checkpoint.writing import write_folder

__all__ = [
    "HUB",
    "LOCAL",
    "Architecture",
    "Card",
    "Checkpoint",
    "find",
    "push_to_hub",
    "read",
    "read_card",
    "read_config",
    "timm_model",
    "write",
    "write_folder",
]
