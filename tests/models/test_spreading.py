"""A model whose layers are on several devices decides as it does on one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import skipviz
from skipviz.errors import InputError
from skipviz.models.spreading import card_map, spread
from tests import tiny
from tests.corpus import datasets
from tests.folders import write_gated

ON_DISK = ("model.layers.1", "model.layers.2", "lm_head")


@pytest.fixture
def folder(tmp_path: Path, tiny_model_folder: Path) -> Path:
    return write_gated(tmp_path / "tiny-gated", backbone=tiny_model_folder)


@pytest.fixture
def spread_out(folder: Path, tmp_path: Path) -> skipviz.SkipModel:
    """The tiny model with some layers on the disk: two devices, on any machine."""
    made = skipviz.load(folder)
    names = ["model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"]
    names += [f"model.layers.{n}" for n in range(len(made.model.model.layers))]
    devices: dict[str, Any] = {name: "disk" if name in ON_DISK else "cpu" for name in names}
    spread(made.model, devices, folder=tmp_path / "weights")
    return made


def test_decisions_are_those_of_one_device(folder: Path, spread_out: skipviz.SkipModel) -> None:
    kept = {str(each.device) for each in spread_out.model.parameters()}
    assert kept == {"cpu", "meta"}
    assert spread_out.device == torch.device("cpu")
    texts = [tiny.TEXT, tiny.TEXT[:40]]
    alone, found = (skipviz.trace(model, texts) for model in (skipviz.load(folder), spread_out))
    for name in ("exec_count", "score", "threshold"):
        np.testing.assert_array_equal(found.matrix(name), alone.matrix(name))
    assert found.tokens.equals(alone.tokens)


def test_a_corpus_is_that_of_one_device(
    folder: Path, spread_out: skipviz.SkipModel, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text(tiny.TEXT)
    for name, model in (("one", skipviz.load(folder)), ("two", spread_out)):
        skipviz.trace_corpus(model, tmp_path / "a.txt", out=tmp_path / name, analyses=["lens"])
    assert datasets.contents(tmp_path / "one") == datasets.contents(tmp_path / "two")


REFUSED: dict[str, Callable[[skipviz.SkipModel, skipviz.Trace, Path], object]] = {
    "another runtime": lambda model, *_: skipviz.with_runtime(model, "gathered"),
    "another budget": lambda model, *_: skipviz.at_budget(model, 0.6),
    "an audit": lambda model, trace, _: skipviz.audit(model, trace),
    "a corpus with audits": lambda model, _, folder: skipviz.trace_corpus(
        model, folder / "a.txt", out=folder / "corpus", analyses=["audit"]
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_needs_weights_in_one_place_says_that_it_cannot(
    spread_out: skipviz.SkipModel, tmp_path: Path, what: str
) -> None:
    (tmp_path / "a.txt").write_text(tiny.TEXT)
    traced = skipviz.trace(spread_out, tiny.TEXT)
    with pytest.raises(skipviz.InputError, match="needs all weights on one device"):
        REFUSED[what](spread_out, traced, tmp_path)


def test_a_map_to_one_device_is_a_model_on_one_device(folder: Path) -> None:
    made = skipviz.load(folder)
    made.model.hf_device_map = {"model": "cpu", "lm_head": torch.device("cpu")}
    assert skipviz.at_budget(made, 0.6).device == torch.device("cpu")
    made.model.hf_device_map = {"": 0}  # as it was loaded, and moved since
    assert made.device == torch.device("cpu")
    made.model.hf_device_map = {"": "disk"}
    with pytest.raises(InputError, match="spread over several"):
        skipviz.at_budget(made, 0.6)


def test_layers_go_to_cards_as_far_as_they_go() -> None:
    model = tiny.gated(seed=0)
    layers = [
        sum(each.nbytes for each in layer.state_dict().values()) for layer in model.model.layers
    ]
    first = sum(each.nbytes for each in model.model.embed_tokens.state_dict().values())
    devices = card_map(model, {0: first + 3 * max(layers), 1: 2 * max(layers)})
    assert {str(each) for each in devices.values()} == {"0", "1", "cpu"}
    placed = {name: each for name, each in devices.items() if name.startswith("model.layers.")}
    assert {name.count(".") for name in placed} == {2}  # each layer is a whole
    assert [str(each) for each in placed.values()] == sorted(str(each) for each in placed.values())


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a card")
def test_without_a_card_auto_is_this_machine(folder: Path) -> None:
    made = skipviz.load(folder, device="auto")
    assert made.device == torch.device("cpu")
    assert skipviz.trace(made, "The fox.").run["device"].item() == "cpu"


def test_devices_that_cannot_be_are_said() -> None:
    with pytest.raises(skipviz.ModelError, match="cannot be spread over devices"):
        spread(tiny.gated(seed=0), {"model": "disk"})
