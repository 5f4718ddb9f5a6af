"""What the process that leads a corpus can do in a second: documents cut into parts, parts named.

``python benchmarks/corpus_head.py``. Both are done by that one process however many workers there
are, so they say how many it can lead (docs/scaling.md). No model runs.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from skipviz.corpus.folder import DatasetFolder
from skipviz.corpus.format import FORMAT, PART_CHARACTERS, part_file
from skipviz.corpus.parts import Part, cut_into_parts
from skipviz.corpus.run import read_entries
from skipviz.corpus.work import PartResult
from skipviz.corpus.writer import CorpusWriter

DOCUMENTS = 20_000
TEXT = "The quick brown fox jumps over the lazy dog, and then it sleeps. " * 15
PART_BYTES = 5_000_000
"""On disk, of 45,000 tokens of a model of 60 sites."""


def result(part: Part, folder: DatasetFolder) -> PartResult:
    """Return what a worker would have made of a part."""
    documents = tuple(
        {
            "document": part.first + place,
            "source": entry.source,
            "sha256": entry.sha256,
            "characters": len(TEXT),
            "tokens": 1,
            "error": None,
            "columns": json.dumps(dict(entry.columns)),
        }
        for place, entry in enumerate(part.entries)
    )
    staged = folder.stage(part_file("tokens", part.name), bytes(PART_BYTES), rows=len(documents))
    return PartResult(
        number=part.number,
        name=part.name,
        share=part.share,
        about={"format": FORMAT, "sites": [], "analyses": []},
        staged=(staged,),
        documents=documents,
    )


def main() -> None:
    """Print both rates, and how long the end takes."""
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "texts.jsonl"
        with source.open("w") as file:
            for number in range(DOCUMENTS):
                file.write(json.dumps({"text": f"{number} {TEXT}", "domain": number % 7}) + "\n")
        began = time.perf_counter()
        read = read_entries([source], text_column="text", size=source.stat().st_size)
        parts = list(cut_into_parts(read, part_characters=PART_CHARACTERS))
        seconds = time.perf_counter() - began
        characters = source.stat().st_size / seconds
        print(f"cutting: {characters / 1e6:,.0f} million characters per second")
        folder = DatasetFolder(Path(place) / "out")
        with folder.held():
            writer = CorpusWriter(folder)
            left = list(writer.missing(iter(parts)))
            results = [result(part, folder) for part in left]
            began = time.perf_counter()
            for each in results:
                writer.take(each)
            seconds = time.perf_counter() - began
            print(f"naming: {len(results) / seconds:,.0f} parts per second on this disk")
            began = time.perf_counter()
            writer.finish()
            seconds = time.perf_counter() - began
            print(f"ending: {DOCUMENTS / seconds:,.0f} documents per second")


if __name__ == "__main__":
    main()
