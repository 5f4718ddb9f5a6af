"""Clusters in plain words."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from skipviz.analysis.clusters.clustering import Clusters
from skipviz.analysis.clusters.significance import ALPHA

SURE, PARTLY = 0.8, 0.5
"""Stability from which clusters come again, and from which they do so in part."""
NOTABLE = 0.05
"""Difference of shares from which a class is worth a word."""
MOST = 4
"""Classes that a sentence names."""
PROFILES = {
    "executed": "which layers ran",
    "score": "what their gates said",
}


def reading(clusters: Clusters) -> str:
    """Say in a paragraph whether there are clusters, of what kind, and whether they come again.

    Parameters
    ----------
    clusters
        What ``cluster`` returned, or was saved.
    """
    run = clusters.run.row(0, named=True)
    said = [_whether(clusters, run)]
    if clusters.found:
        said.append(_continuum(run["p_continuum"]))
    if run["stability"] is not None:
        said.append(_stability(run["stability"]))
    if clusters.count > 1:
        said.append(_sizes(clusters.tokens))
    return " ".join(said)


def assigned_words(clusters: Clusters, tokens: pl.DataFrame) -> str:
    """Say in a paragraph how the tokens of other texts spread over clusters made before.

    Parameters
    ----------
    clusters
        Those made before.
    tokens
        What ``assign`` returned.
    """
    before, after = (table["distance"].to_numpy() for table in (clusters.tokens, tokens))
    return (
        f"The {tokens.height:,} tokens of this text go to the nearest of {clusters.count} "
        f"{_plural(clusters.count)} made from {clusters.tokens.height:,} tokens. They lie "
        f"{_mean(after)} from the mean profile of their cluster; those that made it lie "
        f"{_mean(before)} from it. {_sizes(tokens)}"
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
        f"{mine['tokens']:,} tokens, {mine['share']:.0%} of all, use {mine['layers_used']:.1f} "
        f"layers on average; all tokens use {whole['layers_used']:.1f}."
    ]
    for sign, word in ((1, "More"), (-1, "Fewer")):
        notable = (
            classes.filter(pl.col("cluster") == cluster, sign * pl.col("more") >= NOTABLE)
            .sort(sign * pl.col("more"), descending=True, maintain_order=True)
            .head(MOST)
        )
        if notable.height:
            parts = [
                f"{row['class']} ({row['share']:.0%}, {row['share_all']:.0%} of all)"
                for row in notable.iter_rows(named=True)
            ]
            said.append(f"{word} {', '.join(parts)}.")
    return " ".join(said)


def _whether(clusters: Clusters, run: dict[str, Any]) -> str:
    what, p = PROFILES[run["on"]], run["p"]
    if clusters.found:
        return (
            f"By {what}, the tokens form {clusters.count} {_plural(clusters.count)}, and more "
            f"clearly than chance would have it: shuffled within sites, hardly any profiles group "
            f"as clearly (p = {p:.3f})."
        )
    said = (
        f"By {what}, the tokens form no clusters that chance would not: shuffled within sites, "
        f"they group as clearly (p = {p:.2f})."
    )
    if clusters.count > 1:
        return f"{said} The {clusters.count} shown were asked for."
    return f"{said} All are shown as one."


def _continuum(p: float | None) -> str:
    if p is None:
        return ""
    if p <= ALPHA:
        return (
            "They are groups apart, not parts of a continuum: profiles whose sites go together as "
            f"much, but which form no groups, are less clear (p = {p:.3f})."
        )
    return (
        "They may be parts of a continuum and no groups apart: profiles whose sites go together as "
        f"much, but which form no groups, are as clear in {p:.0%} of draws."
    )


def _stability(stability: float) -> str:
    how = (
        "come again"
        if stability >= SURE
        else "come again in part"
        if stability >= PARTLY
        else "hardly come again"
    )
    return (
        f"Made from one half of the tokens they {how} from the other: adjusted Rand index "
        f"{stability:.2f}, where 1 is the same and 0 chance."
    )


def _mean(distances: npt.NDArray[np.float64]) -> str:
    known = distances[np.isfinite(distances)]
    return f"{known.mean():.3f}" if len(known) else "nowhere"


def _sizes(tokens: pl.DataFrame) -> str:
    sizes = tokens["cluster"].drop_nulls().value_counts(sort=True)
    left = tokens["cluster"].null_count()
    out = f" {left / tokens.height:.0%} belong to none." if left else ""
    if sizes.is_empty():
        return out.strip()
    largest, count = sizes.row(0)
    return f"The largest, cluster {largest}, holds {count / tokens.height:.0%} of the tokens.{out}"


def _plural(count: int) -> str:
    return "cluster" if count == 1 else "clusters"
