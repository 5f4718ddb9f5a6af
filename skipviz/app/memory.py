"""How much memory a result holds, and free memory handed back."""

from __future__ import annotations

import ctypes
import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

M_ARENA_MAX = -8
"""As in glibc's ``malloc.h``."""


def share_one_heap() -> None:
    """Have all threads take memory from one place, where glibc would give several to each core.

    Every run and every drawing of a page has a thread of its own; what each leaves free in a place
    of its own the others cannot use, and the server would grow from run to run.
    """
    _glibc("mallopt", M_ARENA_MAX, 1)


def hand_back() -> None:
    """Give memory that is free back to the system."""
    _glibc("malloc_trim", 0)


def _glibc(name: str, *arguments: int) -> None:
    """Call what only glibc has; other C libraries need none of it."""
    call = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    if call is not None:
        call(*arguments)


def held_bytes(value: object) -> int:
    """Return about how many bytes stay in memory because of a value.

    Parameters
    ----------
    value
        A trace, a frame, an array, or dataclasses and collections of such.
    """
    return _held(value, set())


def _held(value: Any, seen: set[int]) -> int:
    if isinstance(value, np.ndarray):
        while isinstance(value.base, np.ndarray):  # a view keeps all that it is a part of
            value = value.base
    if id(value) in seen:
        return 0
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if isinstance(value, pl.DataFrame | pl.Series):
        return int(value.estimated_size())
    torch = sys.modules.get("torch")  # where it was never imported, nothing is of it
    if torch is not None and isinstance(value, torch.Tensor):
        return int(value.untyped_storage().nbytes())
    if hasattr(value, "memory_usage"):  # a table of pandas, as components take it
        return int(np.sum(value.memory_usage(deep=True)))
    own = sys.getsizeof(value)
    if isinstance(value, Mapping):
        return own + sum(_held(part, seen) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return own + sum(_held(part, seen) for part in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = vars(value) if hasattr(value, "__dict__") else {}
        return own + sum(_held(part, seen) for part in parts.values())
    return own
