from __future__ import annotations

from pathlib import Path

import pytest

import skipviz
import skipviz.corpora.held_out
from tests import tiny
from tests.cli.runner import TEXTS
from tests.folders import write_gated


@pytest.fixture
def model(tmp_path: Path, tiny_model_folder: Path) -> Path:
    return write_gated(tmp_path / "tiny-gated", backbone=tiny_model_folder)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "notes.txt"
    path.write_text(tiny.TEXT, encoding="utf-8", newline="")
    return path


@pytest.fixture
def held_out(monkeypatch: pytest.MonkeyPatch) -> list[skipviz.Document]:
    documents = [skipviz.Document(f"doc{i}", text) for i, text in enumerate(TEXTS)]
    texts = skipviz.corpora.held_out
    monkeypatch.setattr(texts, "calibration_texts", lambda: documents)
    monkeypatch.setattr(texts, "reporting_texts", lambda: documents)
    return documents
