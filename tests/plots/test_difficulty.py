from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from skipviz.analysis.layers.difficulty import DIFFICULTIES, depth_by_difficulty, difficulty
from skipviz.analysis.layers.task_depth import TASKS, layers_by_task
from skipviz.plots import difficulty_curve, task_figure
from skipviz.plots.style.palette import layers_used_range
from skipviz.traces import Trace
from tests.synthetic import make_trace


@pytest.fixture
def trace() -> Trace:
    return make_trace(tokens=400, rate=0.6)


def test_difficulties_are_drawn_on_one_axis(trace: Trace) -> None:
    parts = depth_by_difficulty(difficulty(trace))
    for measure in DIFFICULTIES:
        figure = difficulty_curve(trace, parts, measure=measure)
        part = parts.filter(measure=measure)
        assert list(figure.data[0].y) == part["layers"].to_list()
        low, high = figure.layout.yaxis.range
        assert low < min(parts["layers"])
        assert high > max(parts["layers"])
        assert figure.layout.xaxis.title.text.replace("<br>", " ") == DIFFICULTIES[measure]
    assert list(difficulty_curve(trace, parts, measure="token_before").data[0].x) == ["no", "yes"]
    seen = parts.filter(measure="token_before")
    for value, label in ((0.0, "no"), (1.0, "yes")):
        figure = difficulty_curve(trace, seen.filter(value=value), measure="token_before")
        assert list(figure.data[0].x) == [label]
    empty = difficulty_curve(trace, parts.clear(), measure="nll")
    assert "Unknown" in empty.layout.annotations[0].text
    with pytest.raises(ValueError, match="measure='other' is not one of"):
        difficulty_curve(trace, parts, measure="other")


def test_intervals_stay_within_the_layers_there_are(trace: Trace) -> None:
    fewest, most = layers_used_range(trace)
    parts = pl.DataFrame(
        {"measure": "nll", "part": [0, 1, 2], "value": [1.0, 2.0, 3.0], "tokens": 20,
         "layers": [fewest + 1, most - 1, 4.0], "margin": [9.0, 9.0, None]}
    )  # fmt: skip
    figure = difficulty_curve(trace, parts, measure="nll")
    drawn = figure.data[0]
    assert drawn.error_y.arrayminus[0] == 1
    assert drawn.error_y.array[1] == 1
    assert drawn.error_y.array[2] is None
    assert drawn.customdata[2][1].startswith("<br>no interval")
    assert drawn.marker.symbol == ("circle", "circle", "circle-open")
    assert figure.layout.yaxis.range == (fewest - 1, most + 1)
    assert figure.layout.yaxis.title.text.replace("<br>", " ") == "layers used (95% interval)"
    without = difficulty_curve(trace, parts.tail(1), measure="nll")
    assert without.layout.yaxis.title.text == "layers used"


def test_tasks_are_drawn_beside_what_was_published(trace: Trace) -> None:
    used = np.random.default_rng(0).normal(4, 0.5, 48)
    prompts = pl.DataFrame({"task": np.repeat(TASKS, 8).tolist(), "layers": used, "nll": 1.0})
    table = layers_by_task(prompts, layers=6)
    figure = task_figure(trace, table)
    mine, theirs = figure.data
    assert list(mine.x) == pytest.approx((table["layers"] / 6).to_list())
    ends = np.array(mine.x) + np.array(mine.error_x.array)
    assert ends == pytest.approx((table["high"] / 6).to_numpy())
    assert list(theirs.x) == table["published_share"].to_list()
    assert "published" in theirs.name
