"""Kinds of evidence: one file each."""

from feedback_adapter.evidence.base import All, Evidence
from feedback_adapter.evidence.labels import Labels

__all__ = ["All", "Evidence", "Labels"]
