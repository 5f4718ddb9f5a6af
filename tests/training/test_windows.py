"""Training windows hold running text: no held-out file of Brown, and no padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from skipviz.training import held_out, texts
from skipviz.training.held_out import BROWN_CALIBRATION, BROWN_REPORTING
from skipviz.training.texts import brown_prose
from skipviz.training.windows import written_by_backbone

CHAT = "{% for message in messages %}{{ message.content }}{% endfor %}"


def test_brown_files_that_calibrate_or_report_are_not_trained_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = [*BROWN_CALIBRATION, *BROWN_REPORTING, "ca07", "cr09", "cats.txt", "README"]
    for name in names:
        (tmp_path / name).write_text(f"{name}/nn ./.\n", encoding="utf-8")
    monkeypatch.setattr(texts, "npm_package", lambda _: tmp_path)
    monkeypatch.setattr(held_out, "npm_package", lambda _: tmp_path)
    assert brown_prose() == ["ca07.", "cr09."]


def test_windows_that_the_backbone_writes_begin_with_their_prompt(
    monkeypatch: pytest.MonkeyPatch, tiny_backbone: LlamaForCausalLM, tiny_tokenizer: Any
) -> None:
    monkeypatch.setattr(tiny_tokenizer, "chat_template", CHAT)
    starts = ["a", "a much longer beginning than the first"]
    windows = written_by_backbone(tiny_backbone, tiny_tokenizer, starts, length=12, seed=0)
    assert windows.shape == (2, 12)
    prompts = {tuple(tiny_tokenizer(start)["input_ids"])[:12] for start in starts}
    begun = {tuple(row[: len(prompt)].tolist()) for row in windows for prompt in prompts}
    assert prompts <= begun
    again = written_by_backbone(tiny_backbone, tiny_tokenizer, starts, length=12, seed=0)
    assert torch.equal(windows, again)
