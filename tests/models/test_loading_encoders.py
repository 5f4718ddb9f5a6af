"""Encoders with exits, from a folder that brings their code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification

import skipviz
from skipviz.errors import ModelError
from tests import encoders, tiny

MODELS: dict[str, Callable[[], Any]] = {"deebert": encoders.deebert, "pabee": encoders.pabee}
CODE = """from tests import encoders


class Brought(encoders.{kind}):
    def __init__(self, config):
        super().__init__(config)
        self.bert.patience, self.bert.regression_threshold = 1, 0.5
        if hasattr(self.bert.encoder, "early_exit_entropy"):
            self.bert.encoder.early_exit_entropy = [0.8] * {layers}
"""


def folder_of(name: str, folder: Path) -> Path:
    """Save an encoder with code of its own, which sets when a text leaves."""
    model = MODELS[name]()
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    code = CODE.format(kind=type(model).__name__, layers=encoders.LAYERS)
    (folder / "brought.py").write_text(code, encoding="utf-8")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoModelForSequenceClassification": "brought.Brought"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_with_an_encoder_is_traced(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = folder_of(name, tmp_path / name)
    model = skipviz.load(folder, trust_remote_code=True)
    assert model.family.name == name
    trace = skipviz.trace(model, tiny.TEXT)
    assert trace.run["loss"].item() == "none"
    own = skipviz.from_parts(MODELS[name](), tiny.tokenizer(), name="own")
    assert np.array_equal(
        trace.matrix("exec_count"), skipviz.trace(own, tiny.TEXT).matrix("exec_count")
    )
    with pytest.raises(ModelError, match=r"brings Python code.*The app runs no such code"):
        skipviz.load(folder)


def test_a_classifier_without_exits_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = BertForSequenceClassification(encoders.deebert().config)
    model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="gives a class of a text, and it has no exits"):
        skipviz.load(tmp_path)
