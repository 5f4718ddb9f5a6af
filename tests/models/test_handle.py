from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import pytest
import torch

import skipviz
from skipviz.families.exits.modules import ExitConfig, install_exits
from skipviz.families.exits.settings import ExitAt
from skipviz.families.fixed_rates.modules import install_rates
from skipviz.families.fixed_rates.settings import Rates
from skipviz.families.gated.settings import Threshold
from skipviz.models import at_budget
from tests import tiny
from tests.folders import write_gated


@pytest.fixture
def loaded(tmp_path: Path, tiny_model_folder: Path) -> skipviz.SkipModel:
    return skipviz.load(write_gated(tmp_path / "tiny-gated", backbone=tiny_model_folder))


def thresholds(model: skipviz.SkipModel) -> set[float]:
    return set(skipviz.trace(model, tiny.TEXT).matrix("threshold").ravel().tolist())


def test_a_handle_runs_what_it_says_whatever_is_made_of_it(loaded: skipviz.SkipModel) -> None:
    before = skipviz.trace(loaded, tiny.TEXT)
    other = at_budget(loaded, 0.6)
    assert (loaded.budget, other.budget) == (0.8, 0.6)
    assert (thresholds(loaded), thresholds(other)) == ({0.0}, {0.5})
    again = skipviz.trace(loaded, tiny.TEXT)
    assert again.matrix("score").tobytes() == before.matrix("score").tobytes()
    assert thresholds(at_budget(other, 0.8)) == {0.0}


def test_handles_share_weights_and_nothing_that_is_set(loaded: skipviz.SkipModel) -> None:
    other = at_budget(loaded, 0.6)
    mine, theirs = (dict(each.model.named_parameters()) for each in (loaded, other))
    assert mine.keys() == theirs.keys()
    assert all(mine[name] is theirs[name] for name in mine)
    buffers = [dict(each.model.named_buffers()) for each in (loaded, other)]
    assert not {id(b) for b in buffers[0].values()} & {id(b) for b in buffers[1].values()}


def test_a_guarded_handle_says_its_limit_in_the_trace(loaded: skipviz.SkipModel) -> None:
    guarded = loaded.under(Threshold(0.25), policy="guarded", limit=0.1)
    run = skipviz.trace(guarded, tiny.TEXT).run.row(0, named=True)
    assert (run["policy"], run["limit"], run["budget"]) == ("guarded", 0.1, None)
    assert skipviz.trace(loaded, tiny.TEXT).run["limit"].item() is None
    assert thresholds(loaded) == {0.0}


def test_recorders_are_not_copied_with_the_model(loaded: skipviz.SkipModel) -> None:
    ids = loaded.tokenizer(tiny.TEXT, return_tensors="pt")["input_ids"]
    with skipviz.record(loaded) as recording:
        loaded.model(ids)
        at_budget(loaded, 0.6).model(ids)
    assert len(recording.trace) == ids.shape[1]


def test_handles_run_side_by_side_in_threads(loaded: skipviz.SkipModel) -> None:
    other = at_budget(loaded, 0.6)
    alone = {each.budget: skipviz.trace(each, tiny.TEXT) for each in (loaded, other)}
    found: dict[int, skipviz.Trace] = {}

    def run(number: int) -> None:
        found[number] = skipviz.trace((loaded, other)[number % 2], tiny.TEXT)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, traced in found.items():
        expected = alone[(0.8, 0.6)[number % 2]]
        assert traced.matrix("exec_count").tobytes() == expected.matrix("exec_count").tobytes()


def test_a_copy_of_exits_is_hooked_to_its_own() -> None:
    model = tiny.backbone(seed=0)
    install_exits(model, ExitConfig(exits=(1, 3), adapter_rank=2, head_rank=8))
    stays = skipviz.from_parts(model, tiny.tokenizer())
    leaves = stays.under(ExitAt("confidence", 0.0), policy="confidence")
    assert skipviz.trace(stays, tiny.TEXT).matrix("exec_count").all()
    assert not skipviz.trace(leaves, tiny.TEXT).matrix("exec_count").any()
    assert skipviz.trace(stays, tiny.TEXT).matrix("exec_count").all()


def test_a_copy_of_fixed_rates_draws_as_the_model_it_is_of() -> None:
    model = tiny.backbone(seed=0)
    install_rates(model, dataclasses.replace(tiny.GATES, gate_hidden=0), seed=3)
    every = skipviz.from_parts(model, tiny.tokenizer())
    sites = len(every.family.sites(model))
    half = every.under(Rates((0.5,) * sites), policy="random")
    drawn = skipviz.trace(half, tiny.TEXT).matrix("exec_count")
    assert 0.3 < drawn.mean() < 0.7
    assert (skipviz.trace(half.under(half.setting), tiny.TEXT).matrix("exec_count") == drawn).all()
    assert skipviz.trace(every, tiny.TEXT).matrix("exec_count").all()


def test_a_handle_moves_with_the_weights_it_shares(loaded: skipviz.SkipModel) -> None:
    other = at_budget(loaded, 0.6)
    with torch.no_grad():
        next(loaded.model.parameters()).add_(1.0)
    first, second = (next(each.model.parameters()) for each in (loaded, other))
    assert torch.equal(first, second)


def test_a_handle_that_runs_so_already_is_not_copied(loaded: skipviz.SkipModel) -> None:
    assert at_budget(loaded, 0.8).model is loaded.model
    assert at_budget(loaded, 0.6).model is not loaded.model
