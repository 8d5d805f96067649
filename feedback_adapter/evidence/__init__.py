"""Kinds of evidence: one file each."""

from feedback_adapter.evidence.base import All, Evidence
from feedback_adapter.evidence.captions import Captions, write_captions
from feedback_adapter.evidence.coarse import Coarse
from feedback_adapter.evidence.labels import Labels
from feedback_adapter.evidence.mistakes import Wrong
from feedback_adapter.evidence.pixels import Pixels
from feedback_adapter.evidence.text import Reliability, Text

__all__ = [
    "All",
    "Captions",
    "Coarse",
    "Evidence",
    "Labels",
    "Pixels",
    "Reliability",
    "Text",
    "Wrong",
    "write_captions",
]
