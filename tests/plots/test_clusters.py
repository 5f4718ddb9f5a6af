from __future__ import annotations

import re

import numpy as np
import polars as pl
import pytest

from skipviz import plots
from skipviz.analysis.clusters.clustered import Clusters
from skipviz.analysis.clusters.clustering import cluster
from skipviz.analysis.clusters.maps import ClusterMap, map_profiles
from skipviz.plots.clusters import FAINT
from skipviz.plots.style.palette import CLUSTER_COLOURS, NO_CLUSTER_COLOUR, cluster_colour
from skipviz.traces import Trace
from tests.profiles import planted, trace_of, unplanted


@pytest.fixture(scope="module")
def trace() -> Trace:
    return trace_of(planted(0)[0])


@pytest.fixture(scope="module")
def found(trace: Trace) -> Clusters:
    return cluster(trace)


@pytest.fixture(scope="module")
def mapped(trace: Trace, found: Clusters) -> ClusterMap:
    return map_profiles(found, trace)


def left_out(tokens: pl.DataFrame) -> pl.DataFrame:
    """The tokens, those of cluster 1 left out."""
    return tokens.with_columns(cluster=pl.when(pl.col("cluster") != 1).then("cluster"))


@pytest.mark.slow
def test_the_map_has_every_point_in_its_clusters_colour(
    trace: Trace, found: Clusters, mapped: ClusterMap
) -> None:
    figure = plots.cluster_map(trace, found.tokens, mapped)
    assert [part.name for part in figure.data] == [f"cluster {n}" for n in range(4)]
    labels = found.tokens["cluster"].to_list()
    seen = []
    for number, part in enumerate(figure.data):
        assert part.marker.color == CLUSTER_COLOURS[number]
        assert min(part.marker.opacity) > FAINT
        for x, y, (point, *_) in zip(part.x, part.y, part.customdata, strict=True):
            row = mapped.points.row(point, named=True)
            assert (x, y) == (row["x"], row["y"])
            assert labels[row["token"]] == number
            seen.append(point)
    assert sorted(seen) == list(range(240))
    assert len({part.marker.symbol for part in figure.data}) == 4, "colour is not all"
    assert "of<br>the variance" in figure.layout.xaxis.title.text


@pytest.mark.slow
def test_texts_in_the_map_are_no_markup(trace: Trace, found: Clusters, mapped: ClusterMap) -> None:
    hovers = [
        words
        for part in plots.cluster_map(trace, found.tokens, mapped).data
        for _, words, _ in part.customdata
    ]
    assert not any("<b>" in words for words in hovers)
    assert any("&lt;b&gt;" in words for words in hovers)


@pytest.mark.slow
def test_what_is_not_looked_at_is_faint_and_what_is_chosen_is_ringed(
    trace: Trace, found: Clusters, mapped: ClusterMap
) -> None:
    figure = plots.cluster_map(trace, left_out(found.tokens), mapped, lit={3, 5}, marked=7)
    *parts, ring = figure.data
    bright = [
        point
        for part in parts
        for (point, *_), opacity in zip(part.customdata, part.marker.opacity, strict=True)
        if opacity > FAINT
    ]
    assert sorted(bright) == [3, 5]
    assert (parts[-1].name, parts[-1].marker.color) == ("no cluster", NO_CLUSTER_COLOUR)
    row = mapped.points.row(7, named=True)
    assert (ring.x[0], ring.y[0], ring.name) == (row["x"], row["y"], "selected token")


@pytest.mark.slow
def test_the_heatmap_has_every_rate_in_its_place(trace: Trace, found: Clusters) -> None:
    figure = plots.cluster_profiles(trace, found.profiles)
    attention, mlp = figure.data
    for unit, part in (("attn", attention), ("mlp", mlp)):
        for row in found.profiles.filter(unit=unit).iter_rows(named=True):
            at = list(part.x).index(row["layer"])
            assert part.z[row["cluster"]][at] == pytest.approx(row["rate"])
        assert part.y[2].startswith("2 (")
    axis = figure.layout.coloraxis
    assert (axis.cmin, axis.cmax) == (0, 1)


@pytest.mark.slow
def test_the_criterion_is_held_against_both_kinds_of_none(trace: Trace, found: Clusters) -> None:
    figure = plots.cluster_criterion(trace, found)
    lines = {line.name: line for line in figure.data}
    assert list(lines["these tokens"].y) == found.criterion["silhouette"].to_list()
    assert list(lines["shuffled within sites, mean"].y) == found.criterion["shuffled"].to_list()
    high = found.criterion["continuum_high"].to_list()
    assert list(lines["a continuum, 95th percentile"].y) == high
    none = plots.cluster_criterion(trace, cluster(trace_of(unplanted(1))))
    assert len(none.data) == 3, "a continuum was not drawn"


@pytest.mark.slow
def test_the_text_is_coloured_by_cluster_and_stays_text(trace: Trace, found: Clusters) -> None:
    html = plots.cluster_text(trace, left_out(found.tokens))
    assert "<b>" not in html
    assert "&lt;b&gt;bold&lt;/b&gt;" in html
    spans = re.findall(r'<span(?: style="background:(#\w+);color:#\w+")? title="token (\d+)', html)
    labels = left_out(found.tokens)["cluster"].to_list()
    assert len(spans) == trace.tokens["span"].n_unique()
    for colour, token in spans:
        label = labels[int(token)]
        assert colour == ("" if label is None else cluster_colour(label))
    assert f"no cluster: {found.tokens['cluster'].eq(1).sum()} tokens" in html
    assert "first 5 of 240 tokens" in plots.cluster_text(trace, found.tokens, limit=5)
    two = [trace_of(planted(0)[0][:100]), trace_of(planted(0)[0][100:])]
    assert plots.cluster_text(two, found.tokens, limit=240).count('skipviz-source">text 0') == 2


@pytest.mark.slow
def test_what_does_not_fit_gets_a_sentence(trace: Trace, found: Clusters) -> None:
    with pytest.raises(ValueError, match="limit=0"):
        plots.cluster_text(trace, found.tokens, limit=0)
    with pytest.raises(ValueError, match="clusters have 5 tokens and the traces 240"):
        plots.cluster_text(trace, found.tokens.head(5))


def test_cluster_colours_are_told_apart_by_the_colour_blind() -> None:
    """Simulated after Machado, Oliveira and Fernandes (2009), in CIELAB."""
    from_rgb = {
        "protanopia": [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        "deuteranopia": [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
        "tritanopia": [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ],
    }
    colours = np.array([_linear(colour) for colour in CLUSTER_COLOURS])
    for matrix in from_rgb.values():
        seen = _lab(np.clip(colours @ np.array(matrix).T, 0, 1))
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
        assert apart[np.triu_indices(len(seen), 1)].min() > 15


def _linear(colour: str) -> np.ndarray:
    share = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def _lab(linear: np.ndarray) -> np.ndarray:
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack(
        [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=-1
    )
