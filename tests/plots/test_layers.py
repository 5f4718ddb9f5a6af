from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import polars as pl
import pytest

from skipviz.analysis.difficulty import DIFFICULTIES, depth_by_difficulty, difficulty
from skipviz.analysis.specialties import LEVEL, specialties
from skipviz.analysis.task_depth import TASKS, by_task
from skipviz.plots.layers import (
    attention_figure,
    difficulty_curve,
    influence_bars,
    probe_accuracy,
    probe_selectivity,
    settled_histogram,
    specialty_map,
    task_figure,
)
from skipviz.trace import Trace
from tests.synthetic import make_trace


@pytest.fixture
def trace() -> Trace:
    return make_trace(tokens=400, rate=0.6)


def named(figure: go.Figure, name: str) -> go.Scatter | go.Bar:
    return next(each for each in figure.data if each.name.startswith(name))


def test_the_map_has_the_log_odds_and_marks_what_is_sure(trace: Trace) -> None:
    generator = np.random.default_rng(0)
    ran = trace.matrix("exec_count") > 0
    classes = np.where(ran[:, 3], "<b>runs</b>", generator.choice(["one", "two"], 400))
    table = specialties(trace, pl.DataFrame({"f": classes.tolist()}), seed=0)
    figure = specialty_map(trace, table, feature="f")
    maps = [each for each in figure.data if each.type == "heatmap"]
    dots = [each for each in figure.data if each.type == "scatter"]
    for place, unit in enumerate(["attn", "mlp"]):
        part = table.filter(unit=unit)
        shown = zip(maps[place].x, maps[place].y, maps[place].z, strict=True)
        for (layer, name, odds), row in zip(
            shown, part.sort("layer", "visit").rows(named=True), strict=True
        ):
            assert (layer, odds) == (row["layer"], row["log_odds"])
            assert name == row["class"].replace("<", "&lt;").replace(">", "&gt;")
        assert len(dots[place].x) == part.filter(pl.col("q") < LEVEL).height
    assert len(dots[1].x) > 0
    limits = figure.layout.coloraxis
    assert limits.cmin == -limits.cmax
    with pytest.raises(ValueError, match="choose one of f"):
        specialty_map(trace, table, feature="g")


def test_probes_are_drawn_by_layer_and_part(trace: Trace) -> None:
    generator = np.random.default_rng(0)
    rows = [
        (name, layer, part, 100, *generator.random(4), 0.05)
        for name in ("kind", "casing")
        for layer in range(-1, 6)
        for part in (("all", "executed", "skipped") if layer in (1, 2) else ("all",))
    ]
    schema = ["feature", "layer", "part", "tokens", "accuracy", "majority", "control"]
    table = pl.DataFrame(rows, schema=[*schema, "selectivity", "error"], orient="row")
    whole = table.filter(feature="kind", part="all")
    accuracy = probe_accuracy(trace, table, feature="kind")
    assert list(named(accuracy, "probe").y) == whole["accuracy"].to_list()
    assert list(named(accuracy, "control").y) == whole["control"].to_list()
    assert list(named(accuracy, "always").y) == whole["majority"].to_list()
    assert accuracy.layout.yaxis.title.text == "accuracy on unseen stretches of text"
    several = probe_accuracy(make_trace(tokens=400, sequences=5), table, feature="kind")
    assert several.layout.yaxis.title.text == "accuracy on unseen texts"
    selectivity = probe_selectivity(trace, table, feature="kind")
    assert list(named(selectivity, "all tokens").y) == whole["selectivity"].to_list()
    skipped = table.filter(feature="kind", part="skipped")
    assert list(named(selectivity, "skipped").y) == skipped["selectivity"].to_list()
    assert named(selectivity, "ran").error_y.array[0] == pytest.approx(1.96 * 0.05)


def test_settling_and_influence_are_drawn(trace: Trace) -> None:
    settled = pl.DataFrame({"settled": [-1, 5, 5, 2], "exit_depth": [4, 4, None, 3]})
    bars = named(settled_histogram(trace, settled), "prediction")
    assert dict(zip(bars.x, bars.y, strict=True)) == {-1: 0.25, 2: 0.25, 5: 0.5}
    deepest = named(settled_histogram(trace, settled), "deepest")
    assert dict(zip(deepest.x, deepest.y, strict=True)) == {3: 0.25, 4: 0.5}
    turned = pl.DataFrame(
        {
            "layer": [0, 1],
            "influence": [0.9, 0.2],
            "executed": [None, 0.3],
            "executed_tokens": [None, 7],
            "skipped": [None, 0.1],
            "skipped_tokens": [None, 3],
        }
    )
    figure = influence_bars(trace, turned)
    assert list(named(figure, "ran").y) == [0.3]
    assert list(named(figure, "skipped").y) == [0.1]
    assert list(named(figure, "always").x) == [0]


def test_difficulties_are_drawn_on_one_axis(trace: Trace) -> None:
    parts = depth_by_difficulty(difficulty(trace))
    for measure in DIFFICULTIES:
        figure = difficulty_curve(trace, parts, measure=measure)
        part = parts.filter(measure=measure)
        assert list(figure.data[0].y) == part["layers"].to_list()
        low, high = figure.layout.yaxis.range
        assert low < min(parts["layers"])
        assert high > max(parts["layers"])
        assert figure.layout.xaxis.title.text == DIFFICULTIES[measure]
    assert list(difficulty_curve(trace, parts, measure="token_before").data[0].x) == ["no", "yes"]
    seen = parts.filter(measure="token_before")
    for value, label in ((0.0, "no"), (1.0, "yes")):
        figure = difficulty_curve(trace, seen.filter(value=value), measure="token_before")
        assert list(figure.data[0].x) == [label]
    empty = difficulty_curve(trace, parts.clear(), measure="nll")
    assert "Not known" in empty.layout.annotations[0].text
    with pytest.raises(ValueError, match="measure='other' is not one of"):
        difficulty_curve(trace, parts, measure="other")


def test_attention_and_tasks_are_drawn(trace: Trace) -> None:
    layers = pl.DataFrame(
        {"layer": [1, 2], "tokens": [9, 8], "first": [0.5, 0.4], "own": [0.2, 0.3],
         "earlier": [0.3, 0.3], "paid": [0.1, None], "blind": [0.2, None], "changed": [0.5, 1.5]}
    )  # fmt: skip
    figure = attention_figure(trace, layers)
    assert list(named(figure, "attention paid").y) == [0.1, None]
    assert list(named(figure, "change").y) == [0.5, 1.5]
    used = np.random.default_rng(0).normal(4, 0.5, 48)
    prompts = pl.DataFrame({"task": np.repeat(TASKS, 8).tolist(), "layers": used, "nll": 1.0})
    table = by_task(prompts, layers=6, seed=0)
    figure = task_figure(trace, table)
    mine, theirs = figure.data
    assert list(mine.x) == pytest.approx((table["layers"] / 6).to_list())
    ends = np.array(mine.x) + np.array(mine.error_x.array)
    assert ends == pytest.approx((table["high"] / 6).to_numpy())
    assert list(theirs.x) == table["published_share"].to_list()
    assert "published" in theirs.name
