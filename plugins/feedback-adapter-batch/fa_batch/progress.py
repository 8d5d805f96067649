"""A progress bar with images per second and the time left, on standard error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

__all__ = ["progress_of"]


class _Speed(ProgressColumn):
    """Images per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} images/s")


@contextlib.contextmanager
def progress_of(
    console: Console | None = None,
) -> Generator[Callable[[int], Callable[[int], None]]]:
    """Show a bar where standard error is a terminal, and nothing elsewhere.

    Yields:
        A function that takes the number of images, once it is known, and returns another, which
        takes how many more are done. What is done when it is called first was done before, so it
        counts for the bar and not for the speed.
    """
    console = console or Console(stderr=True)
    bar = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        _Speed(), TimeRemainingColumn(), console=console, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip
    with bar:
        task = bar.add_task("opening", total=None, start=False)

        def advance(images: int) -> Callable[[int], None]:
            bar.update(task, description="refining", total=images)

            def tick(rows: int) -> None:
                if bar.tasks[0].started:
                    bar.advance(task, rows)
                else:
                    bar.update(task, completed=rows)
                    bar.start_task(task)

            return tick

        yield advance
