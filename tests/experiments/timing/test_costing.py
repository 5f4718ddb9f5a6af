"""What a text costs: by an injected clock or by what must hold, never by how fast it is."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import skipviz
from skipviz.analysis.timing.measured import TIMED_PARTS
from skipviz.experiments.timing import costing, energy, stopwatch
from skipviz.experiments.timing.handles import runtimes_of
from skipviz.experiments.timing.profile import Parts, profiled
from skipviz.experiments.timing.weights_read import bytes_saved, weights_read
from skipviz.families.fixed_rates.modules import install_rates
from skipviz.progress import Meter, no_progress
from tests import encoders, published, tiny
from tests.hooking import hooks_on

FLAT = 2 * 32 * 32 + 2 * 32 * 16
"""Weights of an attention of ``tiny.backbone``."""


class Counting:
    """A clock that moves on by one each time it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.fixture
def traced(gated: skipviz.SkipModel) -> skipviz.Trace:
    return skipviz.trace(gated, [tiny.TEXT, tiny.TEXT[:40]])


@pytest.fixture(scope="module")
def measured() -> tuple[skipviz.SkipModel, skipviz.Trace, skipviz.Cost]:
    torch.set_num_threads(1)
    model = skipviz.from_parts(tiny.gated(seed=0), tiny.tokenizer(), name="tiny-gated")
    trace = skipviz.trace(model, [tiny.TEXT, tiny.TEXT[:40]])
    return model, trace, skipviz.cost(model, trace, rounds=2, decoded=3)


@pytest.fixture
def found(measured: tuple[skipviz.SkipModel, skipviz.Trace, skipviz.Cost]) -> skipviz.Cost:
    return measured[2]


def test_the_same_weights_run_dense_masked_and_gathered(gated: skipviz.SkipModel) -> None:
    handles, missing = runtimes_of(gated)
    assert list(handles) == ["dense", "masked", "gathered"]
    assert missing == {}
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        found = {name: each.model(ids).logits for name, each in handles.items()}
        wanted = tiny.backbone(seed=0)(ids).logits
    assert torch.equal(found["dense"], wanted)
    torch.testing.assert_close(found["masked"], found["gathered"])
    assert not torch.allclose(found["dense"], found["masked"])
    pointers = [each.model.model.embed_tokens.weight.data_ptr() for each in handles.values()]
    assert len(set(pointers)) == 1
    assert handles["dense"].family.name == "dense"
    assert gated.family.sites(gated.model), "the model itself keeps its gates"


def test_every_runtime_is_timed_on_every_text_in_every_round(
    found: skipviz.Cost, traced: skipviz.Trace
) -> None:
    runs = found.runs
    prefill = runs.filter(phase="prefill")
    assert prefill.height == 2 * 2 * 3
    assert prefill.select("round", "sequence", "runtime").is_duplicated().sum() == 0
    assert (runs["seconds"] > 0).all()
    decode = runs.filter(phase="decode")
    assert decode.height == found.rounds * found.decoded * 3
    used = traced.tokens["layers_used"].to_list()
    for row in decode.to_dicts():
        assert row["layers_used"] == used[row["token"]]
        assert row["tokens"] == 1
    # Each round begins with another runtime than the one before.
    order = prefill.group_by("round", maintain_order=True).agg(pl.col("runtime").first())
    assert order["runtime"].to_list() == ["dense", "masked"]


def test_savings_and_parts_agree_with_the_times(found: skipviz.Cost) -> None:
    assert found.savings.select("phase", "runtime").rows() == [
        (phase, runtime) for phase in ("prefill", "decode") for runtime in ("masked", "gathered")
    ]
    for row in found.savings.to_dicts():
        assert 0 < row["flops_saved"] < 1
        assert row["over_flops"] == pytest.approx(row["time_saved"] / row["flops_saved"])
        assert (row["bytes_saved"] is None) == (row["phase"] == "prefill")
    for phase in ("prefill", "decode"):
        for runtime in ("dense", "masked", "gathered"):
            own = found.parts.filter(phase=phase, runtime=runtime)
            (dense,) = found.savings.filter(phase=phase, runtime="masked").to_dicts()
            (row,) = found.savings.filter(phase=phase, runtime=runtime).to_dicts() or [{}]
            whole = dense["dense_seconds"] * (1 - row.get("time_saved", 0.0))
            assert own["part"].to_list() == list(TIMED_PARTS)
            assert own["seconds"].sum() == pytest.approx(whole)
            assert (own["seconds"] >= 0).all()
    dense = found.parts.filter(runtime="dense", part="gates")
    assert dense["seconds"].to_list() == [0.0, 0.0]
    skipping = found.parts.filter(pl.col("runtime") != "dense")
    for part in ("gates", "adapters", "gathering", "attention", "MLP", "head", "other"):
        assert (skipping.filter(part=part, phase="prefill")["seconds"] > 0).all(), part


def test_no_hook_stays(measured: tuple[skipviz.SkipModel, skipviz.Trace, skipviz.Cost]) -> None:
    assert hooks_on(measured[0].model) == 0


