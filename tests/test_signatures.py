"""``seed``, ``progress`` and ``stop`` are asked for everywhere in the same way."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

import skipviz
import skipviz.analysis
import skipviz.evaluation
import skipviz.experiments
from skipviz.progress import no_progress

ROOMS = (skipviz.analysis, skipviz.experiments, skipviz.evaluation)
RULES: dict[str, tuple[str, object]] = {
    "seed": ("int", 0),
    "progress": ("Progress", no_progress),
    "stop": ("threading.Event | None", None),
}
"""The annotation and the default of each; all are keyword-only."""


def own_functions(module: ModuleType) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the public functions of a module, and the public methods of its classes."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", "") != module.__name__:
            continue
        members = vars(value) if inspect.isclass(value) else {name: value}
        for member, held in members.items():
            function = getattr(held, "__func__", held)
            if inspect.isfunction(function) and not member.startswith("_"):
                yield f"{module.__name__}.{function.__qualname__}", function


def functions() -> dict[str, Callable[..., Any]]:
    public = {name: getattr(skipviz, name) for name in skipviz.__all__}
    found = {name: each for name, each in public.items() if inspect.isfunction(each)}
    for room in ROOMS:
        for each in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            found |= own_functions(importlib.import_module(each.name))
    return found


FUNCTIONS = functions()


@pytest.mark.parametrize("parameter", RULES)
def test_a_parameter_is_asked_for_in_one_way(parameter: str) -> None:
    annotation, default = RULES[parameter]
    asking = {
        name: inspect.signature(each).parameters[parameter]
        for name, each in FUNCTIONS.items()
        if parameter in inspect.signature(each).parameters
    }
    assert len(asking) >= 10
    otherwise = {
        name: str(each)
        for name, each in asking.items()
        if each.kind is not inspect.Parameter.KEYWORD_ONLY
        or each.annotation != annotation
        or each.default is not default
    }
    assert otherwise == {}
