"""Writes the two corpora that the page Corpus shows where none is served.

python docs/make_sample_corpora.py

Their documents are the terms of the glossary and parts of skipviz's own files, traced by
smollm2-gated at two budgets.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import skipviz
from skipviz.readings.glossary import GLOSSARY

ROOT = Path(__file__).parents[1] / "skipviz"
CORPORA = ROOT / "app" / "samples" / "corpora"
BUDGETS = (0.8, 0.65)
TERMS, CHARACTERS = 3, 400
"""Terms a document, and characters of a file: some hundred tokens each."""


def documents() -> Iterator[dict[str, str]]:
    """Yield each document with its domain."""
    terms = sorted(GLOSSARY)
    for first in range(0, len(terms), TERMS):
        text = "\n".join(f"{each}: {GLOSSARY[each]}" for each in terms[first : first + TERMS])
        yield {"text": text, "domain": "glossary"}
    for path in sorted((ROOT / "analysis" / "tokens").glob("[a-z]*.py")) + sorted(
        (ROOT / "text").glob("[a-z]*.py")
    ):
        code = path.read_text(encoding="utf-8").split("\n\n\n", 1)[-1]
        yield {"text": code[:CHARACTERS], "domain": "Python"}


def main() -> None:
    """Trace them."""
    shutil.rmtree(CORPORA, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "documents.jsonl"
        lines.write_text("".join(f"{json.dumps(each)}\n" for each in documents()), encoding="utf-8")
        for budget in BUDGETS:
            model = skipviz.load("smollm2-gated", budget=budget)
            out = CORPORA / f"sample-{budget}"
            skipviz.trace_corpus(model, lines, out=out)
            (out / ".lock").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
