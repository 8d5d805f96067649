"""Checkpoints: a folder with weights, what they mean and how they were made.

`format` is the schema and the only reader and writer of the files, `architecture` builds models
from what a config says, and `io` turns a folder into its parts and back. `feedback_adapter.load`
and `Adapter.save` are the front door.
"""

from feedback_adapter.checkpoint.architecture import Architecture
from feedback_adapter.checkpoint.format import Card, File, find, read_config, write_folder
from feedback_adapter.checkpoint.io import Checkpoint, read, write

__all__ = [
    "Architecture",
    "Card",
    "Checkpoint",
    "File",
    "find",
    "read",
    "read_config",
    "write",
    "write_folder",
]
