"""Has a method of one object go through another function for a while."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from types import MethodType
from typing import Any

Call = Callable[..., Any]


def replace_method(owner: Any, name: str, call: Call) -> Callable[[], None]:
    """Have ``owner.name(...)`` go through ``call(method, ...)``, and return what undoes it.

    A copy of the owner that is made meanwhile has the method as it was, of its own, and ``call`` is
    not told of it; a pickle has that of its class.

    Parameters
    ----------
    owner
        Has the method, from its class or as an attribute of its own.
    name
        What the method is called.
    call
        What is called instead, with the method as it was before its arguments.
    """
    method_of, own = _unbound(owner, name), vars(owner).get(name)
    there = [(weakref.ref(owner), call)]

    def replaced(self: Any, *args: Any, **kwargs: Any) -> Any:
        method = method_of(self)
        for known, told in there:
            if known() is self:
                return told(method, *args, **kwargs)
        return method(*args, **kwargs)

    def undo() -> None:
        (known, _) = there.pop()  # a copy that lives on keeps nothing of the call
        if (owner := known()) is None:
            return
        vars(owner).pop(name, None)
        if own is not None:
            vars(owner)[name] = own

    replaced.__name__ = name  # by which it is pickled
    vars(owner)[name] = MethodType(replaced, owner)  # bound, so that a copy's is bound to the copy
    return undo


def _unbound(owner: Any, name: str) -> Callable[[Any], Call]:
    """Return what gives the method of the owner, or of a copy of it."""
    found = getattr(owner, name)
    if isinstance(found, MethodType) and found.__self__ is owner:
        function = found.__func__  # alone: a copy that lives on does not keep the owner
        return lambda copied: MethodType(function, copied)
    return lambda _: found
