"""Clusters of depth profiles: their map, their profiles, and how many there are."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from skipviz.analysis.clusters.clustered import Clusters
from skipviz.analysis.clusters.maps import ClusterMap
from skipviz.analysis.one_model import traces_of_one_model
from skipviz.plots.style.frame import dress, note, units
from skipviz.plots.style.labels import token_label
from skipviz.plots.style.palette import (
    BLUE,
    CIVIDIS,
    CRIMSON,
    GREEN,
    INK,
    UNIT_NAMES,
    VERMILION,
    cluster_colour,
    scale,
)
from skipviz.traces import Trace

CLUSTER_SYMBOLS = (
    "circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "pentagon",
    "hexagon", "star",
)  # fmt: skip
LEFT_OUT = "no cluster"
RING = CRIMSON
"""Around the selected token: no cluster has this colour, and it shows on white and on black."""
FAINT = 0.12
"""Opacity of points that are not highlighted."""
PROJECTED = {"pca": "PCA", "umap": "UMAP"}


def cluster_name(cluster: int | None) -> str:
    """Return how a cluster is called in figures: ``cluster 0``, ``no cluster``."""
    return LEFT_OUT if cluster is None else f"cluster {cluster}"


def cluster_map(
    traces: Trace | Sequence[Trace],
    tokens: pl.DataFrame,
    mapped: ClusterMap,
    *,
    lit: Collection[int] | None = None,
    marked: int | None = None,
) -> go.Figure:
    """Draw tokens with similar profiles close together, in the colours and shapes of clusters.

    Parameters
    ----------
    traces
        The texts.
    tokens
        Their clusters, ``Clusters.tokens`` or what ``Clusters.assign`` returned.
    mapped
        What ``skipviz.analysis.clusters.maps.map_profiles`` returned.
    lit
        Points that are highlighted, the others being faint; all if None.
    marked
        Point with a ring around it, if any.
    """
    several = traces_of_one_model(traces)
    points = mapped.points.join(
        tokens.select("trace", "token", "cluster", "text"), on=["trace", "token"], how="left"
    ).sort("point")
    figure = go.Figure()
    for cluster in _in_order(points["cluster"]):
        part = points.filter(pl.col("cluster").eq_missing(pl.lit(cluster)))
        bright = [lit is None or point in lit for point in part["point"].to_list()]
        figure.add_trace(
            go.Scatter(
                x=part["x"].to_numpy(),
                y=part["y"].to_numpy(),
                mode="markers",
                name=cluster_name(cluster),
                marker={
                    "color": cluster_colour(cluster),
                    "symbol": CLUSTER_SYMBOLS[
                        0 if cluster is None else cluster % len(CLUSTER_SYMBOLS)
                    ],
                    "size": 7,
                    "opacity": [0.85 if each else FAINT for each in bright],
                    "line": {"width": 0.5, "color": INK},
                },
                customdata=_hover(part),
                hovertemplate="%{customdata[1]}<br>%{customdata[2]}<extra>%{fullData.name}</extra>",
            )
        )
    if marked is not None:
        place = points.filter(point=marked)
        figure.add_trace(
            go.Scatter(
                x=place["x"].to_numpy(),
                y=place["y"].to_numpy(),
                mode="markers",
                name="selected token",
                marker={"symbol": "circle-open", "size": 20, "color": RING, "line": {"width": 3}},
                hoverinfo="skip",
            )
        )
    names = _axes(mapped)
    figure.update_xaxes(title=names[0], zeroline=False)
    figure.update_yaxes(title=names[1], zeroline=False)
    total = tokens.height
    title = f"{total:,} tokens by their depth profiles, {PROJECTED[mapped.method]}"
    dress(figure, several, title=title, height=480)
    return figure.update_layout(dragmode="select", hovermode="closest")


def cluster_profiles(traces: Trace | Sequence[Trace], profiles: pl.DataFrame) -> go.Figure:
    """Draw how often each unit ran for the tokens of each cluster.

    Parameters
    ----------
    traces
        The texts.
    profiles
        ``Clusters.profiles``, or what ``skipviz.analysis.clusters.clustered.mean_profiles``
        returned.
    """
    trace = traces_of_one_model(traces)[0]
    sizes = profiles.group_by("cluster").agg(pl.col("tokens").first()).sort("cluster")
    names = [f"{cluster} ({tokens:,})" for cluster, tokens in sizes.iter_rows()]
    rows = units(trace)
    figure = make_subplots(rows=len(rows), cols=1, shared_xaxes=True, vertical_spacing=0.08)
    for place, unit in enumerate(rows, start=1):
        table = (
            profiles.filter(unit=unit)
            .group_by("cluster", "layer")
            .agg(pl.col("rate").mean())
            .pivot("layer", index="cluster", values="rate")
            .sort("cluster")
        )
        layers = sorted(int(name) for name in table.columns if name != "cluster")
        figure.add_trace(
            go.Heatmap(
                z=table.select(str(layer) for layer in layers).to_numpy(),
                x=layers,
                y=names,
                coloraxis="coloraxis",
                xgap=1,
                ygap=1,
                hovertemplate="cluster %{y}<br>" + UNIT_NAMES[unit] + " of layer %{x} ran for "
                "%{z:.1%} of its tokens<extra></extra>",
            ),
            row=place,
            col=1,
        )
        words = f"{UNIT_NAMES[unit]}<br>cluster (tokens)"
        figure.update_yaxes(title=words, autorange="reversed", row=place, col=1)
    figure.update_xaxes(range=[-0.7, trace.run["layers"][0] - 0.3], tickformat="d")
    figure.update_xaxes(title="layer (blank: no gate)", row=len(rows))
    height = 150 + len(rows) * (60 + 30 * max(2, len(names)))
    dress(figure, traces, title="Which layers each cluster runs", height=height)
    return figure.update_layout(
        coloraxis={
            "colorscale": scale(CIVIDIS),
            "cmin": 0.0,
            "cmax": 1.0,
            "colorbar": {
                "title": {"text": "share of tokens<br>for which it ran", "side": "right"},
                "tickformat": ".0%",
                "thickness": 14,
            },
        },
        showlegend=False,
        margin={"l": 110, "b": 60},
    )


def cluster_criterion(traces: Trace | Sequence[Trace], clusters: Clusters) -> go.Figure:
    """Draw how clear the groups are for each number of clusters, and how clear without any.

    Parameters
    ----------
    traces
        The texts.
    clusters
        What ``skipviz.cluster`` returned.
    """
    table = clusters.criterion
    numbers = table["clusters"].to_numpy()
    figure = go.Figure()
    for name, words, colour in (
        ("shuffled", "shuffled within sites", VERMILION),
        ("continuum", "a continuum", GREEN),
    ):
        if table[name].null_count():
            continue
        figure.add_traces(_band(numbers, table, name, words, colour))
    figure.add_trace(
        go.Scatter(
            x=numbers,
            y=table["silhouette"].to_numpy(),
            mode="lines+markers",
            name="these tokens",
            line={"color": BLUE, "width": 3},
            marker={"size": 8},
            hovertemplate="%{x} clusters<br>silhouette %{y:.3f}<extra>these tokens</extra>",
        )
    )
    figure.update_xaxes(title="number of clusters", dtick=1)
    figure.update_yaxes(title="mean silhouette (-1 to 1)", rangemode="tozero")
    dress(figure, traces, title="How many clusters there are", height=420)
    if not (table["silhouette"] > 0).any():
        note(figure, "No grouping is clearer than a single cluster.", above=True)
    return figure


def _band(
    numbers: np.ndarray, table: pl.DataFrame, name: str, words: str, colour: str
) -> list[go.Scatter]:
    """Return the mean of the draws, and the band above it in which 95% of them end."""
    mean = go.Scatter(
        x=numbers,
        y=table[name].to_numpy(),
        mode="lines+markers",
        name=f"{words}, mean",
        legendgroup=name,
        line={"color": colour, "dash": "dot"},
        marker={"size": 5},
        hovertemplate="%{x} clusters<br>silhouette %{y:.3f}<extra>%{fullData.name}</extra>",
    )
    high = go.Scatter(
        x=numbers,
        y=table[f"{name}_high"].to_numpy(),
        mode="lines+markers",
        name=f"{words}, 95th percentile",
        legendgroup=name,
        line={"color": colour, "width": 1},
        marker={"size": 5, "symbol": "line-ew-open"},
        fill="tonexty",
        hovertemplate="%{x} clusters<br>silhouette %{y:.3f}<extra>%{fullData.name}</extra>",
    )
    return [mean, high]


def _in_order(clusters: pl.Series) -> list[int | None]:
    """Return the clusters there are, from the largest, tokens without one last."""
    return [*clusters.drop_nulls().unique().sort(), *([None] if clusters.null_count() else [])]


def _hover(points: pl.DataFrame) -> list[list[object]]:
    return [
        [
            point,
            f"token {token}: {token_label(text)}",
            "" if n < 2 else f"and {n - 1:,} with similar profiles",
        ]
        for point, token, text, n in points.select("point", "token", "text", "tokens").iter_rows()
    ]


def _axes(mapped: ClusterMap) -> tuple[str, str]:
    if mapped.variance is None:
        return "UMAP 1 (no unit)", "UMAP 2 (no unit)"
    first, second = mapped.variance
    return (
        f"first principal component ({first:.0%} of the variance)",
        f"second component ({second:.0%})",
    )
