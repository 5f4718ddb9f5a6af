"""What commands print: sentences, tables and progress bars; imported when a command runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

# File names and messages hold brackets that rich would take for markup.
out = Console(markup=False, highlight=False)
err = Console(markup=False, highlight=False, stderr=True)


class Advance:
    """Moves a progress bar."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar = bar
        self._task = task

    def __call__(self, done: float, words: str = "") -> None:
        """Say how much is done, in the unit of the bar."""
        self._bar.update(self._task, completed=done, words=words)


@contextmanager
def progress(title: str, *, total: int, unit: str) -> Iterator[Advance]:
    """Show a progress bar on standard error."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,} " + unit),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}"),
    )
    with Progress(*columns, console=err) as bar:
        yield Advance(bar, bar.add_task(title, total=total, words=""))
