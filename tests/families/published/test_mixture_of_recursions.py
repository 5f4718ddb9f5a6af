"""Visits of shared layers, against what the recursions note themselves, and planted faults."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

import skipviz
from skipviz.app.components.canvas_payload import payload
from skipviz.families.published import mixture_of_recursions as family
from skipviz.plots.layer_heatmap import layer_map
from skipviz.plots.lenses.traced import traced_lenses
from skipviz.readings.skipping import skipping_notes
from skipviz.traces import running_steps
from tests import recursions, tiny

MODELS: dict[str, dict[str, Any]] = {
    "expert": {"kind": "expert"},
    "expert, shared keys": {"kind": "expert", "sharing": True},
    "token": {"kind": "token"},
    "token, balanced": {"kind": "token", "balancing": "loss_free"},
}
SHARED, VISITS = recursions.SHARED, recursions.RECURSIONS


def wrapped(name: str) -> skipviz.SkipModel:
    made = recursions.mixture_of_recursions(**MODELS[name])
    model = skipviz.from_parts(made, tiny.tokenizer(), name=name)
    assert model.family.name == "mixture-of-recursions"
    return model


def noted(model: skipviz.SkipModel) -> npt.NDArray[np.bool_]:
    """What each recursion ran, once for each layer that it is made of: [tokens, sites]."""
    truth = recursions.truth_of(model.model).numpy()
    return np.repeat(truth, SHARED, axis=0).T


@pytest.mark.parametrize("name", MODELS)
def test_every_visit_is_the_one_that_was_made(name: str) -> None:
    model = wrapped(name)
    ids = model.tokenizer(tiny.TEXT, return_tensors="pt").input_ids
    with torch.inference_mode():
        plain = model.model(ids).logits
    with torch.inference_mode(), skipviz.record(model) as recording:
        assert torch.equal(model.model(ids).logits, plain)
    trace = skipviz.trace(model, tiny.TEXT)
    shared = bool(MODELS[name].get("sharing"))
    assert set(trace.sites["kv"]) == {"shared" if shared else "absent"}
    assert set(trace.sites["computed_anyway"]) == {shared}
    for found in (recording.trace, trace):
        ran = found.matrix("exec_count")
        assert np.array_equal(ran, noted(model))
        assert 0 < ran.mean() < 1
    margin = trace.margin
    known = np.isfinite(margin) & (np.abs(margin) > 1e-6)
    assert np.array_equal((margin > 0)[known], noted(model)[known])
    own = nn.functional.cross_entropy(plain[0, :-1], ids[0, 1:], reduction="none")
    assert np.allclose(trace.tokens["nll"].to_numpy()[:-1], own.numpy(), atol=1e-5)


def test_visits_are_sites_and_depth_is_the_last_run() -> None:
    trace = skipviz.trace(wrapped("expert"), tiny.TEXT)
    assert trace.sites.select("layer", "visit").rows() == [
        (1 + layer, visit) for visit in range(VISITS) for layer in range(SHARED)
    ]
    assert running_steps(trace.sites).tolist() == [1, 2, 3, 4, 5, 6]
    assert trace.run["layers"].item() == 2 + SHARED
    visits = trace.matrix("exec_count")[:, ::SHARED].sum(axis=1)
    used = trace.tokens["layers_used"].to_numpy()
    assert np.array_equal(used, 2 + SHARED * visits)
    depth = trace.tokens["exit_depth"].fill_null(0).to_numpy()
    assert np.array_equal(depth, SHARED * visits)


def test_pages_show_visits_in_running_order() -> None:
    trace = skipviz.trace(wrapped("expert"), tiny.TEXT)
    sent = payload(trace, key="k")
    assert (sent["layers"], sent["rows"]) == (4, 8)
    assert [site["row"] for site in sent["sites"]] == [1, 2, 3, 4, 5, 6]
    assert next(iter(traced_lenses(trace))).ends[1] == 8.0
    shown = layer_map(trace).layout.yaxis.ticktext
    assert shown == ("0", "1", "2", "1.v1", "2.v1", "1.v2", "2.v2", "3")
    token = int(trace.tokens["layers_used"].arg_max() or 0)
    path = skipviz.plots.token_path(trace, token)
    assert sorted(x for each in path.data[1:] for x in each.x) == list(range(8))
    assert [note.label for note in skipping_notes(trace)] == ["not causal", "layers repeat"]


def test_a_token_that_was_not_asked_has_no_score() -> None:
    trace = skipviz.trace(wrapped("expert"), tiny.TEXT)
    ran, score = trace.matrix("exec_count") > 0, trace.matrix("score")
    assert np.isfinite(score[:, :SHARED]).all()
    # Each recursion ranks what the one before took.
    assert np.array_equal(np.isfinite(score[:, SHARED:]), ran[:, :-SHARED])


def test_trace_is_read_back(tmp_path: Any) -> None:
    trace = skipviz.trace(wrapped("token"), tiny.TEXT)
    trace.save(tmp_path / "visits.parquet")
    again = skipviz.Trace.load(tmp_path / "visits.parquet")
    assert again.tokens.equals(trace.tokens)


def test_equal_scores_are_broken_as_the_model_breaks_them() -> None:
    model = wrapped("expert")
    for layer in model.model.model.layers[1:-1]:
        layer.mor_router.router.weight.data.zero_()
    trace = skipviz.trace(model, tiny.TEXT)
    assert np.array_equal(trace.matrix("exec_count"), noted(model))


def test_the_check_up_finds_what_follows_from_ranking_and_no_more() -> None:
    found = skipviz.check(wrapped("expert"), ignore=("SKV012",)).findings
    issues = {each.code for each in found if each.outcome == "issue"}
    passed = {each.code for each in found if each.outcome == "passed"}
    assert issues == {"SKV003", "SKV004"}
    assert {"SKV001", "SKV007", "SKV008", "SKV009", "SKV010"} <= passed


def test_stopping_by_token_is_causal() -> None:
    found = skipviz.check(wrapped("token"), ignore=("SKV012",)).findings
    outcomes = {each.code: each.outcome for each in found}
    assert (outcomes["SKV003"], outcomes["SKV004"], outcomes["SKV010"]) == ("passed",) * 3


@pytest.mark.parametrize("fault", ["lost positions", "a visit early", "polarity", "once"])
def test_a_planted_fault_is_noticed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tell = family._tell_expert

    def faulty(recursions: Any, emitted: Any, kwargs: Any, result: Any, sink: Any) -> None:
        class Sink:
            def on_gate(self, site: int, **given: Any) -> None:
                if fault == "lost positions" and given["ran"].shape[1] < 40:
                    given["positions"] = torch.arange(given["ran"].shape[1])[None]
                if fault == "a visit early":
                    site = (site + SHARED) % (SHARED * VISITS)
                if fault == "polarity":
                    given["ran"] = ~given["ran"]
                if fault == "once":
                    site %= SHARED
                sink.on_gate(site, **given)

        tell(recursions, emitted, kwargs, result, Sink())

    monkeypatch.setattr(family, "_tell_expert", faulty)
    model = wrapped("expert")
    try:
        trace = skipviz.trace(model, tiny.TEXT)
    except skipviz.RecordingError:
        return
    assert not np.array_equal(trace.matrix("exec_count"), noted(model))