def test_parts_lie_in_each_other_and_add_up() -> None:
    clock = Counting()
    parts = Parts(clock)
    with parts.running():  # reads at 1
        parts.enter("attention")  # 2
        parts.enter("gates")  # 3
        parts.turn("gathering")  # 4
        parts.leave()  # 5
        parts.leave()  # 6
    assert dict(parts.seconds) == {"other": 2.0, "attention": 2.0, "gates": 1.0, "gathering": 1.0}
    assert sum(parts.seconds.values()) == clock.now - 1.0


def test_a_profile_by_an_injected_clock_adds_up(
    gated: skipviz.SkipModel, traced: skipviz.Trace
) -> None:
    handles, _ = runtimes_of(gated)
    texts = costing.texts_of(gated, traced, decoded=2)
    clock = Counting()
    frame = profiled(
        handles, texts, rounds=1, clock=clock, meter=Meter(1, no_progress, None)
    ).filter(phase="decode", runtime="gathered")
    # As many readings as hooks, and one for the end of each step: nothing falls between parts.
    assert frame["seconds"].sum() == pytest.approx(round(frame["seconds"].sum() * 4) / 4)
    assert set(frame["part"]) == set(TIMED_PARTS)


def test_alternating_takes_the_time_around_the_forward(
    gated: skipviz.SkipModel, traced: skipviz.Trace
) -> None:
    texts = costing.texts_of(gated, traced, decoded=2)
    handles, _ = runtimes_of(gated)
    seen: list[float] = []
    runs = stopwatch.alternating(
        handles, texts, rounds=2, clock=Counting(),
        meter=Meter(stopwatch.runs_of(handles, texts, rounds=2), seen.append, None),
    )  # fmt: skip
    assert set(runs["seconds"]) == {1.0}
    assert seen[-1] == 1.0
    assert seen == sorted(seen)


def test_bytes_read_in_decoding(gated: skipviz.SkipModel) -> None:
    sites = len(gated.family.sites(gated.model))
    everything, nothing = (weights_read(gated, np.full(sites, rate)) for rate in (1.0, 0.0))
    assert everything is not None
    assert nothing is not None
    parts = {row["part"]: row for row in everything.to_dicts()}
    own = {name: each.numel() * 4 for name, each in gated.model.named_parameters()}
    assert parts["MLP"]["dense_bytes"] == 6 * 3 * 32 * 64 * 4
    attention = parts["attention projections"]["dense_bytes"]
    assert attention + parts["keys and values"]["dense_bytes"] == 6 * FLAT * 4
    assert parts["gates"]["bytes"] == sum(size for name, size in own.items() if ".gate." in name
                                          and "gate_proj" not in name)  # fmt: skip
    assert bytes_saved(everything) < 0, "gates and adapters are read beside the whole model"
    none = {row["part"]: row["bytes"] for row in nothing.to_dicts()}
    assert none["MLP"] == 2 * 3 * 32 * 64 * 4, "two layers have no gates"
    assert none["keys and values"] == parts["keys and values"]["dense_bytes"]
    assert none["adapters"] > parts["adapters"]["bytes"], "the second matrix is read by skipping"


def test_fixed_rates_read_the_adapters_of_skipped_units_alone() -> None:
    own = tiny.backbone(seed=0)
    install_rates(own, tiny.GATES, seed=0)
    model = skipviz.from_parts(own, tiny.tokenizer())
    everything, half = (weights_read(model, np.full(8, rate)) for rate in (1.0, 0.5))
    assert everything is not None
    assert half is not None
    assert bytes_saved(everything) == 0
    adapters = sum(each.numel() * 4 for name, each in own.named_parameters() if "adapter" in name)
    assert half.filter(part="adapters")["bytes"].item() == adapters / 2


def test_a_dense_model_has_nothing_to_save(dense: skipviz.SkipModel) -> None:
    found = skipviz.cost(dense, skipviz.trace(dense, tiny.TEXT), rounds=1, decoded=1)
    assert set(found.runs["runtime"]) == {"dense"}
    assert found.savings.is_empty()
    assert set(found.parts["runtime"]) == {"dense"}


def test_a_family_of_others_is_timed_and_the_rest_is_unknown() -> None:
    model = skipviz.from_parts(published.flexidepth(), tiny.tokenizer(), name="theirs")
    found = skipviz.cost(model, skipviz.trace(model, tiny.TEXT), rounds=1, decoded=2)
    assert set(found.runs["runtime"]) == {"masked"}
    assert found.savings.is_empty()
    assert found.parts.is_empty()
    assert {"dense", "gathered", "parts"} <= set(found.unknown)
    assert "flexidepth" in found.unknown["gathered"]
    for each in found.figures["savings"] or []:
        assert each["over_flops"] is None


