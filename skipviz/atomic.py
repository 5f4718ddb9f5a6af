"""Files that are there whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skipviz.errors import InputError


@contextmanager
def written(target: Path) -> Iterator[Path]:
    """Give a path beside the target, renamed to it once written, so that no half of a file stays.

    Parameters
    ----------
    target
        The file to make or to replace. A pipe or a device cannot be replaced and is written itself.
    """
    special = target.exists() and not target.is_file()
    partial = target if special else target.with_name(target.name + ".partial")
    try:
        yield partial
        if not special:
            partial.replace(target)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(
            f"{target} cannot be written ({error.strerror or error}). Free some space, or name "
            "another file."
        ) from error
    finally:
        if not special:
            partial.unlink(missing_ok=True)
