"""Figures of cost draw the numbers of their frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from skipviz import plots
from skipviz.analysis.timing.bench_rows import BENCH, check_bench
from skipviz.analysis.timing.latency import latencies
from skipviz.analysis.timing.lost import PROFILE, parts_of_time
from skipviz.analysis.timing.measured import RUNS, TIMED_PARTS, Cost, Machine
from skipviz.analysis.timing.parts import flops_by_part, part_totals
from skipviz.analysis.timing.savings import WorkSaved, savings
from skipviz.experiments.timing.energy import estimated_energy
from tests.synthetic import make_trace

MACHINE = Machine(
    cpu="A <b>processor</b>, $x$", cores=2, threads=1, device="cpu", device_name="cpu",
    torch_version="2.13",
)  # fmt: skip
TIMES = {
    "prefill": {"dense": 1.0, "masked": 1.1, "gathered": 0.8},
    "decode": {"dense": 0.020, "masked": 0.021, "gathered": 0.016},
}
WORK = {"prefill": WorkSaved(flops=0.4), "decode": WorkSaved(flops=0.4, weights=0.3)}


def planted_runs(rounds: int = 7) -> pl.DataFrame:
    random = np.random.default_rng(0)
    rows = []
    for number in range(rounds):
        for phase, runtimes in TIMES.items():
            for runtime, seconds in runtimes.items():
                for token in [None] if phase == "prefill" else range(30):
                    depth = 4.0 if token is None else float(3 + token % 3)
                    more = 0.0 if runtime == "dense" else 0.001 * (depth - 4)
                    rows.append(
                        {"round": number, "phase": phase, "runtime": runtime, "sequence": 0,
                         "token": token, "tokens": 40 if token is None else 1,
                         "layers_used": depth, "seconds": seconds * (1 + 0.01 * random.random())
                         + (0.0 if token is None else more)}
                    )  # fmt: skip
    return pl.DataFrame(rows, schema=RUNS)


def planted_cost(**changed: Any) -> Cost:
    """A measurement with all there can be."""
    runs = planted_runs()
    share = {part: 1 / len(TIMED_PARTS) for part in TIMED_PARTS}
    profile = [
        {"phase": phase, "runtime": runtime, "part": part, "seconds": seconds}
        for phase in TIMES
        for runtime in TIMES[phase]
        for part, seconds in share.items()
        if runtime != "dense" or part not in ("gates", "adapters", "gathering")
    ]
    ran = {"attention": 0.6, "MLP": 0.5, "head": 1.0}
    parts = parts_of_time(
        pl.DataFrame(profile, schema=PROFILE), runs, savings(runs, WORK),
        ran={"prefill": ran, "decode": ran},
    )  # fmt: skip
    given: dict[str, Any] = {
        "model": "synthetic", "dtype": "float32", "machine": MACHINE, "rounds": 7, "documents": 1,
        "decoded": 30, "runs": runs, "flops": None, "weights": None,
        "savings": savings(runs, WORK), "latency": latencies(runs), "parts": parts,
        "energy": estimated_energy(runs, MACHINE, watts=None), "unknown": {},
    }  # fmt: skip
    return Cost(**given | changed)


def bench_rows(cpu: str, factor: float) -> pl.DataFrame:
    rows = []
    for length in (128, 512):
        for budget in (0.65, 0.8):
            for phase in ("prefill", "decode"):
                for runtime in ("dense", "masked", "gathered"):
                    ratio = None if runtime == "dense" else factor * (1.0 - (1 - budget) / 2)
                    rows.append(
                        {"model": "synthetic", "weights_sha256": "a" * 64, "cpu": cpu, "cores": 2,
                         "torch_version": "2.13", "device": "cpu", "device_name": "cpu",
                         "threads": 2, "dtype": "float32", "policy": "learned", "budget": budget,
                         "setup_sha256": f"{budget}", "text_sha256": "b" * 64, "batch": 1,
                         "length": length, "decoded": 16, "phase": phase, "runtime": runtime,
                         "rounds": 7, "seconds": 1.0,
                         "dense_seconds": None if ratio is None else 1.0,
                         "time_over_dense": ratio, "low": None if ratio is None else ratio - 0.02,
                         "high": None if ratio is None else ratio + 0.02,
                         "flops_saved": None if ratio is None else 1 - budget,
                         "over_flops": None if ratio is None else (1 - ratio) / (1 - budget)}
                    )  # fmt: skip
    return pl.DataFrame(rows, schema=BENCH)


BENCHES = pl.concat([bench_rows("One", 1.0), bench_rows("Two <i>", 1.1)])


def test_flops_are_drawn_as_they_are() -> None:
    trace = make_trace(tokens=40)
    parts = flops_by_part(trace)
    dense, decided = plots.flops_by_part_figure(trace, parts).data
    totals = part_totals(parts).filter((pl.col("flops") > 0) | (pl.col("dense_flops") > 0))
    assert list(dense.y) == totals["part"].to_list()
    assert list(dense.x) == totals["dense_share"].to_list()
    assert list(decided.x) == totals["share"].to_list()


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_bars_are_as_long_as_the_time_measured(phase: str) -> None:
    figure = plots.time_by_part_figure(make_trace(), planted_cost(), phase=phase)
    lengths = dict.fromkeys(figure.data[0].y, 0.0)
    for bar in figure.data:
        for name, value in zip(bar.y, bar.x, strict=True):
            lengths[name] += value
    assert list(lengths) == ["dense", "masked", "gathered", "ideal"]
    saved = 0.4 if phase == "prefill" else 0.3
    assert lengths["ideal"] == pytest.approx(lengths["dense"] * (1 - saved))
    assert lengths["gathered"] == pytest.approx(1e3 * TIMES[phase]["gathered"], rel=0.02)


def test_what_is_unknown_is_said_in_the_figure() -> None:
    found = planted_cost(parts=planted_cost().parts.clear(), runs=planted_runs().clear())
    figure = plots.time_by_part_figure(make_trace(), found, phase="prefill")
    assert figure.layout.annotations[-1].text == "Unknown for this model."
    figure = plots.latency_figure(make_trace(), found)
    assert figure.layout.annotations[-1].text == "No token was decoded."
    dense = BENCHES.filter(runtime="dense")
    figure = plots.bench_figure(dense)
    assert "No row says" in figure.layout.annotations[-1].text


def test_latency_rises_to_one() -> None:
    for line in plots.latency_figure(make_trace(), planted_cost()).data:
        assert line.y[-1] == 1.0
        assert list(line.x) == sorted(line.x)


def test_machines_stand_side_by_side() -> None:
    check_bench(BENCHES)
    figure = plots.bench_figure(BENCHES, along="length")
    titles = [each.text for each in figure.layout.annotations]
    assert any(text.startswith("One") for text in titles)
    assert any("Two &lt;i&gt;" in text for text in titles)
    assert len(figure.data) == 2 * 2 * 2
    shown = [line for line in figure.data if line.showlegend is not False]
    assert len({line.name for line in shown}) == len(shown) == 4
    (line,) = [each for each in figure.data
               if each.name == "budget 0.65, decode" and each.xaxis == "x2"]  # fmt: skip
    assert list(line.x) == [128, 512]
    assert line.y[0] == pytest.approx(1.1 * (1 - 0.35 / 2))
    along = plots.bench_figure(BENCHES, along="budget")
    assert len(along.data) == 2 * 2 * 2


def test_settings_that_hashes_tell_apart_have_lines_of_their_own() -> None:
    one = bench_rows("One", 1.0)
    later = one.with_columns(pl.col("setup_sha256") + "x")
    other = one.with_columns(text_sha256=pl.lit("c" * 64))
    check_bench(pl.concat([one, later, other]))
    figure = plots.bench_figure(pl.concat([one, later, other]), along="budget")
    assert {len(line.x) for line in figure.data} == {2}
    assert {line.name for line in figure.data} == {
        f"version {version}, text {text}, length {length}, {phase}"
        for version, text in ((1, 1), (2, 1), (1, 2))
        for length in (128, 512)
        for phase in ("prefill", "decode")
    }
