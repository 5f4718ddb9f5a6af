"""The audit against a loop of whole forwards with one decision flipped in each."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn import functional as F

import skipviz
from skipviz.experiments.decision_audit import audit
from skipviz.families.gated.modules import gated_units, install_gates
from tests import tiny
from tests.families.fixed_rates.test_modules import fixed

TEXT = tiny.TEXT[:26]


def naive(
    model: skipviz.SkipModel, trace: skipviz.Trace, cell: tuple[int, int], reach: int, *, held: bool
) -> float:
    """The loss over the horizon of a whole forward in which one decision is the other way."""
    token, site = cell
    execute = trace.matrix("exec_count") > 0
    execute[token, site] = ~execute[token, site]
    forced = np.ones_like(execute)
    if not held:
        forced[:] = False
        forced[:, : site + 1] = True
        forced[:token] = True
        forced[token + 1 :, : site + 1] = True
    ids = torch.tensor([trace.tokens["token_id"].to_list()])
    with torch.no_grad(), model.family.force(model.model, skipviz.Plan(execute, forced)):
        logits = model.model(ids).logits[0]
    losses = F.cross_entropy(logits[:-1].double(), ids[0, 1:], reduction="none")
    return float(losses[token : token + reach].sum())


def gated_of(kind: str) -> Any:
    model = tiny.of_kind(kind)
    install_gates(model, tiny.GATES)
    for _, _, unit in gated_units(model):
        torch.nn.init.normal_(unit.gate.up.weight, std=1.5)
        torch.nn.init.normal_(unit.adapter.up.weight, std=0.3)
    return model


def check(model: skipviz.SkipModel, horizon: int | None, *, held: bool = True) -> None:
    trace = skipviz.trace(model, TEXT)
    length = len(trace) - 1
    found = audit(model, trace, horizon=horizon, downstream="held" if held else "react", rows=64)
    assert found.height == length * trace.sites.height
    executed = trace.matrix("exec_count") > 0
    reach = length if horizon is None else horizon
    assert 0.2 < executed.mean() < 0.98
    for row in found.rows(named=True):
        cell = (row["token"], row["site"])
        flipped = naive(model, trace, cell, reach, held=held)
        assert row["flipped_nll"] == pytest.approx(flipped, abs=1e-4)
        assert row["executed"] == executed[cell]
        sign = 1 if row["executed"] else -1
        assert row["utility"] == pytest.approx(sign * (flipped - row["nll"]), abs=1e-4)
    nll = trace.tokens["nll"].to_numpy()[:-1]
    first = found.filter(site=0)["nll"].to_numpy()
    wanted = [nll[t : t + reach].sum() for t in range(length)]
    np.testing.assert_allclose(first, wanted, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("horizon", [1, 3, None])
@pytest.mark.parametrize("held", [True, False])
def test_it_equals_whole_forwards(
    gated: skipviz.SkipModel, horizon: int | None, held: bool
) -> None:
    check(gated, horizon, held=held)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Mistral", "Qwen2", "Qwen3"])
def test_it_equals_whole_forwards_of_other_models(kind: str) -> None:
    check(skipviz.from_parts(gated_of(kind), tiny.tokenizer()), 1)


@pytest.mark.slow
@pytest.mark.parametrize("held", [True, False])
def test_it_equals_whole_forwards_of_gates_that_draw(held: bool) -> None:
    check(fixed([0.5, 1.0, 0.3, 0.7, 0.5, 0.0, 0.6, 0.4]), 2, held=held)


def test_some_cells_are_those_of_all(gated: skipviz.SkipModel) -> None:
    trace = skipviz.trace(gated, TEXT)
    cells = [(3, 1), (0, 7), (9, 0)]
    some = audit(gated, trace, cells=cells, horizon=2)
    every = audit(gated, trace, horizon=2)
    assert some.select("token", "site").rows() == sorted(cells)
    joined = some.join(every, on=["token", "site"])
    assert (joined["utility"] - joined["utility_right"]).abs().max() < 1e-5


def test_the_memory_setting_changes_nothing(gated: skipviz.SkipModel) -> None:
    trace = skipviz.trace(gated, TEXT)
    few, many = (audit(gated, trace, rows=rows)["utility"].to_numpy() for rows in (1, 10_000))
    np.testing.assert_allclose(few, many, atol=1e-5)


def test_a_stopped_audit_goes_on_where_it_was(gated: skipviz.SkipModel, tmp_path: Path) -> None:
    trace = skipviz.trace(gated, TEXT)
    store, stop = tmp_path / "audit.parquet", threading.Event()
    shares: list[float] = []

    def progress(share: float) -> None:
        shares.append(share)
        if share > 0.4:
            stop.set()

    with pytest.raises(skipviz.Stopped):
        audit(gated, trace, rows=16, store=store, stop=stop, progress=progress)
    done = pl.read_parquet(store).height
    assert 0 < done < (len(trace) - 1) * trace.sites.height
    found = audit(gated, trace, rows=16, store=store)
    assert found.equals(audit(gated, trace, rows=16))
    gated.model.lm_head.forward = None  # only the base run is left, and it needs the head
    with pytest.raises(TypeError):
        audit(gated, trace, rows=16, store=store)


@pytest.mark.parametrize(("rows", "horizon"), [(10_000, 1), (64, 3)])
def test_progress_follows_the_work_unit_by_unit(
    gated: skipviz.SkipModel, rows: int, horizon: int
) -> None:
    trace = skipviz.trace(gated, TEXT)
    shares: list[float] = []
    audit(gated, trace, rows=rows, horizon=horizon, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-2] == pytest.approx(1.0)  # the work was foreseen
    assert len(set(shares)) >= trace.sites.height
    stop = threading.Event()
    stopped: list[float] = []

    def progress(share: float) -> None:
        stopped.append(share)
        stop.set()

    with pytest.raises(skipviz.Stopped):
        audit(gated, trace, rows=rows, horizon=horizon, stop=stop, progress=progress)
    assert len(stopped) == 1
    with pytest.raises(skipviz.Stopped):  # before any flip
        audit(gated, trace, rows=rows, stop=stop, progress=lambda share: None)


def test_the_model_is_left_as_it_was(gated: skipviz.SkipModel) -> None:
    trace = skipviz.trace(gated, TEXT)
    audit(gated, trace)
    assert skipviz.trace(gated, TEXT).tokens["nll"].equals(trace.tokens["nll"])
    assert not any(module._forward_pre_hooks for module in gated.model.modules())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"horizon": 0}, "horizon=0 must be at least 1"),
        ({"cells": [(999, 0)]}, r"no cell \(999, 0\)"),
        ({"cells": [(0, 99)]}, "sites from 0 to 7"),
    ],
)
def test_bad_requests_are_refused(
    gated: skipviz.SkipModel, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        audit(gated, skipviz.trace(gated, TEXT), **options)


def test_what_cannot_be_audited_is_refused(
    gated: skipviz.SkipModel, dense: skipviz.SkipModel
) -> None:
    with pytest.raises(ValueError, match="models with gated units"):
        audit(dense, skipviz.trace(dense, TEXT))
    with pytest.raises(ValueError, match="2 sequences"):
        audit(gated, skipviz.trace(gated, [TEXT, TEXT]))
