"""Files that are there whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written(target: Path) -> Iterator[Path]:
    """Give a path beside the target, renamed to it once written, so that no half of a file stays.

    Parameters
    ----------
    target
        The file to make or to replace. A pipe or a device cannot be replaced and is written itself.
    """
    if target.exists() and not target.is_file():
        yield target
        return
    partial = target.with_name(target.name + ".partial")
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
