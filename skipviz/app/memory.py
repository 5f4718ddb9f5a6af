"""How much memory a result holds."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from torch import Tensor


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
    if isinstance(value, Tensor):
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
