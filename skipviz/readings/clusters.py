"""The page of clusters in sentences."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from skipviz.analysis.clusters.clustered import Clusters
from skipviz.analysis.clusters.maps import ClusterMap
from skipviz.analysis.clusters.significance import ALPHA
from skipviz.traces import Trace

_STABLE, _PARTLY_STABLE = 0.8, 0.5
"""Stability from which clusters are reproduced, and from which they partly are."""
_SEPARATE, _APART = 0.5, 0.25
"""Silhouettes from which groups are called separate, and from which overlapping (Kaufman and
Rousseeuw, "Finding groups in data", 1990)."""
_NOTABLE = 0.05
"""Difference of shares from which a class is worth a word."""
_MAX_CLASSES = 4
"""Classes that a sentence names."""
_PROFILES = {
    "executed": "which layers ran",
    "score": "the gate scores",
}


def reading(clusters: Clusters) -> str:
    """Say in a paragraph whether there are clusters, of what kind, and how stable they are.

    Parameters
    ----------
    clusters
        What ``cluster`` returned, or was saved.
    """
    run = clusters.run.row(0, named=True)
    said = [_whether(clusters, run)]
    if run["stability"] is not None:
        said.append(_stability(run["stability"]))
    if clusters.count > 1:
        said.append(_sizes(clusters.tokens))
    return " ".join(said)


def assigned_words(clusters: Clusters, tokens: pl.DataFrame) -> str:
    """Say in a paragraph how the tokens of other texts were assigned to given clusters.

    Parameters
    ----------
    clusters
        Those made before.
    tokens
        What ``assign`` returned.
    """
    before, after = (table["distance"].to_numpy() for table in (clusters.tokens, tokens))
    return (
        f"The {tokens.height:,} tokens of this text were assigned to the nearest of "
        f"{clusters.count} {_plural(clusters.count)} made from {clusters.tokens.height:,} tokens. "
        f"Their mean distance from the profile of their cluster is {_mean(after)}; for the tokens "
        f"that made the clusters it is {_mean(before)}. {_sizes(tokens)}"
    )


def card_words(figures: pl.DataFrame, classes: pl.DataFrame, *, cluster: int) -> str:
    """Say in a sentence or two what the tokens of a cluster have more and fewer of.

    Parameters
    ----------
    figures
        What ``cluster_figures`` returned.
    classes
        What ``cluster_classes`` returned.
    cluster
        Which one.
    """
    mine = figures.filter(cluster=cluster).row(0, named=True)
    whole = figures.filter(of="all tokens").row(0, named=True)
    said = [
        f"{mine['tokens']:,} tokens, {mine['share']:z.0%} of all, use {mine['layers_used']:z.1f} "
        f"layers on average; all tokens use {whole['layers_used']:z.1f}."
    ]
    for sign, word in ((1, "More"), (-1, "Fewer")):
        notable = (
            classes.filter(pl.col("cluster") == cluster, sign * pl.col("more") >= _NOTABLE)
            .sort(sign * pl.col("more"), descending=True, maintain_order=True)
            .head(_MAX_CLASSES)
        )
        if notable.height:
            parts = [
                f"{row['class']} ({row['share']:z.0%}, {row['share_all']:z.0%} of all)"
                for row in notable.iter_rows(named=True)
            ]
            said.append(f"{word} {', '.join(parts)}.")
    return " ".join(said)


def map_reading(total: int, mapped: ClusterMap, *, lit: int | None) -> str:
    """Say what is selected on the map of clusters, and how many tokens it shows.

    Parameters
    ----------
    total
        Tokens.
    mapped
        The map.
    lit
        Tokens that are selected; None if none are.
    """
    said = (
        "Select a region of the map to highlight its tokens in the text; click a point, or a token "
        "of the text, to select it here and on the canvas."
        if lit is None
        else f"{lit:,} of {total:,} tokens are highlighted in the text."
    )
    if mapped.points.height < total:
        said += (
            f" {mapped.points.height:,} of {total:,} tokens are on the map; each stands for those "
            "with the most similar profiles."
        )
    return said


def clustered_token_reading(
    trace: Trace, tokens: pl.DataFrame, mapped: ClusterMap, *, token: int
) -> str:
    """Say to which cluster a token belongs, and where on the map it is.

    Parameters
    ----------
    trace
        The text.
    tokens
        Its clusters.
    mapped
        The map.
    token
        Which token.
    """
    row, known = tokens.row(token, named=True), trace.tokens.row(token, named=True)
    point = mapped.points.row(int(mapped.tokens["point"][token]), named=True)
    cluster = "no cluster" if row["cluster"] is None else f"cluster {row['cluster']}"
    said = f"Token {token}, {known['text']!r}: {cluster}"
    if row["distance"] is not None:
        said += f", {row['distance']:z.3f} from its mean profile"
    said += f", layers used {known['layers_used']:g}"
    if point["token"] != token:
        said += f"; token {point['token']} stands for it on the map"
    return said


def _whether(clusters: Clusters, run: dict[str, Any]) -> str:
    what, p = _PROFILES[run["on"]], run["p"]
    if clusters.found:
        return (
            f"By {what}, the tokens form {clusters.count} {_separation(clusters)}: profiles "
            f"shuffled within sites hardly ever group as clearly (p = {p:z.3f}), nor do profiles "
            "with the same correlations between sites but without groups "
            f"(p = {run['p_continuum']:z.3f})."
        )
    if p <= ALPHA and run["p_continuum"] is not None:
        return (
            f"By {what}, sites decide together, but the tokens form a continuum rather than "
            "separate groups: profiles with the same correlations between sites but without groups "
            f"are as clear, each at its own clearest number, in {run['p_continuum']:z.0%} of "
            f"draws. The {clusters.count} clusters shown are parts of it."
        )
    said = (
        f"By {what}, the tokens form no clusters beyond chance: profiles shuffled within sites "
        f"group as clearly (p = {p:z.2f})."
    )
    if clusters.count > 1:
        return f"{said} The {clusters.count} shown are the number that was asked for."
    return f"{said} All tokens are shown as one cluster."


def _separation(clusters: Clusters) -> str:
    """Say how far apart groups are, by their silhouette."""
    known = clusters.criterion.filter(clusters=clusters.count)["silhouette"]
    clear = float(known[0]) if len(known) else 0.0
    kind = (
        "separate" if clear >= _SEPARATE else "overlapping" if clear >= _APART else "barely apart"
    )
    return f"{kind} {_plural(clusters.count)} (silhouette {clear:z.2f})"


def _stability(stability: float) -> str:
    how = "" if stability >= _STABLE else "partly " if stability >= _PARTLY_STABLE else "hardly "
    return (
        f"The two halves of the tokens {how}give the same clusters: adjusted Rand index "
        f"{stability:z.2f} (1 is identical, 0 is chance)."
    )


def _mean(distances: npt.NDArray[np.float64]) -> str:
    known = distances[np.isfinite(distances)]
    return f"{known.mean():z.3f}" if len(known) else "unknown"


def _sizes(tokens: pl.DataFrame) -> str:
    sizes = tokens["cluster"].drop_nulls().value_counts(sort=True)
    left = tokens["cluster"].null_count()
    out = f" {left / tokens.height:z.0%} belong to no cluster." if left else ""
    if sizes.is_empty():
        return out.strip()
    largest, count = sizes.row(0)
    return f"The largest, cluster {largest}, holds {count / tokens.height:z.0%} of the tokens.{out}"


def _plural(count: int) -> str:
    return "cluster" if count == 1 else "clusters"