def test_what_cannot_be_timed_says_so(gated: skipviz.SkipModel, traced: skipviz.Trace) -> None:
    with pytest.raises(skipviz.InputError, match="rounds=0"):
        skipviz.cost(gated, traced, rounds=0)
    ids = [5, 6, 7, 8, 9]
    forced = skipviz.trace(gated, ids, plan=skipviz.Plan(np.ones((5, 8), dtype=np.bool_)))
    with pytest.raises(skipviz.InputError, match="forced by a plan"):
        skipviz.cost(gated, forced)
    other = traced.run.with_columns(budget=pl.lit(0.3))
    changed = skipviz.Trace(
        run=other, sites=traced.sites, tokens=traced.tokens, matrices=traced.matrices
    )
    with pytest.raises(skipviz.InputError, match=r"under budget=0\.3 and the model under"):
        skipviz.cost(gated, changed)
    dense = skipviz.from_parts(tiny.backbone(seed=0), tiny.tokenizer(), name="dense")
    with pytest.raises(skipviz.InputError, match="has 8 sites"):
        skipviz.cost(dense, traced)


def test_a_trace_under_other_decisions_is_not_timed(
    gated: skipviz.SkipModel, traced: skipviz.Trace
) -> None:
    setting = gated.family.at_thresholds(gated.model, [0.9] * 8)
    moved = gated.under(setting, budget=gated.budget)
    with pytest.raises(skipviz.InputError, match="at other thresholds"):
        skipviz.cost(moved, traced)
    with pytest.raises(skipviz.InputError, match="under policy=learned and the model under"):
        skipviz.cost(replace(gated, policy="mine"), traced)
    labels = traced.sites.with_columns(pl.col("label").reverse())
    relabelled = replace(traced, sites=labels)
    with pytest.raises(skipviz.InputError, match="of other sites"):
        skipviz.cost(gated, relabelled)


def test_encoders_are_refused_in_a_sentence() -> None:
    model = skipviz.from_parts(encoders.pabee(), tiny.tokenizer(), name="pabee")
    with pytest.raises(skipviz.InputError, match="pabee reads a text as a whole"):
        skipviz.cost(model, skipviz.trace(model, tiny.TEXT))


def test_a_forward_is_named_for_what_its_sites_say() -> None:
    routed = skipviz.from_parts(published.mixture_of_depths(), tiny.tokenizer(), name="routed")
    handles, missing = runtimes_of(routed)
    assert list(handles) == ["gathered"]
    assert "computes only what is not skipped" in missing["masked"]
    discards = skipviz.from_parts(published.skipgpt(), tiny.tokenizer(), name="discards")
    assert list(runtimes_of(discards)[0]) == ["masked"]


class Zeus:
    """The interface of ``zeus.monitor.ZeusMonitor`` that is used, on counters made up."""

    joules = 0.0

    def __init__(self, gpu_indices: list[int] | None = None) -> None:
        self.gpu_indices = gpu_indices or []
        self.cpu_indices = [0]
        self.open: dict[str, float] = {}

    def begin_window(self, key: str, sync_execution: bool = True, restart: bool = False) -> None:
        assert restart or key not in self.open
        self.open[key] = Zeus.joules

    def end_window(self, key: str) -> Any:
        spent = Zeus.joules - self.open.pop(key)
        return SimpleNamespace(gpu_energy={}, cpu_energy={0: spent}, dram_energy={0: spent / 2})


@pytest.fixture
def zeus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zeus", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "zeus.monitor", SimpleNamespace(ZeusMonitor=Zeus))

    def spending(model: Any, ids: Any, *, cache: bool) -> Any:
        Zeus.joules += ids.shape[1]
        return stopwatch.prefill(model, ids, cache=cache)

    monkeypatch.setattr(energy, "prefill", spending)


@pytest.mark.slow
@pytest.mark.usefixtures("zeus")
def test_energy_is_counted_where_the_hardware_does(
    gated: skipviz.SkipModel, traced: skipviz.Trace
) -> None:
    found = skipviz.cost(gated, traced, rounds=2, decoded=1)
    mean = len(traced) / 2
    assert found.energy["joules"].to_list() == [1.5 * mean] * 3
    assert found.energy["measured"].all()
    assert "RAPL" in found.energy["source"][0]
    assert "energy" not in found.unknown


@pytest.mark.slow
def test_without_counters_energy_is_an_estimate_that_says_so(
    gated: skipviz.SkipModel, traced: skipviz.Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zeus", None)
    found = skipviz.cost(gated, traced, rounds=1, decoded=1, watts=100.0)
    assert not found.energy["measured"].any()
    assert found.energy["source"].str.contains("an estimate: 100 W, as given").all()
    assert "pip install 'skipviz[energy]'" in found.unknown["energy"]
    seconds = found.runs.filter(phase="prefill", runtime="dense")["seconds"].mean()
    joules = found.energy.filter(phase="prefill", runtime="dense")["joules"].item()
    assert joules == pytest.approx(100.0 * seconds)


def test_nothing_to_read_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    none = SimpleNamespace(gpu_indices=[], cpu_indices=[])
    monkeypatch.setitem(sys.modules, "zeus", SimpleNamespace())
    module = SimpleNamespace(ZeusMonitor=lambda **_: none)
    monkeypatch.setitem(sys.modules, "zeus.monitor", module)
    with pytest.raises(skipviz.ModelError, match="No energy can be read here"):
        energy.energy_meter(torch.device("cpu"))
