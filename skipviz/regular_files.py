"""Files that can be read to their end: no folder, and no pipe or device that may never end."""

from __future__ import annotations

from pathlib import Path

from skipviz.errors import InputError


def check_regular_file(path: Path | str) -> None:
    """Raise ``InputError`` where a path is there and is not a file, as a folder, pipe or device."""
    if Path(path).exists() and not Path(path).is_file():
        raise InputError(f"{path} is a folder, a pipe or a device, not a file.")
