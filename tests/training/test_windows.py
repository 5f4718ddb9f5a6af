"""Training windows hold running text: no held-out file of Brown, and no padding."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from skipviz.training import held_out, texts, windows
from skipviz.training.held_out import BROWN_CALIBRATION, BROWN_REPORTING
from skipviz.training.texts import brown_prose
from skipviz.training.windows import SHARES, training_windows, written_by_backbone

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
    made = written_by_backbone(tiny_backbone, tiny_tokenizer, starts, length=12, seed=0)
    assert made.shape == (2, 12)
    prompts = {tuple(tiny_tokenizer(start)["input_ids"])[:12] for start in starts}
    begun = {tuple(row[: len(prompt)].tolist()) for row in made for prompt in prompts}
    assert prompts <= begun
    again = written_by_backbone(tiny_backbone, tiny_tokenizer, starts, length=12, seed=0)
    assert torch.equal(made, again)


def test_there_are_as_many_windows_as_asked_for(
    monkeypatch: pytest.MonkeyPatch, tiny_tokenizer: Any
) -> None:
    found = dict.fromkeys(SHARES, ["The quick brown fox. " * 200] * 20)
    monkeypatch.setattr(windows, "sample_documents", lambda _: found)
    monkeypatch.setattr(
        windows,
        "written_by_backbone",
        lambda _, __, starts, length, seed: torch.zeros(len(starts), length, dtype=torch.long),
    )
    for count in range(60, 80):
        made = training_windows(None, tiny_tokenizer, count=count, length=4, seed=0)
        assert made.shape == (count, 4)


def test_a_model_without_chat_format_or_padding_goes_on_from_the_openings(
    tiny_backbone: LlamaForCausalLM, tiny_tokenizer: Any
) -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = tokenizer.pad_token = None
    starts = ["a", "a much longer beginning than the first"]
    alone = written_by_backbone(tiny_backbone, tokenizer, starts[:1], length=12, seed=0)
    assert alone[0, :1].tolist() == tiny_tokenizer("a")["input_ids"]
    assert written_by_backbone(tiny_backbone, tokenizer, starts, length=12, seed=0).shape == (
        2,
        12,
    )


def test_too_few_openings_are_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tiny_tokenizer: Any
) -> None:
    found = {source: ["The quick brown fox. " * 20_000] for source in SHARES}
    monkeypatch.setattr(windows, "sample_documents", lambda _: found)
    with pytest.raises(ValueError, match="2 texts are too few to open 40 windows with"):
        training_windows(None, tiny_tokenizer, count=500, length=4, seed=0)
