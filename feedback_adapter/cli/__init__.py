"""The command line: one file per command."""

from feedback_adapter.cli.app import app, main

__all__ = ["app", "main"]
