"""The images that this plugin's checkpoints are trained on and attacked with."""

from fa_cnnf.data.sources import SOURCES, read, to_input
from fa_cnnf.data.splits import DEV, Images, read_splits

__all__ = ["DEV", "SOURCES", "Images", "read", "read_splits", "to_input"]
