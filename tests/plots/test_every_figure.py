"""What holds for every figure that ``skipviz.plots`` offers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import plotly.graph_objects as go
import polars as pl
import pytest

from skipviz import plots
from skipviz.analysis.clusters.clustering import cluster
from skipviz.analysis.clusters.maps import map_profiles
from skipviz.analysis.comparison import compare_traces
from skipviz.analysis.counterfactual import WhatIf
from skipviz.analysis.gates.agreement import beside_flips, worth_of_cells
from skipviz.analysis.gates.quality import judged, quality_by, reliability
from skipviz.analysis.layers.difficulty import depth_by_difficulty, difficulty
from skipviz.analysis.layers.specialties import specialties
from skipviz.analysis.layers.task_depth import TASKS, layers_by_task
from skipviz.analysis.robustness.decision_shift import shift_of_decisions
from skipviz.analysis.robustness.drift import drift
from skipviz.analysis.robustness.tails import tails
from skipviz.analysis.timing.parts import flops_by_part
from skipviz.plots.style.frame import name_what_is_drawn
from skipviz.traces import Trace
from tests.plots.test_frontier import TABLE
from tests.plots.test_timing import BENCHES, planted_cost
from tests.synthetic import make_trace

TRACE = make_trace(tokens=40)


def _cells(trace: Trace) -> pl.DataFrame:
    executed = trace.matrix("exec_count")[:-1] > 0
    token, site = np.indices(executed.shape).reshape(2, -1)
    utility = np.random.default_rng(0).standard_normal(len(token))
    columns = {"token": token, "site": site, "executed": executed.ravel(), "utility": utility}
    return judged(trace, pl.DataFrame(columns))


CELLS = _cells(TRACE)
KIND = pl.Series(["words", "digits"] * 20)
DEPTHS = worth_of_cells(
    TRACE,
    CELLS.select(
        "token", "site", from_skipped=CELLS["utility"] * CELLS["executed"],
        to_all=CELLS["utility"] * ~CELLS["executed"],
    ),
)  # fmt: skip
PROBES = pl.DataFrame(
    {"feature": "kind", "layer": [-1, 0, 1], "part": "all", "tokens": 40, "accuracy": 0.9,
     "majority": 0.5, "control": 0.6, "selectivity": 0.3, "error": 0.1, "groups": 5}
)  # fmt: skip
ATTENTION = pl.DataFrame(
    {"layer": [1, 2], "tokens": 9, "first": 0.5, "own": 0.2, "earlier": 0.3, "paid": 0.1,
     "blind": 0.2, "changed": 0.5}
)  # fmt: skip
TURNED = pl.DataFrame(
    {"layer": [0, 1], "influence": 0.2, "executed": 0.3, "executed_tokens": 7, "skipped": 0.1,
     "skipped_tokens": 3}
)  # fmt: skip
PROMPTS = pl.DataFrame({"task": TASKS * 8, "layers": 4.0, "nll": 1.0})
CORRELATIONS = pl.DataFrame(
    {"scope": ["all", "all", "site", "site"], "layer": [None, None, 1, 1],
     "label": [None, None, "L1.attn", "L1.attn"], "method": "spearman",
     "controlled": [False, True] * 2, "r": 0.2, "r_detrended": 0.2, "low": 0.1, "high": 0.3,
     "p": 0.01, "q": 0.02}
)  # fmt: skip
CLUSTERS = cluster(TRACE)
CHANGES = pl.DataFrame(
    {"kind": "typos", "touched": [True, False] * 20, "unit": [str(i // 4) for i in range(40)],
     "moved": 0.1, "apart": 0.3, "layers_before": 4.0, "layers_after": 3.0, "loss_before": 1.0,
     "loss_after": 2.0}
)  # fmt: skip
ANSWER = WhatIf(
    question="a question",
    before=TRACE,
    trace=make_trace(tokens=40, seed=1),
    asked=np.zeros(TRACE.matrix("score").shape, dtype=bool),
    kl=np.full(40, 0.1),
    computed_anew="",
)
TEXT_POINTS = pl.DataFrame(
    {"asked": [0.5, 0.6], "realised": [0.5, 0.6], "threshold": 0.1, "loss": [4.0, 3.0], "kl": 0.1,
     "same_top": 0.9, "flop_share": 0.8}
)  # fmt: skip
COST = planted_cost()
FIGURES: dict[str, Callable[[], go.Figure]] = {
    "attention_figure": lambda: plots.attention_figure(TRACE, ATTENTION),
    "bench_figure": lambda: plots.bench_figure(BENCHES),
    "change_figure": lambda: plots.change_figure(TRACE, shift_of_decisions(CHANGES)),
    "cluster_criterion": lambda: plots.cluster_criterion(TRACE, CLUSTERS),
    "cluster_map": lambda: plots.cluster_map(TRACE, CLUSTERS.tokens, map_profiles(CLUSTERS, TRACE)),
    "cluster_profiles": lambda: plots.cluster_profiles(TRACE, CLUSTERS.profiles),
    "comparison_figure": lambda: plots.comparison_figure(compare_traces(TRACE, ANSWER.trace)),
    "compute_share_figure": lambda: plots.compute_share_figure(TRACE),
    "correlation_figure": lambda: plots.correlation_figure(
        TRACE, CORRELATIONS, method="spearman", value="utility"
    ),
    "depth_bars": lambda: plots.depth_bars(TRACE, DEPTHS),
    "depth_map": lambda: plots.depth_map(TRACE, DEPTHS, what="the text"),
    "difficulty_curve": lambda: plots.difficulty_curve(
        TRACE, depth_by_difficulty(difficulty(TRACE)), measure="surprisal"
    ),
    "drift_figure": lambda: plots.drift_figure(
        TRACE, drift(*[make_trace(tokens=128)] * 2, permutations=19, seed=0)
    ),
    "execution_rate_by_layer": lambda: plots.execution_rate_by_layer(TRACE),
    "flops_by_part_figure": lambda: plots.flops_by_part_figure(TRACE, flops_by_part(TRACE)),
    "frontier_figure": lambda: plots.frontier_figure(TABLE),
    "influence_bars": lambda: plots.influence_bars(TRACE, TURNED),
    "latency_figure": lambda: plots.latency_figure(TRACE, COST),
    "layer_map": lambda: plots.layer_map(TRACE),
    "layers_used_histogram": lambda: plots.layers_used_histogram(TRACE),
    "loss_change_figure": lambda: plots.loss_change_figure(ANSWER),
    "next_tokens": lambda: plots.next_tokens(TRACE, 3),
    "probe_accuracy": lambda: plots.probe_accuracy(TRACE, PROBES, feature="kind"),
    "probe_selectivity": lambda: plots.probe_selectivity(TRACE, PROBES, feature="kind"),
    "quality_by_class": lambda: plots.quality_by_class(
        TRACE, quality_by(CELLS.with_columns(kind=pl.lit("word")), "kind").with_columns(tokens=20)
    ),
    "ranking_by_layer": lambda: plots.ranking_by_layer(TRACE, quality_by(CELLS, "label")),
    "reliability_figure": lambda: plots.reliability_figure(TRACE, reliability(CELLS)),
    "settled_histogram": lambda: plots.settled_histogram(
        TRACE, pl.DataFrame({"settled": [-1, 5], "exit_depth": [4, 3]})
    ),
    "share_scatter": lambda: plots.share_scatter(TRACE, beside_flips(DEPTHS, CELLS)),
    "specialty_map": lambda: plots.specialty_map(
        TRACE, specialties(TRACE, pl.DataFrame({"kind": KIND}), seed=0), feature="kind"
    ),
    "tails_figure": lambda: plots.tails_figure(TRACE, tails(TRACE)),
    "text_frontier_figure": lambda: plots.text_frontier_figure(TRACE, TEXT_POINTS, chosen=ANSWER),
    "task_figure": lambda: plots.task_figure(TRACE, layers_by_task(PROMPTS, layers=6)),
    "time_by_part_figure": lambda: plots.time_by_part_figure(TRACE, COST, phase="prefill"),
    "token_path": lambda: plots.token_path(TRACE, 3),
    "utility_map": lambda: plots.utility_map(TRACE, CELLS),
}
NO_FIGURES = {"attribution_html", "cluster_text", "token_html", "save_figure"}
"""Coloured text, which has no axes, and what saves a figure."""
QUANTITIES = (
    *("layer", "token", "decisions", "forward pass", "share", "nats", "probability", "score"),
    *("AUROC", "coefficient", "accuracy", "log-odds", "Block Influence", "class", "task"),
    *("change", "document", "cluster", "silhouette", "component", "index", "ms per", "piece"),
)
"""What an axis may be in: its unit, or what is counted along it."""


SHORT = make_trace(tokens=18)
"""In which all tokens are neighbours, so that there is no interval."""
NO_INTERVAL = {"low": pl.lit(None, pl.Float64), "high": pl.lit(None, pl.Float64)}
WITHOUT_INTERVALS: dict[str, Callable[[], go.Figure]] = {
    "bench_figure": lambda: plots.bench_figure(BENCHES.with_columns(**NO_INTERVAL)),
    "difficulty_curve": lambda: plots.difficulty_curve(
        SHORT, depth_by_difficulty(difficulty(SHORT)), measure="surprisal"
    ),
    "frontier_figure": lambda: plots.frontier_figure(
        TABLE.with_columns(pl.lit(None, pl.Float64).alias(f"gap_{end}") for end in ("low", "high"))
    ),
    "probe_selectivity": lambda: plots.probe_selectivity(
        TRACE, PROBES.with_columns(groups=1), feature="kind"
    ),
    "reliability_figure": lambda: plots.reliability_figure(SHORT, reliability(_cells(SHORT))),
    "task_figure": lambda: plots.task_figure(
        TRACE, layers_by_task(PROMPTS, layers=6).with_columns(**NO_INTERVAL)
    ),
}


def _words(figure: go.Figure) -> str:
    """Return what the legend and the axes say."""
    axes = (*figure.select_xaxes(), *figure.select_yaxes())
    return " ".join(
        [each.name for each in figure.data if each.name] + [f"{axis.title.text}" for axis in axes]
    )


@pytest.mark.parametrize("name", WITHOUT_INTERVALS)
def test_intervals_are_named_where_there_are_any(name: str) -> None:
    assert "(95% interval)" in _words(FIGURES[name]())
    figure = WITHOUT_INTERVALS[name]()
    assert "interval" not in _words(figure)
    for each in figure.data:
        drawn = [*(each.error_x.array or ()), *(each.error_y.array or ())]
        assert not [width for width in drawn if width is not None and np.isfinite(width)]


def test_a_legend_names_each_thing_once_where_it_is_drawn() -> None:
    figure = go.Figure([
        go.Scatter(x=[1], y=[None], name="a", legendgroup="a"),
        go.Scatter(x=[1], y=[float("nan")], name="b"),
        go.Bar(x=[1], y=["kind"], name="c", legendgroup="a"),
        go.Bar(x=[2], y=[0.0], name="c", legendgroup="a"),
        go.Scatter(x=[], y=[], name="d"),
        go.Heatmap(z=[[1]]),
    ])  # fmt: skip
    shown = [each.showlegend for each in name_what_is_drawn(figure).data]
    assert shown == [False, False, True, False, False, None]


def test_every_export_is_looked_at_here() -> None:
    assert set(plots.__all__) - NO_FIGURES == set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_figures_say_what_where_and_of_whom(name: str) -> None:
    layout = FIGURES[name]().layout
    assert layout.title.text
    assert layout.meta["provenance"]
    assert layout.meta["provenance"] in layout.title.subtitle.text.replace("<br>", " · ")
    whose = {"frontier_figure": ("tokens",), "bench_figure": ("synthetic", "rows")}
    for word in whose.get(name, ("synthetic", "learned", "40 tokens")):
        assert word in layout.meta["provenance"]


@pytest.mark.parametrize("name", FIGURES)
def test_axes_and_colours_have_names_and_units(name: str) -> None:
    figure = FIGURES[name]()
    # Of axes that move together only the outermost shows its ticks and its name.
    axes = [
        axis
        for axis in (*figure.select_xaxes(), *figure.select_yaxes())
        if axis.matches is None or axis.showticklabels is not False
    ]
    assert len(axes) >= 2
    titles = [axis.title.text for axis in axes]
    if figure.layout.coloraxis.colorscale and figure.layout.coloraxis.showscale is not False:
        titles.append(figure.layout.coloraxis.colorbar.title.text)
    for title in titles:
        assert title
        assert any(quantity in title for quantity in QUANTITIES), title
