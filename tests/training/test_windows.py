"""Training windows hold running text, none of it of held-out files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from skipviz.corpora import held_out
from skipviz.corpora import training_texts as texts
from skipviz.corpora.held_out import BROWN_CALIBRATION, BROWN_REPORTING
from skipviz.corpora.training_texts import brown_prose
from skipviz.training import windows
from skipviz.training.windows import SOURCE_SHARES, training_windows


def test_brown_files_that_calibrate_or_report_are_not_trained_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = [*BROWN_CALIBRATION, *BROWN_REPORTING, "ca07", "cr09", "cats.txt", "README"]
    for name in names:
        (tmp_path / name).write_text(f"{name}/nn ./.\n", encoding="utf-8")
    monkeypatch.setattr(texts, "npm_package", lambda _: tmp_path)
    monkeypatch.setattr(held_out, "npm_package", lambda _: tmp_path)
    assert brown_prose() == ["ca07.", "cr09."]


def test_there_are_as_many_windows_as_asked_for(
    monkeypatch: pytest.MonkeyPatch, tiny_tokenizer: Any
) -> None:
    found = dict.fromkeys(SOURCE_SHARES, ["The quick brown fox. " * 200] * 20)
    monkeypatch.setattr(windows, "sample_documents", lambda _: found)
    for count in range(60, 80):
        made = training_windows(tiny_tokenizer, count=count, length=4, seed=0)
        assert made.shape == (count, 4)
