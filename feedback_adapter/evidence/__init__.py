"""Kinds of evidence: one file each."""
