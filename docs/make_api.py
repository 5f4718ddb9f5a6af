"""Writes ``docs/api.md`` from the docstrings of skipviz's public names."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from numpydoc.docscrape import NumpyDocString

import skipviz

PAGE = Path(__file__).with_name("api.md")
INTRODUCTION = """# The Python API

Written by `docs/make_api.py` from the docstrings; change those, and run it again.
`help(skipviz.trace)` says the same in Python.
"""


def page() -> str:
    """Return the whole page."""
    public = {name: getattr(skipviz, name) for name in sorted(skipviz.__all__, key=str.lower)}
    kinds = {
        "Functions": [name for name, value in public.items() if inspect.isfunction(value)],
        "Classes": [n for n, v in public.items() if inspect.isclass(v) and not _is_error(v)],
        "Errors": [name for name, value in public.items() if _is_error(value)],
    }
    parts = [INTRODUCTION]
    for kind, names in kinds.items():
        parts.append(f"## {kind}\n")
        parts += ["\n".join(_described(f"skipviz.{name}", public[name], "###")) for name in names]
    modules = [name for name, value in public.items() if isinstance(value, ModuleType)]
    for name in modules:
        parts.append("\n".join([f"## skipviz.{name}\n", f"{_first_line(public[name])}\n"]))
        parts.append("\n".join(_listed(public[name])))
    if "__version__" in public:
        parts.append("`skipviz.__version__` is the version that is installed.\n")
    return "\n".join(parts).rstrip() + "\n"


def _is_error(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, BaseException)


def _first_line(value: Any) -> str:
    return _markdown((inspect.getdoc(value) or "").splitlines()[0])


def _markdown(text: str) -> str:
    """Return reStructuredText's literals as Markdown's."""
    return text.replace("``", "`")


def _listed(module: ModuleType) -> Iterator[str]:
    """Yield a line for each public name of a module."""
    for name in sorted(module.__all__):
        yield f"- `{name}`: {_first_line(getattr(module, name))}"
    yield ""


def _described(name: str, value: Any, heading: str) -> Iterator[str]:
    """Yield a name's signature and docstring as Markdown."""
    yield f"{heading} {name}\n"
    if not _is_error(value):
        yield f"```python\n{_signature(name, value)}\n```\n"
    text = NumpyDocString(inspect.getdoc(value) or "")
    for part in ("Summary", "Extended Summary"):
        if text[part]:
            yield _markdown("\n".join(text[part])) + "\n"
    for part in ("Parameters", "Attributes", "Returns", "Yields", "Raises"):
        if text[part]:
            yield f"**{part}**\n"
            for entry in text[part]:
                title = ", ".join(f"`{each}`" for each in (entry.name, entry.type) if each)
                yield f"- {title}: {_markdown(' '.join(line.strip() for line in entry.desc))}"
            yield ""
    if text["Examples"]:
        yield "\n".join(["**Example**\n", "```pycon", *text["Examples"], "```\n"])
    if inspect.isclass(value) and not _is_error(value):
        for method, function in _methods(value):
            call = function.__name__ if isinstance(vars(value)[method], property) else f"{method}()"
            yield f"- `{call}`: {_first_line(function)}"
        yield ""


def _methods(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties that a class defines itself."""
    for name, member in vars(kind).items():
        function = getattr(member, "fget", None) or getattr(member, "__func__", member)
        if not name.startswith("_") and inspect.isfunction(function):
            yield name, member.fget if isinstance(member, property) else function


class _Plain(str):
    """Shown without quotation marks."""

    __slots__ = ()
    __repr__ = str.__str__


def _signature(name: str, value: Any) -> str:
    """Return how a name is called, a parameter a line where it is long."""
    signature = inspect.signature(value)
    parts: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        default = parameter.default
        if inspect.isfunction(default):
            default = _Plain(default.__name__.replace("<lambda>", "..."))
        annotation = parameter.annotation
        if isinstance(annotation, str):
            annotation = _Plain(annotation)
        parts.append(str(parameter.replace(default=default, annotation=annotation)))
    returned = signature.return_annotation
    result = f" -> {returned}" if isinstance(returned, str) and not inspect.isclass(value) else ""
    whole = f"{name}({', '.join(parts)}){result}"
    if len(whole) <= 88:
        return whole
    return f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){result}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
