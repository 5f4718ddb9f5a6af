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

    return read_stream(sys.stdin.buffer.read()) if name == "-" else read_path(Path(name))


def check_folder(target: Path | None) -> None:
    """Find out before a long run that its result could not be written."""
    if target is None:
        return
    if target.is_dir():
        raise InputError(f"{target} is a folder; name a file in it to write to.")
    if not target.parent.is_dir():
        raise InputError(f"There is no folder {target.parent} to write {target.name} to; make it.")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise InputError(f"{target} may not be written by this user; name another file.")
