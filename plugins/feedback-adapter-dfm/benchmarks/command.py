"""The command line that the benchmarks share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Data", "Device", "Only", "Out", "Seconds", "Seeds", "Steps", "Test", "Workers"]

HERE = Path(__file__).parents[1]

Out = Annotated[Path, typer.Option(help="Folder for the table and the networks.")]
Data = Annotated[Path, typer.Option(help="Folder of the data.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Seconds = Annotated[float | None, typer.Option(help="End before so many seconds.")]
Seeds = Annotated[int, typer.Option(min=1, help="Networks of each method.")]
Steps = Annotated[int, typer.Option(min=1, help="Training steps of each network.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes.")]
Test = Annotated[int, typer.Option(min=2, help="Test images.")]
Only = Annotated[list[str] | None, typer.Option(help="A method; all, where none is named.")]
