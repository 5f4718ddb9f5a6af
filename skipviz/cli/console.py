"""What commands print: sentences, tables and progress bars; imported when a command runs.

Names of files and models are text: no markup or emoji of rich's is looked for in them, and what
would command a terminal is spelt out.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

from skipviz.cli.inputs import to_standard_output, visible

if TYPE_CHECKING:
    from skipviz.corpus.summaries import CorpusProgress, Report


class PlainConsole(Console):
    """Writes what it is given as text."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, stderr=stderr)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; where standard output takes nothing, an error says so."""
        if self.stderr:
            super().print(*objects, **options)
            return
        with to_standard_output():
            super().print(*objects, **options)

    def on_broken_pipe(self) -> None:
        """Leave it to the command line: the reader has seen enough."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def render_str(self, text: str, **options: Any) -> Text:
        """Make text of a string, control characters spelt out before its width is taken."""
        return super().render_str(visible(text), **options)

    def render(self, *arguments: Any, **options: Any) -> Iterable[Segment]:
        """Render, with control characters spelt out that came another way."""
        for segment in super().render(*arguments, **options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(visible(segment.text), segment.style)

    def working(self, what: str) -> Status:
        """Show that something is being done."""
        return self.status(Text(visible(what)))


out = PlainConsole()
err = PlainConsole(stderr=True)


class Advance:
    """Moves a progress bar."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar = bar
        self._task = task

    def __call__(self, done: float, words: str = "") -> None:
        """Say how much is done, in the unit of the bar."""
        self._bar.update(self._task, completed=done, words=words)


@contextmanager
def corpus_progress() -> Iterator[Report]:
    """Show on standard error how far a corpus is: rate, time left and errors."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[words]}", markup=False),
    )
    with Progress(*columns, console=err) as bar:
        task = bar.add_task("Tracing", total=None, words="")

        def report(found: CorpusProgress) -> None:
            words = f"{found.tokens:,} tokens, {found.tokens_per_second:,.0f} per second"
            if found.seconds_left is not None:
                words += f", {timedelta(seconds=round(found.seconds_left))} left"
            if found.failed:
                words += f", {found.failed:,} documents failed"
            total = None if found.share is None else 1.0
            bar.update(task, words=words, total=total, completed=found.share)

        yield report


@contextmanager
def progress(title: str, *, total: int, unit: str) -> Iterator[Advance]:
    """Show a progress bar on standard error."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,} " + unit, markup=False),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}", markup=False),
    )
    with Progress(*columns, console=err) as bar:
        yield Advance(bar, bar.add_task(title, total=total, words=""))
