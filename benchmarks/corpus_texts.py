"""Writes the held-out texts of which docs/findings.md speaks over a corpus.

``python benchmarks/corpus_texts.py FILE.jsonl``. No model was trained on them and no threshold
calibrated: the files of the Brown corpus that report, whole, and the documents of dialogue and code
that do; 203,702 tokens of SmolLM2. A row has ``text``, ``file`` and ``domain``. The order is
drawn at random, so that a run which is not finished has documents of every domain.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from skipviz.corpora.held_out import BROWN_REPORTING, brown, reporting_texts

DOMAINS = {"press": "abc", "non-fiction": "defghj", "fiction": "klmnpr"}
"""Genres of the Brown corpus, by the second letter of a file's name."""


def rows() -> list[dict[str, str]]:
    """Return the texts with their domains, in an order drawn at random."""
    genres = {genre: domain for domain, letters in DOMAINS.items() for genre in letters}
    found = [
        {"text": text, "file": name, "domain": genres[name[1]]}
        for name, text in brown(BROWN_REPORTING).items()
    ]
    found += [
        {"text": each.text, "file": each.source, "domain": each.source.partition("/")[0]}
        for each in reporting_texts()
        if "/" in each.source
    ]
    return [found[place] for place in np.random.default_rng(0).permutation(len(found))]


def main() -> None:
    """Write the texts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows()]
    options.file.write_text("".join(lines), encoding="utf-8")
    print(f"{len(lines)} documents in {options.file}.")


if __name__ == "__main__":
    main()
