"""Refining strategies: one file each."""
