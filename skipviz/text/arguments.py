"""Whether what a caller hands over is of the type that is asked for: a sentence, or a value.

What only looks different is taken for what it is: a number of NumPy's or torch's, an array where
several values are asked for, a text where a path is.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Collection, Hashable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from skipviz.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])
MADE_BY = {
    "SkipModel": "skipviz.load returns one",
    "Trace": "skipviz.trace returns one",
    "Generation": "skipviz.generate returns one",
    "CorpusDataset": "skipviz.open_corpus returns one",
}
"""How to come by what a caller cannot write down."""
_LONGEST_SHOWN = 60


class _UnfitError(Exception):
    """A value is of another type."""


def checked(function: F) -> F:
    """Have a function's arguments checked against its annotations before it runs.

    Raises
    ------
    InputError
        Names the argument, its value and what it may be.
    """
    signature = inspect.signature(function)
    hints = functools.cache(lambda: get_type_hints(function))  # names may be imported after this

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        for name, value in given.arguments.items():
            if value is not signature.parameters[name].default:
                given.arguments[name] = _fitted(name, value, hints()[name], of=function.__name__)
        return function(*given.args, **given.kwargs)

    return cast(F, run)


def check_types(instance: Any) -> None:
    """Check the fields of a dataclass against their annotations.

    Raises
    ------
    InputError
        Names the field, its value and what it may be.
    """
    of = type(instance)
    for name, hint in _hints(cast(Hashable, of)).items():
        value = getattr(instance, name)
        fitted = _fitted(name, value, hint, of=of.__name__)
        if fitted is not value:
            object.__setattr__(instance, name, fitted)


@functools.cache
def _hints(of: Any) -> dict[str, Any]:
    return get_type_hints(of)


def _fitted(name: str, value: Any, hint: Any, *, of: str) -> Any:
    try:
        return _fit(value, hint)
    except _UnfitError:
        shown = " ".join(f"{value!r}".split())
        if len(shown) > _LONGEST_SHOWN:
            shown = f"{shown[:_LONGEST_SHOWN]}..."
        words = _words(hint)
        if type(value) in map(type, words):
            raise InputError(
                f"{name}={shown} is not one of {', '.join(map(str, words))}."
            ) from None
        made = MADE_BY.get(getattr(hint, "__name__", ""))
        raise InputError(
            f"{name}={shown} is of type {type(value).__name__}; {of} takes {_told(hint)} there"
            + (f", and {made}." if made else ".")
        ) from None


def _fit(value: Any, hint: Any) -> Any:
    """Return a value as a type has it, or raise ``_UnfitError``."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if hasattr(origin, "ndim"):  # an array is asked for
        return _if(isinstance(value, cast(type, origin)), value)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if origin in (Union, UnionType):
        return _fit_any(value, parts)
    if origin is Literal:
        return _if(any(type(value) is type(part) and value == part for part in parts), value)
    if hint in (int, float):
        _if(
            isinstance(value, int | float if hint is float else int)
            and not isinstance(value, bool),
            value,
        )
        return _number(value, hint)
    if hint is Path:
        path = Path(_if(isinstance(value, str | os.PathLike), value))
        return _if("\0" not in str(path), value if isinstance(value, Path) else path)
    if origin is not None and issubclass(origin, Mapping):
        return _fit_mapping(value, parts)
    if origin is not None and issubclass(origin, Collection):
        return _fit_several(value, origin, parts)
    if origin is Callable:
        return _if(callable(value), value)
    return _if(isinstance(value, origin or hint), value)


def _number(value: Any, kind: type) -> Any:
    """Return a number as a kind: some libraries take no whole number where any is allowed."""
    _if(isinstance(value, int | kind) and not isinstance(value, bool), value)
    try:
        return value if type(value) is kind else kind(value)
    except OverflowError:
        raise _UnfitError from None


def _fit_any(value: Any, hints: tuple[Any, ...]) -> Any:
    for hint in hints:
        try:
            return _fit(value, hint)
        except _UnfitError:
            continue
    raise _UnfitError


def _fit_several(value: Any, origin: type, parts: tuple[Any, ...]) -> Any:
    listed = getattr(value, "tolist", getattr(value, "to_list", None))
    if listed is not None:
        value = listed()
    # A text is a sequence of letters, which nobody means.
    wanted = (list, tuple) if origin is tuple else origin
    _if(isinstance(value, wanted) and not isinstance(value, str | bytes), value)
    if origin is tuple and parts[-1] is not ...:
        _if(len(value) == len(parts), value)
        each = [_fit(one, hint) for one, hint in zip(value, parts, strict=True)]
    else:
        each = [_fit(one, parts[0]) for one in value]
    if origin is tuple and not isinstance(value, tuple):
        return tuple(each)
    same = all(new is old for new, old in zip(each, value, strict=True))
    return value if same else tuple(each) if isinstance(value, tuple) else each


def _fit_mapping(value: Any, parts: tuple[Any, ...]) -> Any:
    """Return a mapping as it is, once its keys and values fit."""
    _if(isinstance(value, Mapping), value)
    for pair in value.items():
        for one, hint in zip(pair, parts, strict=True):
            _fit(one, hint)
    return value


def _if(fits: bool, value: Any) -> Any:
    if not fits:
        raise _UnfitError
    return value


def _words(hint: Any) -> list[Any]:
    """Return the values that a type names one by one."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    if get_origin(hint) in (Union, UnionType):
        return [word for part in get_args(hint) for word in _words(part)]
    return []


def _told(hint: Any) -> str:
    """Return a type as code has it, without the modules that names come from."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint is NoneType:
        return "None"
    if hint is ...:
        return "..."
    if origin in (Union, UnionType):
        return " | ".join(map(_told, parts))
    if origin is Literal:
        return " | ".join(map(repr, parts))
    if origin is Callable:
        return "a function"
    name = getattr(origin or hint, "__name__", str(hint))
    return f"{name}[{', '.join(map(_told, parts))}]" if parts else name
