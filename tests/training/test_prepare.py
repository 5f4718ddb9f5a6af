"""Which texts a run is on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

import skipviz.training.prepare
from skipviz.errors import InputError
from skipviz.training.prepare import WINDOWS, Prepared, TrainingRun, prepare
from skipviz.training.recipe import Recipe


def some_windows(*_: Any, count: int, length: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, 260, (count, length), generator=generator)


@pytest.fixture
def backbone(tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(skipviz.training.prepare, "training_windows", some_windows)
    return tiny_model_folder


def prepared(
    backbone: Path, folder: Path, *, windows: Path | None = None, **recipe: Any
) -> Prepared:
    return prepare(
        TrainingRun(
            backbone=str(backbone),
            recipe=Recipe(**{"steps": 300, "length": 8, "dtype": "float32", **recipe}),
            folder=folder,
            device="cpu",
            windows=windows,
            say=lambda _: None,
            report=lambda _: None,
        )
    )


def test_a_run_finds_its_own_windows_again(tmp_path: Path, backbone: Path) -> None:
    first, again = (prepared(backbone, tmp_path / "run") for _ in range(2))
    assert torch.equal(first.windows, again.windows)
    assert first.batches.flatten().tolist() == list(range(600))
    assert first.about == again.about


@pytest.mark.parametrize("changes", [{"steps": 3000}, {"length": 9}, {"seed": 5}])
def test_windows_of_another_recipe_are_not_trained_on(
    tmp_path: Path, backbone: Path, changes: dict[str, int]
) -> None:
    prepared(backbone, tmp_path / "run")
    with pytest.raises(ValueError, match=r"holds 600 windows of 8 tokens, made with seed 0"):
        prepared(backbone, tmp_path / "run", **changes)


def test_windows_of_another_run_are_shuffled_and_seen_again(tmp_path: Path, backbone: Path) -> None:
    theirs = prepared(backbone, tmp_path / "theirs")
    mine = prepared(backbone, tmp_path / "mine", windows=tmp_path / "theirs", steps=400)
    assert torch.equal(mine.windows, theirs.windows)
    numbers = mine.batches.flatten().tolist()
    assert sorted(numbers[:600]) == list(range(600))
    assert numbers[:600] != list(range(600))
    assert len(numbers) == 800
    assert mine.about != theirs.about


def test_other_texts_are_another_beginning(tmp_path: Path, backbone: Path) -> None:
    one, other = (prepared(backbone, tmp_path / str(seed), seed=seed) for seed in (0, 1))
    assert one.about["backbone"] == other.about["backbone"]
    assert one.about["texts"] != other.about["texts"]


def test_a_folder_without_windows_is_a_sentence_and_gets_none(
    tmp_path: Path, backbone: Path
) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(ValueError, match=r"There is no run in .*model to take the windows of"):
        prepared(backbone, tmp_path / "mine", windows=tmp_path / "model")
    assert not list((tmp_path / "model").iterdir())
    prepared(backbone, tmp_path / "theirs")
    with pytest.raises(ValueError, match="holds windows of 8 tokens; this run needs some of 9"):
        prepared(backbone, tmp_path / "mine", windows=tmp_path / "theirs", length=9)


@pytest.mark.timeout(60)
def test_windows_that_cannot_be_read_are_a_sentence(tmp_path: Path, backbone: Path) -> None:
    prepared(backbone, tmp_path / "theirs")
    file = tmp_path / "theirs" / WINDOWS
    whole = file.read_bytes()
    for put in (
        lambda: file.write_bytes(whole[:100]),
        lambda: file.write_bytes(b""),
        lambda: file.write_bytes(save({"windows": torch.zeros(3)})),
        lambda: file.write_bytes(save({"others": torch.zeros(3)})),
        lambda: file.unlink() or os.mkfifo(file),
        lambda: file.unlink() or file.mkdir(),
    ):
        put()
        with pytest.raises(InputError, match=r"cannot be read|not windows of token ids"):
            prepared(backbone, tmp_path / "mine", windows=tmp_path / "theirs")
