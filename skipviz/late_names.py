"""Names of a package that are imported when they are first used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module


def late_names(package: str, homes: Mapping[str, Iterable[str]]) -> Callable[[str], object]:
    """Return a package's ``__getattr__``, which imports a name where it is asked for.

    Parameters
    ----------
    package
        Its full name.
    homes
        The names in each of its modules, by the module's name in the package.
    """
    found = {name: home for home, names in homes.items() for name in names}

    def get(name: str) -> object:
        if name not in found:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = getattr(import_module(f"{package}.{found[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return get
