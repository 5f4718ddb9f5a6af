"""A small corpus of every kind of text, and the tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import skipviz
from skipviz.corpus.summaries import CorpusSummary
from tests import tiny

PART = 400
"""Characters that end a part: of these texts a few make one."""


def rows(count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Texts of different lengths, with a label."""
    return [
        {"text": (tiny.TEXT[(7 * n + seed) % 50 :] + " ") * (1 + n % 3), "label": n % 4}
        for n in range(count)
    ]


def write_rows(path: Path, found: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return path


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "texts.jsonl", rows(8))


@pytest.fixture
def run(gated: skipviz.SkipModel, texts: Path, tmp_path: Path) -> Callable[..., CorpusSummary]:
    """Trace the texts into a folder, ``corpus`` if not said otherwise."""

    def trace(*, out: str = "corpus", **options: Any) -> CorpusSummary:
        given: dict[str, Any] = {"inputs": texts, "part_characters": PART} | options
        model, inputs = given.pop("model", gated), given.pop("inputs")
        return skipviz.trace_corpus(model, inputs, out=tmp_path / out, **given)

    return trace
