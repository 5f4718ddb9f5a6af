"""What the commands share: output, progress, and sentences in the place of tracebacks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text
from typer.core import TyperGroup

from skipviz.errors import InputError

if TYPE_CHECKING:
    from skipviz.text.documents import Document

# File names and messages hold brackets that rich would take for markup.
out = Console(markup=False, highlight=False)
err = Console(markup=False, highlight=False, stderr=True)

STOPPED = 130
"""Exit status of a run that Ctrl-C stopped, as shells have it."""

Remote = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Let Python code that comes with the model run."),
]


class Sentences(TyperGroup):
    """Turns what the user can do something about into a sentence on standard error."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            err.print(
                "Stopped. Run the command again: training, and what a store holds, go on where "
                "they were; anything else begins anew."
            )
            raise typer.Exit(STOPPED) from None
        except (ValueError, RuntimeError, OSError, ArithmeticError) as error:
            err.print(Text(str(error) or type(error).__name__, style="red"), soft_wrap=True)
            raise typer.Exit(1) from None


def read_all(names: list[str] | None) -> list[Document]:
    """Read the texts of files, - being standard input."""
    return [document for name in names or [] for document in _read(name)]


def _read(name: str) -> list[Document]:
    from skipviz.text.documents import read_path, read_stream

    return read_stream(sys.stdin.buffer.read()) if name == "-" else read_path(Path(name))


def check_folder(target: Path | None) -> None:
    """Find out before a long run that its result could not be written."""
    if target is None:
        return
    if target.is_dir():
        raise InputError(f"{target} is a folder; name a file in it to write to.")
    if not target.parent.is_dir():
        raise InputError(f"There is no folder {target.parent} to write {target.name} to; make it.")


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
