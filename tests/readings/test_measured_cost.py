"""The sentences of the page Cost."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from skipviz.analysis.timing.latency import latencies
from skipviz.analysis.timing.parts import flops_by_part
from skipviz.analysis.timing.savings import WorkSaved, savings
from skipviz.readings.measured_cost import (
    bench_reading,
    energy_reading,
    flops_reading,
    gate_reading,
    latency_reading,
    lost_reading,
    masked_reading,
    profile_reading,
    saving_reading,
)
from tests.plots.test_timing import BENCHES, planted_cost, planted_runs
from tests.synthetic import make_trace


def test_flops_come_with_their_part() -> None:
    parts = flops_by_part(make_trace(exec_count=0, gate=0, skip=0))
    said = flops_reading(parts)
    assert said.startswith("The decisions save ")
    assert "the largest part in the MLP (" in said
    assert "% of the dense FLOPs)" in said
    assert "a measured prefill makes the logits of a text's last token alone" in said
    assert "Gates and adapters" not in said
    more = flops_reading(flops_by_part(make_trace(exec_count=1, gate=9_999)))
    assert "more FLOPs than the dense model" in more
    assert "the largest part" not in more


def test_the_answer_comes_first_with_its_interval() -> None:
    said = saving_reading(planted_cost(), "prefill")
    assert said.startswith(
        "In prefill, gathered, skipping 40% of the FLOPs saved 20% of the time here: **0.5"
    )
    assert "95% interval 0.4" in said
    assert "7 rounds" in said
    assert "30% of the weights read saved" in saving_reading(planted_cost(), "decode")
    unknown = savings(planted_runs(), {"decode": WorkSaved(flops=0.4)})
    assert "40% of the FLOPs saved" in saving_reading(planted_cost(savings=unknown), "decode")


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (WorkSaved(flops=None), "what skipping could save is unknown"),
        (WorkSaved(flops=0.001), "save 0.1% of the FLOPs, too little for a figure"),
    ],
)
def test_nothing_saved_has_no_ratio(work: WorkSaved, words: str) -> None:
    found = planted_cost(savings=savings(planted_runs(), {"prefill": work}))
    said = saving_reading(found, "prefill")
    assert words in said
    assert "**" not in said
    parts = found.parts.with_columns(lost_seconds=pl.lit(-0.001))
    arrived = planted_cost(savings=found.savings, parts=parts)
    assert lost_reading(arrived, "prefill") == "", "of nothing saved nothing can arrive"


def test_what_is_not_there_is_unknown_and_says_why() -> None:
    nothing = planted_cost().savings.clear()
    no_dense = planted_cost(savings=nothing, unknown={"dense": "x"})
    assert "no dense model to compare" in saving_reading(no_dense, "prefill")
    alone = planted_cost(savings=nothing, runs=planted_runs().filter(phase="prefill"))
    assert "no gates" in saving_reading(alone, "prefill")
    assert "no token was decoded" in saving_reading(alone, "decode")
    empty = planted_cost(parts=planted_cost().parts.clear(), energy=planted_cost().energy.clear(),
                         unknown={"energy": "Install it."})  # fmt: skip
    assert lost_reading(empty, "prefill") == ""
    assert gate_reading(empty) == ""
    assert energy_reading(empty) == "The energy is unknown. Install it."


def test_slower_than_dense_is_said_so() -> None:
    slow = planted_runs().filter(pl.col("runtime") != "gathered")
    work = {"prefill": WorkSaved(flops=0.4)}
    said = saving_reading(planted_cost(savings=savings(slow, work)), "prefill")
    assert "masked, skipping 40% of the FLOPs took 10% longer here: no saving" in said
    assert "no saving arrived; time saved over work saved is -0.2" in said


def test_masked_gates_losses() -> None:
    found = planted_cost()
    assert "takes 1.10 of the dense time in prefill and 1.05" in masked_reading(found)
    assert gate_reading(found).startswith("The gates take 11")
    said = lost_reading(found, "prefill")
    assert said.startswith("In prefill 20.")
    assert "gathering +11.4%" in said
    assert profile_reading(found).startswith("Splitting the time takes time: 1.2")
    everything = found.parts.with_columns(lost_seconds=pl.lit(-0.001))
    arrived = lost_reading(planted_cost(parts=everything), "prefill")
    assert arrived == "In prefill all of the saving arrived."


def test_latency_names_the_control() -> None:
    said = latency_reading(planted_cost(), "decode")
    assert "Layers used explain 100% of that" in said
    assert "in the dense model, where they cannot, " in said
    assert "The slowest hundredth take" in said
    texts = planted_runs().filter(phase="decode").with_columns(phase=pl.lit("prefill"))
    said = latency_reading(planted_cost(latency=latencies(texts)), "prefill")
    assert "layers used per token where all" in said, "a text's is the mean of its tokens"
    flat = planted_runs().with_columns(layers_used=pl.lit(np.nan))
    unknown = latency_reading(planted_cost(latency=latencies(flat)), "decode")
    assert "How far depth predicts it is unknown" in unknown


def test_energy_says_whether_it_was_measured() -> None:
    said = energy_reading(planted_cost(unknown={"energy": "Install zeus."}))
    assert said.startswith("An estimate, not measured: a text takes dense 8.")
    assert "1 busy thread at 8 W each, which is assumed" in said
    assert said.endswith("Install zeus.")
    counted = planted_cost().energy.with_columns(
        measured=pl.lit(True), source=pl.lit("counted by the processor (RAPL)")
    )
    assert "counted by the processor (RAPL)." in energy_reading(planted_cost(energy=counted))


def test_a_bench_names_best_and_worst() -> None:
    said = bench_reading(BENCHES)
    assert said.startswith("Skipping is faster than the dense model in ")
    assert "Best is 0.82 of the dense time (on One, 2 cores, torch 2.13, prefill, batch 1, " in said
    assert "128 tokens, budget 0.65" in said
    assert "worst 0.99" in said
    alone = bench_reading(BENCHES.filter(cpu="One"))
    assert "(prefill, batch 1, 128 tokens" in alone
    other = BENCHES.filter(cpu="One").with_columns(model=pl.lit("other"))
    assert "(synthetic, prefill" in bench_reading(pl.concat([BENCHES.filter(cpu="One"), other]))
    assert "no gates, so there is nothing to save" in bench_reading(BENCHES.filter(runtime="dense"))
    unknown = BENCHES.with_columns(time_over_dense=pl.lit(None, dtype=pl.Float64))
    assert "no row has a dense model" in bench_reading(unknown)
