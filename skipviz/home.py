"""Where skipviz keeps what it fetched: ``SKIPVIZ_HOME``, or ``~/.cache/skipviz``."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock


def home() -> Path:
    """Return the cache folder; it is made when something is first put in it."""
    return Path(os.environ.get("SKIPVIZ_HOME") or Path.home() / ".cache" / "skipviz").expanduser()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold the lock that goes with ``target``, so that only one process makes it at a time."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(str(target.with_name(target.name + ".lock"))):
        yield
