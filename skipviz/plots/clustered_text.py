"""The text itself in the colours of its clusters, as HTML that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import polars as pl

from skipviz.analysis.one_model import traces_of_one_model
from skipviz.analysis.tokens.characters import new_characters
from skipviz.errors import InputError
from skipviz.plots.clusters import cluster_name
from skipviz.plots.colored_text import LIMIT
from skipviz.plots.style.labels import html_text, provenance
from skipviz.plots.style.palette import cluster_colour, interpolate, readable_on
from skipviz.traces import Trace

STYLE = (
    ".skipviz{font-family:system-ui,sans-serif;line-height:1.7}"
    ".skipviz-text{white-space:pre-wrap;overflow-wrap:anywhere}"
    ".skipviz-text span,.skipviz-key{border-radius:2px}"
    ".skipviz-source{font-weight:600;margin-top:.6em}"
    ".skipviz-note{font-size:.85em;margin:.3em 0}"
    ".skipviz-key{padding:0 .4em;margin-right:.5em}"
)


def cluster_text(
    traces: Trace | Sequence[Trace], tokens: pl.DataFrame, *, limit: int = LIMIT
) -> str:
    """Return texts as HTML, every token in the colour of its cluster.

    Tokens that share characters form one piece in the colour of the first. Tokens of no cluster
    have no colour.

    Parameters
    ----------
    traces
        The texts.
    tokens
        Their clusters, ``Clusters.tokens`` or what ``Clusters.assign`` returned.
    limit
        Tokens to show, from 1; a sentence says if there are more.

    Returns
    -------
    str
        A ``<div>`` with its own style, readable on light and dark pages.

    Raises
    ------
    ValueError
        If clusters and traces are not of the same tokens, or the limit is below 1.
    """
    several = traces_of_one_model(traces)
    total = sum(len(trace) for trace in several)
    if limit < 1:
        raise InputError(f"limit={limit} shows nothing; give at least 1.")
    if total != tokens.height:
        raise InputError(
            f"The clusters have {tokens.height} tokens and the traces {total}. Give the clusters "
            f"of "
            "these texts, as Clusters.assign returns them."
        )
    places = ("trace", "sequence", "span")
    table = pl.concat(
        [
            trace.tokens.with_columns(trace=pl.lit(number, dtype=pl.Int64), fresh=new_characters())
            for number, trace in enumerate(several)
        ]
    ).with_columns(cluster=tokens["cluster"])
    headed = table.select("trace", "sequence").n_unique() > 1
    pieces = []
    source = None
    for span in table.head(limit).partition_by(places, maintain_order=True):
        first = span.row(0, named=True)
        here = (first["trace"], first["sequence"])
        if headed and here != source:
            pieces.append(f'<div class="skipviz-source">{html_text(str(first["source"]))}</div>')
        source = here
        name = cluster_name(first["cluster"])
        tip = html.escape(f"token {first['token']} · {name}")
        style = f' style="{_colours(first["cluster"])}"' if first["cluster"] is not None else ""
        pieces.append(f'<span{style} title="{tip}">{html_text("".join(span["fresh"]))}</span>')
    rest = (
        f'<div class="skipviz-note">The first {limit:,} of {total:,} tokens are shown; a higher '
        "limit shows more.</div>"
        if total > limit
        else ""
    )
    return (
        f'<div class="skipviz"><style>{STYLE}</style>'
        f'<div class="skipviz-note">{_legend(tokens)}<br>{provenance(several)}</div>'
        f'<div class="skipviz-text" dir="auto">{"".join(pieces)}</div>{rest}</div>'
    )


def ink_on(colour: str) -> str:
    """Return black or white, whichever reads better on a colour."""
    background = interpolate((colour, colour), np.zeros(1))
    return "#000" if readable_on(background)[0] else "#fff"


def _colours(cluster: int) -> str:
    colour = cluster_colour(cluster)
    return f"background:{colour};color:{ink_on(colour)}"


def _legend(tokens: pl.DataFrame) -> str:
    sizes = tokens["cluster"].value_counts().sort("cluster", nulls_last=True)
    return "".join(
        '<span class="skipviz-key"'
        + (f' style="{_colours(cluster)}"' if cluster is not None else "")
        + f">{cluster_name(cluster)}: {count:,} tokens</span>"
        for cluster, count in sizes.iter_rows()
    )
