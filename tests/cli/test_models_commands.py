from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from skipviz.models import backbone
from tests.cli.runner import run, sentence


def test_models_list_says_what_is_pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKIPVIZ_HOME", str(tmp_path))
    outcome = run("models", "list")
    assert outcome.exit_code == 0
    assert "smollm2-gated" in outcome.stdout
    assert "smollm2-135m" in outcome.stdout
    assert "yes" not in outcome.stdout


def test_models_pull_of_a_sample_pulls_its_backbone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulled = []

    def pull(report: Any) -> Path:
        pulled.append(True)
        return tmp_path

    monkeypatch.setattr(backbone, "pull", pull)
    assert run("models", "pull", "smollm2-gated").exit_code == 0
    assert pulled == [True]
    words = sentence(run("models", "pull", "smollm3"))
    assert "smollm2-gated" in words
    assert "smollm2-135m" in words
    assert pulled == [True]


def test_models_info(model: Path, tiny_model_folder: Path) -> None:
    outcome = run("models", "info", model)
    assert outcome.exit_code == 0, outcome.output
    words = outcome.stdout
    assert "8, in 4 layers" in words
    assert "learned, budget 0.6" in words
    assert "threshold 0.500000" in words
    assert run("models", "info", tiny_model_folder).exit_code == 0
    assert "could not be loaded" in sentence(run("models", "info", "nobody/nothing"))
