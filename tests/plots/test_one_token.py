from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from skipviz.plots import next_tokens, token_path
from tests.synthetic import make_trace


def named(figure: go.Figure, name: str) -> Any:
    return next(t for t in figure.data if t.name == name)


@pytest.mark.parametrize("polarity", [1, -1])
def test_path_shows_each_site_at_its_layer_and_distance(polarity: int) -> None:
    trace = make_trace(seed=1, tokens=30, polarity=polarity)
    token = 7
    figure = token_path(trace, token)
    margin = polarity * (trace.matrix("score")[token] - trace.matrix("threshold")[token])
    for unit, name in (("attn", "attention"), ("mlp", "MLP")):
        for ran in (True, False):
            sites = trace.sites.filter(unit=unit)
            index = sites["site"].to_numpy()
            chosen = (trace.matrix("exec_count")[token, index] > 0) == ran
            markers = named(figure, f"{name} {'ran' if ran else 'skipped'}")
            np.testing.assert_array_equal(markers.x, sites["layer"].to_numpy()[chosen])
            np.testing.assert_array_equal(markers.y, margin[index][chosen])
            assert (np.asarray(markers.y) > 0).all() == ran or not chosen.any()
    stems = np.stack([figure.data[0].x, figure.data[0].y], axis=1).reshape(4, 3, 2)
    attention = margin[::2]
    np.testing.assert_array_equal(stems[:, :2, 0], [[1, 1], [2, 2], [3, 3], [4, 4]])
    np.testing.assert_allclose(stems[:, :2, 1], np.stack([0 * attention, attention], axis=1))
    assert np.isnan(stems[:, 2]).all(), "stems do not touch"
    always = [t for t in figure.data if t.name == "always runs (no gate)"]
    assert [list(t.x) for t in always] == [[0, 5], [0, 5]]
    symbols = {named(figure, f"attention {how}").marker.symbol for how in ("ran", "skipped")}
    assert len(symbols) == 2, "told apart without colour"


def test_path_names_token_and_layers() -> None:
    trace = make_trace(tokens=30)
    title = token_path(trace, 2).layout.title.text
    assert "&lt;b&gt;bold" in title
    assert f"{trace.tokens['layers_used'][2]:g}<br>of 6 layers" in title


def test_path_keeps_its_scale_unless_the_token_is_far_outside() -> None:
    trace = make_trace(tokens=200)
    trace.matrices["score"].setflags(write=True)
    trace.matrices["score"][0, 0] = trace.matrices["threshold"][0, 0] + 500
    margins = np.abs(trace.matrix("score") - trace.matrix("threshold"))
    calm = np.flatnonzero(margins.max(axis=1) < 0.9 * np.quantile(margins, 0.99))[:2]
    ranges = {token_path(trace, int(token)).layout.yaxis.range for token in calm}
    assert len(ranges) == 1
    assert max(ranges.pop()) < 50
    assert token_path(trace, 0).layout.yaxis.range[1] > 500


def test_path_says_what_was_forced_and_repeated() -> None:
    trace = make_trace(tokens=3, exec_count=2)
    trace.matrices["forced"].setflags(write=True)
    trace.matrices["forced"][1] = True
    outcomes = {row[1] for row in named(token_path(trace, 1), "MLP ran").customdata}
    assert outcomes == {"ran 2 times (forced)"}


def test_path_of_a_dense_model_is_explained() -> None:
    figure = token_path(make_trace(gated=()), 3)
    assert "no gates" in figure.layout.annotations[-1].text


def test_next_tokens_are_in_order_and_mark_what_came() -> None:
    trace = make_trace(tokens=30)
    tokens = trace.tokens
    ids = tokens["top_ids"].to_numpy().copy()
    ids[4] = [11, 12, 13, 14, 15]
    ids[4, 2] = tokens["token_id"][5]
    changed = type(trace)(
        run=trace.run,
        sites=trace.sites,
        tokens=tokens.with_columns(top_ids=ids),
        matrices=trace.matrices,
    )
    figure = next_tokens(changed, 4)
    came, other = named(figure, "came next"), named(figure, "other")
    probabilities = tokens["top_probs"][4].to_numpy()
    assert list(came.y) == [2]
    assert list(other.y) == [0, 1, 3, 4]
    np.testing.assert_array_equal(other.x, probabilities[[0, 1, 3, 4]])
    assert figure.layout.yaxis.range == (4.5, -0.5), "the likeliest on top"
    assert figure.layout.xaxis.range == (0.0, 1.0)
    assert len(figure.layout.yaxis.ticktext) == 5
    assert "<" not in "".join(figure.layout.yaxis.ticktext)


def test_nothing_came_after_the_end_of_a_text() -> None:
    trace = make_trace(tokens=30, sequences=2)
    for last in (14, 29):
        figure = next_tokens(trace, last)
        assert "the end<br>of the text" in figure.layout.title.text
        assert [t.name for t in figure.data] == ["other"]
    assert "the end" not in next_tokens(trace, 13).layout.title.text


def test_missing_places_of_a_small_vocabulary_are_left_out() -> None:
    trace = make_trace(tokens=3)
    ids = trace.tokens["top_ids"].to_numpy().copy()
    ids[0, 3:] = -1
    small = type(trace)(
        run=trace.run,
        sites=trace.sites,
        tokens=trace.tokens.with_columns(top_ids=ids),
        matrices=trace.matrices,
    )
    assert len(next_tokens(small, 0).layout.yaxis.ticktext) == 3


def test_next_tokens_without_statistics_are_explained() -> None:
    figure = next_tokens(make_trace(statistics=False), 0)
    assert "statistics=True" in figure.layout.annotations[0].text


@pytest.mark.parametrize("draw", [token_path, next_tokens])
def test_a_token_that_is_not_there_is_a_sentence(draw: Any) -> None:
    for token in (-1, 40):
        with pytest.raises(ValueError, match=f"no token {token}; choose one from 0 to 39"):
            draw(make_trace(), token)
    with pytest.raises(ValueError, match="0 tokens"):
        draw(make_trace(tokens=0), 0)
