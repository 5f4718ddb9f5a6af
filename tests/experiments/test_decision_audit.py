"""The audit against a loop of whole forwards with one decision flipped in each."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import torch
from torch.nn import functional as F

import skipviz
from skipviz.experiments import flips as flips_module
from skipviz.experiments.decision_audit import audit
from skipviz.experiments.score_rounding import score_rounding
from skipviz.families.gated.modules import gated_units, install_gates
from tests import tiny
from tests.families.fixed_rates.test_modules import fixed
from tests.hooking import hooks_on

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
    assert hooks_on(gated.model) == 0


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


def react_scores(
    model: skipviz.SkipModel, trace: skipviz.Trace, cell: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Scores of a whole forward in which one decision is flipped and later gates decide anew."""
    token, site = cell
    execute = trace.matrix("exec_count") > 0
    execute[token, site] = ~execute[token, site]
    forced = np.zeros_like(execute)
    forced[:token] = True
    forced[token:, : site + 1] = True
    text = "".join(trace.tokens["text"])
    return skipviz.trace(model, text, plan=skipviz.Plan(execute, forced)).matrix("score")


@pytest.mark.slow
@pytest.mark.parametrize("horizon", [1, None])
@pytest.mark.parametrize("way", ["rows", "decoding"])
def test_the_smallest_later_margin_is_that_of_whole_forwards(
    gated: skipviz.SkipModel, horizon: int | None, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = flips_module._ByRows if way == "rows" else flips_module._ByDecoding
    monkeypatch.setattr(flips_module, "_way", lambda *_: chosen)
    trace = skipviz.trace(gated, TEXT)
    last, sites = len(trace) - 1, trace.sites.height
    cells = [(token, site) for token in (0, 4, last - 1) for site in range(sites)]
    found = audit(gated, trace, cells=cells, horizon=horizon, downstream="react")
    for row in found.rows(named=True):
        token, site = cell = (row["token"], row["site"])
        until = last if horizon is None else token + horizon
        margins = react_scores(gated, trace, cell) - trace.matrix("threshold")
        later = np.abs(margins[token:until, site + 1 :])
        if later.size:
            assert row["later_margin"] == pytest.approx(later.min(), abs=1e-5)
            assert row["by_rounding"] is False
        else:
            assert row["later_margin"] is row["by_rounding"] is None
    held = audit(gated, trace, cells=cells, horizon=horizon)
    assert held["later_margin"].null_count() == held["by_rounding"].null_count() == held.height


@pytest.mark.slow
def test_what_rounding_decides_is_marked(gated: skipviz.SkipModel, tmp_path: Path) -> None:
    trace, cell = skipviz.trace(gated, TEXT), (4, 0)
    last = list(gated_units(gated.model))[-1][2].decide
    # Nothing below the last gate depends on its threshold.
    score = react_scores(gated, trace, cell)[cell[0], -1]
    last.threshold.fill_(float(np.nextafter(score, np.float32(np.inf))))
    near = skipviz.trace(gated, TEXT)
    store = tmp_path / "cells.parquet"
    for _ in range(2):  # the second time from the store
        found = audit(gated, near, cells=[cell, (4, 7)], downstream="react", store=store)
        assert found["by_rounding"].to_list() == [True, None]
        assert found["later_margin"][0] < 1e-6
    last.threshold.fill_(float(score) + 0.01)
    far = audit(gated, skipviz.trace(gated, TEXT), cells=[cell], downstream="react")
    assert far["by_rounding"].to_list() == [False]


def test_rounding_is_measured(gated: skipviz.SkipModel) -> None:
    trace = skipviz.trace(gated, TEXT)
    found = score_rounding(gated, gated.family.units(gated.model), trace)
    assert found.shape == (trace.sites.height,)
    assert (found > 0).all()
    assert found.max() < 1e-5
    # A score that is off by more than that was computed otherwise.
    moved = trace.matrix("score") + np.float32(0.01)
    off = dataclasses.replace(trace, matrices={**trace.matrices, "score": moved})
    assert score_rounding(gated, gated.family.units(gated.model), off).min() > 0.009
