"""What several commands take, and where they write."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skipviz.errors import InputError

if TYPE_CHECKING:
    from skipviz.text.documents import Document

Remote = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Let Python code that comes with the model run."),
]


def read_all(names: list[str] | None) -> list[Document]:
    """Read the texts of files, - being standard input."""
    return [document for name in names or [] for document in _read(name)]


def _read(name: str) -> list[Document]:
    from skipviz.text.documents import read_path, read_stream

    if name != "-":
        return read_path(Path(name))
    if sys.stdin is None:
        raise InputError("Standard input is closed; name a file in place of -.")
    return read_stream(sys.stdin.buffer.read())


def print_bytes(data: bytes) -> None:
    """Write to standard output, which may be closed or on a full disk."""
    if sys.stdout is None:
        raise InputError("Standard output is closed; name a file in place of -.")
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # the reader has seen enough, as head has
        raise
    except OSError as error:
        sys.stdout = None  # or Python would try once more at its end
        raise InputError(
            f"Standard output cannot be written ({error.strerror}); name a file in place of -."
        ) from error


def check_file(target: Path | None) -> None:
    """Find out before a long run that its result could not be written to a file."""
    if target is None:
        return
    if target.is_dir():
        raise InputError(f"{target} is a folder; name a file in it to write to.")
    if not target.parent.is_dir():
        raise InputError(f"There is no folder {target.parent} to write {target.name} to; make it.")
    # A file is replaced by one written beside it; a pipe or a device is written itself.
    needed = [target] if target.exists() else []
    needed += [] if needed and not target.is_file() else [target.parent]
    _check_writable(target, needed)


def check_folder(target: Path) -> None:
    """Find out before a long run that a folder could not be made or written to."""
    nearest = next(each for each in (target, *target.absolute().parents) if each.exists())
    if not nearest.is_dir():
        raise InputError(f"{nearest} is a file, not a folder to write to; name another.")
    _check_writable(target, [nearest])


def _check_writable(target: Path, needed: list[Path]) -> None:
    if not all(os.access(each, os.W_OK) for each in needed):
        raise InputError(
            f"{target} cannot be written by this user. Change its permissions and those of its "
            "folder, or name another."
        )
