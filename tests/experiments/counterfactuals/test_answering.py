"""Answers against whole traces under the same plan and thresholds, and whole logits."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import skipviz
from skipviz.analysis.counterfactual import dependent_sites
from skipviz.analysis.flops import cost_summary
from skipviz.analysis.gates.budget_threshold import threshold_for
from skipviz.experiments.counterfactuals import answering, asking, kept_run
from skipviz.families.exits.settings import ExitsAt
from skipviz.families.gated.settings import SiteThresholds
from skipviz.families.powers import Traits
from skipviz.models import at_threshold
from tests import published, tiny
from tests.families.exits.test_family import with_exits
from tests.families.fixed_rates.test_modules import fixed

TEXT = tiny.TEXT[:40]
MIDDLE = 5
"""Of the tokens."""


def whole_logits(
    model: skipviz.SkipModel, trace: skipviz.Trace, plan: skipviz.Plan | None
) -> torch.Tensor:
    ids = torch.tensor([trace.tokens["token_id"].to_list()])
    with torch.no_grad():
        if plan is None:
            logits: torch.Tensor = model.model(ids).logits[0]
        else:
            family: Any = model.family
            with family.force(model.model, plan):
                logits = model.model(ids).logits[0]
    return logits.double()


def check(
    answer: skipviz.WhatIf,
    before: skipviz.Trace,
    model: skipviz.SkipModel,
    wanted: skipviz.SkipModel,
    plan: skipviz.Plan | None,
) -> None:
    """Compare an answer with a new trace, and its figures with those of whole logits."""
    anew = skipviz.trace(wanted, TEXT, plan=plan)
    assert answer.before is before
    assert answer.trace.run.equals(anew.run)
    assert answer.trace.sites.equals(anew.sites)
    for name in ("exec_count", "forced", "threshold"):
        np.testing.assert_array_equal(answer.trace.matrix(name), anew.matrix(name))
    np.testing.assert_allclose(answer.trace.matrix("score"), anew.matrix("score"), atol=1e-5)
    exact = [
        c for c in anew.tokens.columns if c not in ("nll", "surprisal", "entropy", "top_probs")
    ]
    assert answer.trace.tokens.select(exact).equals(anew.tokens.select(exact))
    for name in ("nll", "surprisal", "entropy"):
        np.testing.assert_allclose(answer.trace.tokens[name], anew.tokens[name], atol=1e-5)
    was, now = (
        whole_logits(m, before, p).log_softmax(-1)
        for m, p in (
            (model, skipviz.Plan(before.matrix("exec_count") > 0)),
            (wanted, skipviz.Plan(anew.matrix("exec_count") > 0)),
        )
    )
    kl = (was.exp() * (was - now)).sum(-1).numpy()
    np.testing.assert_allclose(answer.kl, kl, atol=1e-5)
    np.testing.assert_array_equal(answer.same_top, (was.argmax(-1) == now.argmax(-1)).numpy())
    changed = before.matrix("exec_count") != anew.matrix("exec_count")
    assert answer.changed.height == changed.sum() > 0
    assert answer.tokens["asked"].sum() + answer.tokens["downstream"].sum() == changed.sum()
    assert answer.costs[1].loss == pytest.approx(anew.tokens["nll"].mean(), abs=1e-5)
    assert answer.costs[1].budget == cost_summary(anew).budget
    assert max(map(len, repr(answer).splitlines())) <= 100


def plan_of(trace: skipviz.Trace, sites: dict[tuple[int | None, Any], bool]) -> skipviz.Plan:
    execute, forced = trace.matrix("exec_count") > 0, np.zeros(trace.matrix("forced").shape, bool)
    for (token, place), run in sites.items():
        column = trace.sites["label" if isinstance(place, str) else "layer"].to_numpy()
        where = np.ones(len(column), bool) if place is None else column == place
        rows = slice(None) if token is None else [token]
        execute[rows, where], forced[rows, where] = run, True
    return skipviz.Plan(execute, forced)


def ran(trace: skipviz.Trace, token: int | None, place: Any) -> bool:
    return bool(trace.matrix("exec_count")[token, trace.sites["label"].to_list().index(place)])


FLIPS = "the other way"
QUESTIONS: dict[str, dict[tuple[int | None, Any], bool]] = {
    "a cell the other way": {(MIDDLE, "L2.mlp"): False},
    "the first cell the other way": {(0, "L1.attn"): False},
    "the last layer the other way": {(MIDDLE, "L4.attn"): False, (MIDDLE, "L4.mlp"): True},
    "a token": {(MIDDLE, None): False},
    "a layer": {(None, 3): False},
    "a token but for a cell": {(MIDDLE, None): True, (MIDDLE, "L3.attn"): False},
    "everything": {(None, None): True},
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_forced_cells_tokens_and_layers_equal_a_new_trace(
    gated: skipviz.SkipModel, name: str
) -> None:
    trace = skipviz.trace(gated, TEXT)
    sites = {
        (token, place): not ran(trace, token, place) if FLIPS in name else run
        for (token, place), run in QUESTIONS[name].items()
    }
    answer = skipviz.what_if(gated, trace, sites=sites)
    plan = plan_of(trace, sites)
    check(answer, trace, gated, gated, plan)
    by_plan = skipviz.what_if(gated, trace, plan=plan)
    assert by_plan.trace.tokens.equals(answer.trace.tokens)
    assert plan.forced is not None
    where = answer.changed.select("token", "site").to_numpy()
    np.testing.assert_array_equal(
        answer.changed["asked"].to_numpy(), plan.forced[where[:, 0], where[:, 1]]
    )


@pytest.mark.parametrize("threshold", [0.3, -0.4, {"L3.mlp": 0.5}, {2: 0.3, "L4.mlp": -9.0}])
def test_moved_thresholds_equal_a_new_trace(gated: skipviz.SkipModel, threshold: Any) -> None:
    trace = skipviz.trace(gated, TEXT)
    limits = np.zeros(trace.sites.height)
    if isinstance(threshold, dict):
        for place, value in threshold.items():
            column = trace.sites["label" if isinstance(place, str) else "layer"].to_numpy()
            limits[column == place] = value
        wanted = gated.under(SiteThresholds(tuple(limits.tolist())))
    else:
        limits[:] = threshold
        wanted = at_threshold(gated, threshold)
    answer = skipviz.what_if(gated, trace, threshold=threshold)
    check(answer, trace, gated, wanted, None)
    # Asked for is what the old scores would decide; the rest follows from it.
    decided = trace.matrix("score") > limits.astype(np.float32)
    changed = answer.changed.with_row_index()
    for row in changed.rows(named=True):
        otherwise = decided[row["token"], row["site"]] != (
            trace.matrix("exec_count")[row["token"], row["site"]] > 0
        )
        assert row["asked"] == otherwise


def test_a_threshold_and_forced_cells_go_together(gated: skipviz.SkipModel) -> None:
    trace = skipviz.trace(gated, TEXT)
    sites = {(MIDDLE, "L2.mlp"): True, (8, None): False}
    answer = skipviz.what_if(gated, trace, threshold=0.3, sites=sites)
    check(answer, trace, gated, at_threshold(gated, 0.3), plan_of(trace, sites))


@pytest.mark.parametrize("budget", [0.55, 0.8])
def test_a_budget_is_met_on_this_text(gated: skipviz.SkipModel, budget: float) -> None:
    trace = skipviz.trace(gated, tiny.TEXT)
    answer = skipviz.what_if(gated, trace, budget=budget, sites={(3, None): True})
    assert answer.costs[1].budget == pytest.approx(budget, abs=0.02)
    limits = np.unique(answer.trace.matrix("threshold"))
    assert len(limits) == 1
    again = skipviz.trace(
        at_threshold(gated, float(limits[0])), tiny.TEXT, plan=plan_of(trace, {(3, None): True})
    )
    np.testing.assert_array_equal(answer.trace.matrix("exec_count"), again.matrix("exec_count"))
    with pytest.raises(skipviz.InputError, match="out of reach"):
        skipviz.what_if(gated, trace, budget=0.01)


def test_a_budget_asked_again_runs_nothing_and_one_not_met_says_so(
    gated: skipviz.SkipModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = skipviz.trace(gated, tiny.TEXT)
    first = skipviz.what_if(gated, trace, budget=0.8, sites={(3, None): True})
    calls = layers_run(gated)
    monkeypatch.setattr(answering, "NEAR_BUDGET", 1.0)
    again = skipviz.what_if(gated, trace, budget=0.8, sites={(3, None): True})
    assert again.trace is first.trace
    assert again.question == "budget 0.8, all sites run for token 3"
    monkeypatch.setattr(answering, "NEAR_BUDGET", -1.0)
    missed = skipviz.what_if(gated, trace, budget=0.8, sites={(3, None): True})
    found = f"{first.costs[1].budget:.4f}"
    assert missed.question == (
        f"budget 0.8 not met (nearest found {found}), all sites run for token 3"
    )
    assert calls == []
    for other in ({"budget": 0.7, "sites": {(3, None): True}}, {"budget": 0.8}):
        assert skipviz.what_if(gated, trace, **other).trace is not first.trace


def test_how_far_a_first_question_is_never_goes_back(gated: skipviz.SkipModel) -> None:
    trace = skipviz.trace(gated, TEXT)
    for first in (True, False):
        shares: list[float] = []
        sites = {(MIDDLE, None): first}
        skipviz.what_if(gated, trace, sites=sites, progress=shares.append)
        assert shares == sorted(shares)
        assert shares[-1] == 1.0
        assert len(shares) > 2


def test_what_was_run_in_search_of_a_budget_is_not_run_again(
    gated: skipviz.SkipModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = skipviz.trace(gated, tiny.TEXT)
    skipviz.what_if(gated, trace, threshold=0.3)
    tried: list[float] = []

    def search(seen: skipviz.Trace, budget: float) -> float:
        tried.append(threshold_for(seen, budget))
        return tried[-1]

    monkeypatch.setattr(answering, "threshold_for", search)
    calls = layers_run(gated)
    answer = skipviz.what_if(gated, trace, budget=0.8)
    assert answer.question == "budget 0.8"  # the last that was tried is the nearest
    last = len(gated.model.model.layers) - 1
    assert [number for number, _ in calls].count(last) == len(tried)


def test_what_a_plan_made_stays(gated: skipviz.SkipModel) -> None:
    trace = skipviz.trace(gated, TEXT)
    first = skipviz.what_if(gated, trace, sites={(3, "L2.attn"): False, (2, None): True})
    other = not ran(first.trace, 6, "L3.mlp")
    second = skipviz.what_if(gated, first.trace, sites={(6, "L3.mlp"): other})
    both = {(3, "L2.attn"): False, (2, None): True, (6, "L3.mlp"): other}
    check(second, first.trace, gated, gated, plan_of(trace, both))


def described() -> skipviz.SkipModel:
    return skipviz.from_parts(published.flexidepth(), tiny.tokenizer())


def exits() -> skipviz.SkipModel:
    return skipviz.from_parts(with_exits(), tiny.tokenizer())


def drawn() -> skipviz.SkipModel:
    return fixed([0.5, 1.0, 0.3, 0.7, 0.5, 0.0, 0.6, 0.4])


@pytest.mark.parametrize("make", [drawn, exits, described])
def test_other_families_that_can_be_forced(make: Callable[[], skipviz.SkipModel]) -> None:
    model = make()
    trace = skipviz.trace(model, TEXT)
    executed = np.argwhere(trace.matrix("exec_count") > 0)
    token, site = executed[len(executed) // 2]
    layer = int(trace.sites["layer"][int(site)])
    answer = skipviz.what_if(model, trace, sites={(int(token), layer): False})
    sites: dict[tuple[int | None, Any], bool] = {(int(token), layer): False}
    if make is exits:  # both layers of the exit
        sites = {(int(token), n): False for n in ((2, 3) if layer < 4 else (4, 5))}
    check(answer, trace, model, model, plan_of(trace, sites))


def test_thresholds_of_exits() -> None:
    model = exits()
    trace = skipviz.trace(model, TEXT)
    check(
        skipviz.what_if(model, trace, threshold={2: 0.045, 3: 0.045}),
        trace, model, model.under(ExitsAt("confidence", (0.045, 0.06))), None,
    )  # fmt: skip
    with pytest.raises(skipviz.InputError, match="Layers 4 to 5 have one exit"):
        skipviz.what_if(model, trace, threshold={4: 0.5})


def layers_run(model: skipviz.SkipModel) -> list[tuple[int, int]]:
    """Note layer and tokens of every call from now on."""
    calls: list[tuple[int, int]] = []
    for number, layer in enumerate(model.model.model.layers):
        layer.register_forward_hook(
            lambda _, args, out, number=number: calls.append((number, out.shape[1]))
        )
    return calls


def test_only_what_can_differ_is_run_and_a_question_asked_again_runs_nothing(
    gated: skipviz.SkipModel,
) -> None:
    trace = skipviz.trace(gated, TEXT)
    skipviz.what_if(gated, trace, sites={(1, 1): True, (1, 2): False})
    calls = layers_run(gated)
    cell = (MIDDLE, "L3.mlp")
    sites = {cell: not ran(trace, *cell), (9, 4): False}
    answer = skipviz.what_if(gated, trace, sites=sites)
    assert calls == [(number, len(trace) - MIDDLE) for number in (3, 4, 5)]
    assert answer.computed_anew == f"layers 3 to 5, tokens {MIDDLE} to {len(trace) - 1}"
    calls.clear()
    again = skipviz.what_if(gated, trace, sites=dict(reversed(sites.items())))
    assert again.trace is answer.trace
    # A threshold that no score lies past changes nothing, and nothing is run.
    scores = np.sort(np.abs(trace.matrix("score")).ravel())
    same = skipviz.what_if(gated, trace, threshold=float(scores[0]) / 2)
    assert same.changed.is_empty()
    assert not same.kl.any()
    assert calls == []


@pytest.mark.parametrize("why", ["the trial differs", "the family shares more", "memory"])
def test_where_nothing_can_be_reused_everything_is_run(
    gated: skipviz.SkipModel, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "memory":
        monkeypatch.setattr(kept_run, "KEPT_BYTES", 10)
    elif why == "the family shares more":
        traits = Traits(batchable=True, in_backbone=True)
        monkeypatch.setattr(type(gated.family), "traits", lambda self, model: traits)
    else:
        monkeypatch.setattr(kept_run.KeptRun, "_resumes_right", lambda *_: False)
    trace = skipviz.trace(gated, TEXT)
    sites: dict[tuple[int | None, Any], bool]
    sites = {(MIDDLE, "L3.mlp"): not ran(trace, MIDDLE, "L3.mlp")}
    answer = skipviz.what_if(gated, trace, sites=sites)
    assert answer.computed_anew == ""
    check(answer, trace, gated, gated, plan_of(trace, sites))


def test_the_trial_finds_layers_that_share_more_than_hidden_states(
    gated: skipviz.SkipModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    layers = gated.model.model.layers

    def first(module: Any, args: Any, out: torch.Tensor) -> None:
        seen[:] = [out.mean()]

    def later(module: Any, args: Any, out: torch.Tensor) -> torch.Tensor:
        return out + seen[0] * out.shape[1] / 10

    layers[0].register_forward_hook(first)
    layers[4].register_forward_hook(later)
    trace = skipviz.trace(gated, TEXT)
    assert skipviz.what_if(gated, trace, sites={(MIDDLE, "L3.mlp"): False}).computed_anew == ""


def test_weights_that_changed_since_are_seen(gated: skipviz.SkipModel) -> None:
    trace = skipviz.trace(gated, TEXT)
    sites: dict[tuple[int | None, Any], bool] = {(MIDDLE, "L3.mlp"): False}
    skipviz.what_if(gated, trace, sites=sites)
    with torch.no_grad():
        gated.model.model.layers[2].mlp.gate.up.bias += 1.0
    with pytest.raises(skipviz.InputError, match="another model or setting: its scores"):
        skipviz.what_if(gated, trace, sites=sites)


def by_data(gated: skipviz.SkipModel) -> None:
    gated.model.model.layers[2].mlp.gate.up.bias.data += 1.0


def by_data_of_columns(gated: skipviz.SkipModel) -> None:
    named = gated.model.named_parameters()
    projection = next(each for name, each in named if name.endswith("o_proj.weight"))
    projection.data[:, : projection.shape[1] // 4] = 0.0  # a head is silenced


@pytest.mark.parametrize("change", [by_data, by_data_of_columns])
def test_weights_that_changed_where_torch_does_not_count_are_seen(
    gated: skipviz.SkipModel, change: Callable[[skipviz.SkipModel], None]
) -> None:
    trace = skipviz.trace(gated, TEXT)
    sites: dict[tuple[int | None, Any], bool] = {(MIDDLE, "L3.mlp"): False}
    skipviz.what_if(gated, trace, sites=sites)
    change(gated)
    with pytest.raises(skipviz.InputError, match="another model or setting: its scores"):
        skipviz.what_if(gated, trace, sites=sites)


def test_what_is_kept_goes_with_its_trace_and_is_bounded(gated: skipviz.SkipModel) -> None:
    traces = [skipviz.trace(gated, TEXT[start:]) for start in range(asking.RUNS_KEPT + 1)]
    for trace in traces:
        for token in range(3):
            skipviz.what_if(gated, trace, sites={(token, "L3.mlp"): False})
    kept = [asking._MEMORIES[trace] for trace in traces]
    assert [each.run is None for each in kept] == [True] + [False] * asking.RUNS_KEPT
    assert [len(each.answers) for each in kept] == [3] * len(traces)
    gone = weakref.ref(traces[0])
    del trace, traces[0]
    gc.collect()
    assert gone() is None


def test_a_run_that_other_texts_push_out_meanwhile_is_still_used(
    gated: skipviz.SkipModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "RUNS_KEPT", 0)
    trace = skipviz.trace(gated, TEXT)
    cell = (MIDDLE, "L3.mlp")
    answer = skipviz.what_if(gated, trace, sites={cell: not ran(trace, *cell)})
    assert answer.changed["asked"].sum() == 1
    assert asking._MEMORIES[trace].run is None


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({}, "Ask for one thing: sites"),
        ({"threshold": 0.1, "budget": 0.8}, "Ask for one thing"),
        ({"sites": {(0, 1): True}, "plan": skipviz.Plan(np.ones((2, 8), bool))}, "not both"),
        ({"sites": {(0, "L9.mlp"): True}}, "no site 'L9.mlp'. Name a site, such as 'L1.attn'"),
        ({"sites": {(0, 0): True}}, "a layer that has one, 1 to 4"),
        ({"sites": {(99, 1): True}}, "no token 99: tokens go from 0 to"),
        ({"threshold": float("nan")}, "not a number"),
        ({"threshold": 1e308}, "not a number that a score can be above"),
        ({"threshold": {}}, "Ask for one thing"),
        ({"sites": {}}, "Ask for one thing"),
        ({"budget": float("nan")}, r"Budget nan is out of reach: skipping all leaves 0\.\d+ and"),
        ({"plan": skipviz.Plan(np.ones((2, 8), bool))}, "the trace has"),
    ],
)
def test_a_question_that_makes_no_sense_says_what_can_be_asked(
    gated: skipviz.SkipModel, asked: Any, says: str
) -> None:
    trace = skipviz.trace(gated, TEXT)
    with pytest.raises(skipviz.InputError, match=says):
        skipviz.what_if(gated, trace, **asked)


def test_models_and_traces_that_cannot_be_asked(
    gated: skipviz.SkipModel, dense: skipviz.SkipModel
) -> None:
    with pytest.raises(skipviz.InputError, match="cannot be forced, so nothing can be asked"):
        skipviz.what_if(dense, skipviz.trace(dense, TEXT), threshold=0.1)
    rates = drawn()
    traced = skipviz.trace(rates, TEXT)
    with pytest.raises(skipviz.InputError, match=r"has no thresholds to set\. Ask for sites"):
        skipviz.what_if(rates, traced, threshold=0.1)
    with pytest.raises(skipviz.InputError, match=r"budget=0\.5 cannot be asked"):
        skipviz.what_if(rates, traced, budget=0.5)
    several = skipviz.trace(gated, [TEXT, TEXT])
    with pytest.raises(skipviz.InputError, match="of 2 texts"):
        skipviz.what_if(gated, several, threshold=0.1)
    trace = skipviz.trace(gated, TEXT)
    with pytest.raises(skipviz.InputError, match="at other thresholds"):
        skipviz.what_if(at_threshold(gated, 0.4), trace, sites={(0, 1): True})
    first, second = (replace(gated, weights_sha256=digit * 64) for digit in "01")
    with pytest.raises(skipviz.InputError, match="made with other weights"):
        skipviz.what_if(second, skipviz.trace(first, TEXT), threshold=0.1)
    bare = skipviz.trace(gated, TEXT, statistics=False)
    with pytest.raises(skipviz.InputError, match="has no losses"):
        skipviz.what_if(gated, bare, threshold=0.1)


def cone_of(trace: skipviz.Trace, token: int, site: int) -> np.ndarray:
    """Where decisions can depend on one, of shape [tokens, sites]."""
    reach = np.array(dependent_sites(trace.sites, site))
    tokens = np.arange(len(trace))[:, None]
    return np.where(reach == 2, tokens >= token, (reach == 3) | ((reach == 1) & (tokens == token)))


@pytest.mark.parametrize("site", [0, 1, 4])
def test_a_flip_moves_scores_in_its_cone_and_nowhere_else(
    gated: skipviz.SkipModel, site: int
) -> None:
    trace = skipviz.trace(gated, TEXT)
    ran = bool(trace.matrix("exec_count")[MIDDLE, site])
    label = trace.sites["label"][site]
    answer = skipviz.what_if(gated, trace, sites={(MIDDLE, label): not ran})
    cone = cone_of(trace, MIDDLE, site)
    moved = np.abs(answer.trace.matrix("score") - trace.matrix("score")) > 1e-6
    assert not (moved & ~cone).any()
    # No site of the cone is there for nothing: the flip moves scores of each.
    assert (moved.any(axis=0) == cone.any(axis=0)).all()
    assert (moved[MIDDLE + 1 :].any(axis=0) == cone[MIDDLE + 1 :].any(axis=0)).all()


def test_what_others_see_of_a_unit_and_who_shares_a_decision_widen_the_cone(
    gated: skipviz.SkipModel,
) -> None:
    sites = skipviz.trace(gated, TEXT).sites
    reach = dependent_sites(sites, 0)
    assert reach[:4] == [0, 1, 1, 2]
    absent = sites.with_columns(kv=pl.lit("absent"))
    assert dependent_sites(absent, 0)[:4] == [0, 2, 2, 2]
    scopes = ["token"] * 5 + ["sequence"] + ["token"] * (sites.height - 6)
    assert dependent_sites(sites.with_columns(scope=pl.Series(scopes)), 0)[5:] == [3] * (
        sites.height - 5
    )
