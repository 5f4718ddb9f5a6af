"""Each check passes where it should, and sees the fault that it is for."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

import skipviz
from skipviz.analysis.flops import cost_summary
from skipviz.experiments.checkup.checks import CHECKS
from skipviz.experiments.checkup.running import short_text
from skipviz.experiments.checkup.saving import time_words
from skipviz.experiments.checkup.subject import Subject
from skipviz.families.base import EventSink
from skipviz.families.gated.modules import gated_units
from skipviz.families.powers import Traits
from skipviz.families.published.dr_llm import DrLLM
from skipviz.families.published.flexidepth import FlexiDepth
from skipviz.families.published.mixture_of_depths import MixtureOfDepths
from tests import published, tiny
from tests.families.described.test_described import own_model

SWITCH: dict[str, Any] = {
    "module": "model.layers.{layer}.switch",
    "read": "output.scores",
    "pick": 1,
    "threshold": ":limit",
    "skip_path": "identity",
}


def outcomes(model: Any, family: Any = None) -> dict[str, str]:
    handle = skipviz.from_parts(model, tiny.tokenizer(), name="tried", family=family)
    return {each.code: each.outcome for each in skipviz.check(handle).findings}


def own(**fields: Any) -> dict[str, str]:
    return outcomes(own_model(), skipviz.GateSpec(**SWITCH | fields))


def test_a_sound_model_passes() -> None:
    found = outcomes(tiny.gated(seed=0))
    assert found["SKV010"] == "tip"  # computed anyway, and it says so
    assert {code for code, outcome in found.items() if outcome == "issue"} == set()
    assert len(found) == len(CHECKS)


def test_every_check_of_a_described_model() -> None:
    assert own(executes="low") == {
        "SKV001": "passed", "SKV002": "passed", "SKV003": "passed", "SKV004": "passed",
        "SKV005": "passed", "SKV006": "passed", "SKV007": "passed", "SKV008": "passed",
        "SKV009": "passed", "SKV010": "tip", "SKV011": "passed", "SKV012": "passed",
        "SKV013": "not applicable", "SKV014": "passed",
    }  # fmt: skip


def test_a_polarity_the_wrong_way_round_is_seen() -> None:
    assert own(executes="high")["SKV008"] == "issue"


def test_a_layer_off_by_one_is_seen() -> None:
    class Shifted(FlexiDepth):
        def sites(self, model: nn.Module) -> list[skipviz.Site]:
            from dataclasses import replace

            return [
                replace(site, layer=site.layer - 1, skip_path="identity")
                for site in super().sites(model)
            ]

    assert outcomes(published.flexidepth(), Shifted())["SKV008"] == "issue"


def test_a_wrong_tie_is_seen() -> None:
    spec = skipviz.GateSpec(
        module="model.layers.{layer}.router", rule="topk", k="model.layers.{layer}:capacity",
        skip_path="identity", kv="absent",
    )  # fmt: skip
    found = outcomes(published.mixture_of_depths(), spec)
    assert found["SKV008"] == "issue"
    assert outcomes(published.mixture_of_depths(), MixtureOfDepths())["SKV008"] == "passed"


def test_repeats_that_are_counted_once_are_seen() -> None:
    class Once(DrLLM):
        def observe(self, model: nn.Module, sink: EventSink) -> AbstractContextManager[None]:
            class Capped:
                def on_gate(self, site: int, *, ran: Tensor, **more: Any) -> None:
                    sink.on_gate(site, ran=ran.clamp(max=1), **more)

            return super().observe(model, Capped())

    assert outcomes(published.dr_llm(), Once())["SKV014"] == "issue"
    assert outcomes(published.dr_llm())["SKV014"] == "tip"


def test_a_lost_position_is_seen() -> None:
    class Lost(MixtureOfDepths):
        def observe(self, model: nn.Module, sink: EventSink) -> AbstractContextManager[None]:
            class Rolled:
                def on_gate(self, site: int, **event: Any) -> None:
                    event["ran"] = event["ran"].roll(1, dims=1)
                    sink.on_gate(site, **event)

            return super().observe(model, Rolled())

    assert outcomes(published.mixture_of_depths(), Lost())["SKV007"] == "issue"


def test_a_router_that_looks_ahead_is_seen() -> None:
    found = outcomes(published.mixture_of_depths())
    assert found["SKV003"] == "issue"
    assert found["SKV004"] == "issue"
    assert found["SKV010"] == "passed"  # what it skips is not computed
    assert outcomes(published.router_tuning(level="sequence"))["SKV003"] == "issue"


def test_a_batch_that_changes_decisions_is_seen() -> None:
    class Claims(MixtureOfDepths):
        def traits(self, model: nn.Module) -> Traits:
            return Traits(batchable=True, in_backbone=True)

    assert outcomes(published.mixture_of_depths())["SKV005"] == "tip"
    assert outcomes(published.mixture_of_depths(), Claims())["SKV005"] == "issue"


def test_drawn_decisions_are_seen() -> None:
    found = outcomes(published.skipgpt())
    assert found["SKV006"] == "issue"
    assert found["SKV003"] == found["SKV004"] == found["SKV005"] == "not applicable"


def test_a_recorder_that_changes_something_is_seen() -> None:
    class Meddles(FlexiDepth):
        def observe(self, model: Any, sink: EventSink) -> AbstractContextManager[None]:
            class Sink:
                def on_gate(self, site: int, **event: Any) -> None:
                    model.model.norm.weight.data.mul_(1.001)
                    sink.on_gate(site, **event)

            return super().observe(model, Sink())

    assert outcomes(published.flexidepth(), Meddles())["SKV001"] == "issue"


def test_a_family_that_does_not_force_what_it_is_told_is_seen() -> None:
    class Deaf(FlexiDepth):
        def force(self, model: nn.Module, plan: skipviz.Plan) -> AbstractContextManager[None]:
            return super().force(model, skipviz.Plan(np.ones_like(plan.execute)))

    assert outcomes(published.flexidepth(), Deaf())["SKV002"] == "issue"


def test_units_that_claim_to_be_saved_are_counted() -> None:
    assert own(executes="low", computed_anyway=False)["SKV010"] == "issue"
    assert own(executes="low", computed_anyway=True)["SKV010"] == "tip"


def saving(model: Any, family: Any = None) -> str:
    handle = skipviz.from_parts(model, tiny.tokenizer(), family=family)
    found = skipviz.check(handle, ignore=[each.code for each in CHECKS if each.code != "SKV010"])
    return next(each.evidence for each in found.findings if each.code == "SKV010")


def test_time_is_that_of_own_decisions_over_every_unit_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plans = []

    def seconds(_: Any, plan: np.ndarray) -> float:
        plans.append(plan.all())
        return 0.1 + float(plan.mean())

    monkeypatch.setattr("skipviz.experiments.checkup.subject.Subject.seconds", seconds)
    model = tiny.gated(seed=0)
    said = saving(model)
    handle = skipviz.from_parts(model, tiny.tokenizer())
    trace = skipviz.trace(handle, short_text(handle, None)[0].tolist())
    ratio = f"{(0.1 + (trace.matrix('exec_count') > 0).mean()) / 1.1:.2f}"
    assert f"Time: {ratio} of what running every unit takes ({ratio} to {ratio} in 6 pairs" in said
    assert f"need {cost_summary(trace).flop_share:.0%} of the dense FLOPs" in said
    assert plans.count(True) == plans.count(False) == 7
    assert {plans[0], plans[2]} == {True, False}  # in turns, neither always first


def test_units_that_are_not_run_take_no_time() -> None:
    """MLPs that run sleep: the decisions that are forced are those that are timed."""
    masked = skipviz.from_parts(tiny.gated(seed=0), tiny.tokenizer())
    handle = skipviz.with_runtime(masked, "gathered")

    def sleep(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        time.sleep(0.1 if args[0].numel() else 0)

    gated = [unit for _, kind, unit in gated_units(handle.model) if kind == "mlp"]
    for unit in gated:
        unit.unit.down_proj.register_forward_pre_hook(sleep)
    subject = Subject(model=handle, ids=short_text(handle, None))
    plan = np.ones_like(subject.own.count, dtype=bool)
    assert subject.seconds(plan) > 0.1 * len(gated) > subject.seconds(~plan)


def test_too_short_a_run_tells_no_difference() -> None:
    assert time_words([0.9, 0.95, 1.02]).startswith("Time: these runs are too short to tell")
    assert time_words([0.7, 0.8, 0.9]) == (
        "Time: 0.80 of what running every unit takes (0.70 to 0.90 in 3 pairs of runs of this "
        "text)."
    )
    assert "Time was not measured" in saving(published.mixture_of_depths())


def test_gates_that_never_choose_are_seen() -> None:
    model: Any = tiny.gated(seed=0)
    model.model.layers[1].mlp.gate.up.bias.data.fill_(50.0)
    assert outcomes(model)["SKV011"] == "tip"


def test_a_loss_of_another_model_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from skipviz.experiments.checkup import subject

    traced = subject.trace

    def other(*given: Any, **more: Any) -> skipviz.Trace:
        found = traced(*given, **more)
        tokens = found.tokens.with_columns(pl.col("nll") + 0.01)
        return skipviz.Trace(found.run, found.sites, tokens, found.matrices)

    monkeypatch.setattr(subject, "trace", other)
    assert outcomes(tiny.gated(seed=0))["SKV009"] == "issue"


def test_a_trace_alone_is_checked_for_what_it_shows(gated: skipviz.SkipModel) -> None:
    trace = skipviz.trace(gated, tiny.TEXT)
    found = skipviz.check(trace)
    assert [each.code for each in found.findings] == ["SKV007", "SKV011", "SKV013", "SKV014"]
    assert found.passed
    flipped = trace.sites.with_columns(polarity=pl.lit(-1, dtype=pl.Int64))
    wrong = skipviz.check(skipviz.Trace(trace.run, flipped, trace.tokens, trace.matrices))
    assert not wrong.passed
    assert wrong.findings[0].figure == "100.0% contradict"


def test_codes_are_ignored_by_name(gated: skipviz.SkipModel) -> None:
    found = skipviz.check(gated, tiny.TEXT, ignore=["SKV010"])
    assert next(each for each in found.findings if each.code == "SKV010").outcome == "ignored"
    with pytest.raises(skipviz.InputError, match="There is no check 'SKV999'; there are SKV001"):
        skipviz.check(gated, ignore=["SKV999"])
    with pytest.raises(skipviz.InputError, match="needs at least 8"):
        skipviz.check(gated, "ox")


def test_a_check_that_a_model_breaks_ends_no_other(gated: skipviz.SkipModel) -> None:
    forward: Callable[..., Any] = gated.model.forward

    def fails_without_a_recorder(*given: Any, **more: Any) -> Any:
        if more.get("attention_mask") is not None:
            raise ValueError("no masks")
        return forward(*given, **more)

    gated.model.forward = fails_without_a_recorder
    found = skipviz.check(gated)
    assert next(each for each in found.findings if each.code == "SKV005").figure == "no batches"


def test_findings_are_plain_values(gated: skipviz.SkipModel) -> None:
    found = skipviz.check(gated)
    told = json.loads(json.dumps(found.to_dict()))
    assert told["passed"] is True
    assert len(told["findings"]) == len(CHECKS)
    for each in found.findings:
        assert bool(each.advice) == (each.outcome in ("issue", "tip"))
    assert "CheckUp('tiny-gated'" in repr(found)
    assert torch.is_grad_enabled()


def test_codes_are_kept() -> None:
    assert [check.code for check in CHECKS] == [f"SKV{n:03d}" for n in range(1, len(CHECKS) + 1)]
    assert all(check.of_model or check.of_trace for check in CHECKS)
