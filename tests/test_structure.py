"""The layout: anyone finds the room at once, and names mean one thing."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import skipviz

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "skipviz"
MODULES = sorted(PACKAGE.rglob("*.py"))
MOST_FILES = 16
"""Modules in a folder; more, and it holds several rooms."""

FILE_FORMATS = {"FORMAT", "METADATA_KEY"}
"""Each kind of file has a number of its format."""
OF_EACH_FILE = {"page", "settings_of", "payload"}
"""What every page, every family's settings and every component has under the same name."""


def public_functions() -> set[str]:
    return {
        name
        for room in (skipviz, skipviz.plots)
        for name in room.__all__
        if name.islower() and callable(getattr(room, name))
    }


def constants(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (
                t.id
                for t in targets
                if isinstance(t, ast.Name) and t.id.isupper() and t.id[0] != "_"
            )


def classes(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            yield node.name


def functions(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name


def test_no_module_is_named_like_a_public_function() -> None:
    assert {"trace", "record", "audit", "load", "token_html"} <= public_functions()
    assert not public_functions() & {path.stem for path in MODULES}


def test_no_module_looks_like_a_test() -> None:
    assert not [path for path in MODULES if re.match(r"test_|.*_test$", path.stem)]


def test_folders_hold_no_more_than_a_reader_takes_in() -> None:
    counts = Counter(path.parent for path in MODULES if path.name != "__init__.py")
    assert {str(folder): n for folder, n in counts.items() if n > MOST_FILES} == {}


def test_every_test_lies_where_its_module_does() -> None:
    rooms = {path.relative_to(PACKAGE) for path in PACKAGE.rglob("*") if path.is_dir()}
    extra = {Path("browser"), Path("docs"), Path("data")}
    tests = {
        path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")
    }
    assert {str(each) for each in tests - rooms - extra - {Path()}} == set()


def test_one_name_means_one_thing() -> None:
    """Constants, classes, functions; a command is called like the function that it runs."""
    seen = {
        "classes": Counter(name for path in MODULES for name in classes(path)),
        "constants": Counter(name for path in MODULES for name in set(constants(path))),
        "functions": Counter(
            name for path in MODULES if path.parent.name != "cli" for name in set(functions(path))
        ),
    }
    found = {kind: {n: c for n, c in names.items() if c > 1} for kind, names in seen.items()}
    assert set(found["classes"]) == set()
    assert set(found["constants"]) <= FILE_FORMATS
    assert set(found["functions"]) <= OF_EACH_FILE
