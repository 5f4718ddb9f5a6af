"""How often each site ran over a whole corpus: a map of groups of tokens and sites."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
import polars as pl

from skipviz.plots.style.frame import dress
from skipviz.plots.style.labels import token_label
from skipviz.plots.style.palette import CIVIDIS, scale

MOST_GROUPS = 40
"""Groups that are drawn; those with the most tokens."""
GROUP_LABEL = 40
_GROUP = " group"
"""The number of a group, which no column of a user's is called."""


def corpus_rate_map(table: pl.DataFrame, *, by: Sequence[str], source: str) -> go.Figure:
    """Draw the share of tokens for which each site ran, a row for each group.

    Parameters
    ----------
    table
        What ``skipviz.corpus.questions.means.corpus_rates`` returned.
    by
        The columns of it that name groups; none: all tokens are one.
    source
        What the corpus is of, for the line under the title.
    """
    named = [pl.col(name).cast(pl.String).fill_null("unknown") for name in by]
    names = pl.concat_str(named or [pl.lit("all tokens")], separator=", ")
    groups = table.select(by).unique(maintain_order=True).with_row_index(_GROUP)
    numbered = (
        table.join(groups, on=list(by), nulls_equal=True, maintain_order="left")
        if by
        else table.with_columns(pl.lit(0).alias(_GROUP))
    )
    sizes = numbered.group_by(_GROUP, maintain_order=True).agg(
        pl.col("tokens").max().alias("tokens"), names.first().alias("name")
    )
    largest = sizes.sort("tokens", descending=True, maintain_order=True).head(MOST_GROUPS)
    drawn = sizes.join(largest, on=_GROUP, how="semi", maintain_order="left")
    labels = _labels(drawn[_GROUP].to_list(), drawn["name"].to_list())
    cells = numbered.join(drawn, on=_GROUP, how="semi", maintain_order="left")
    hover = [
        ("unknown" if low is None else f"{low:.3f} to {high:.3f}", f"{tokens:,}", f"{documents:,}")
        for low, high, tokens, documents in cells.select(
            "low", "high", "tokens", "documents"
        ).rows()
    ]
    figure = go.Figure(
        go.Heatmap(
            x=cells["label"].to_list(),
            y=[labels[group] for group in cells[_GROUP]],
            z=cells["rate"].to_list(),
            customdata=hover,
            coloraxis="coloraxis",
            ygap=1,
            hovertemplate=(
                "%{x}, %{y}: ran for %{z:.3f} of %{customdata[1]} tokens<br>95% interval over "
                "%{customdata[2]} documents %{customdata[0]}<extra></extra>"
            ),
        )
    )
    title = "How often each site ran"
    if sizes.height > MOST_GROUPS:
        title += f", {MOST_GROUPS} largest of {sizes.height:,} groups"
    height = 190 + 26 * max(3, len(labels))
    dress(figure, token_label(source, longest=200), title=title, height=height)
    order = list(reversed(labels.values()))
    figure.update_yaxes(
        automargin=True, type="category", categoryorder="array", categoryarray=order
    )
    figure.update_xaxes(title="site", type="category")
    return figure.update_layout(
        coloraxis={
            "colorscale": scale(CIVIDIS),
            "cmin": 0.0,
            "cmax": 1.0,
            "colorbar": {"title": {"text": "share executed", "side": "right"}, "thickness": 14},
        },
    )


def _labels(groups: Sequence[int], names: Sequence[str]) -> dict[int, str]:
    """Return what each group is called, no two alike: a row is found by its label."""
    labels: dict[int, str] = {}
    for group, name in zip(groups, names, strict=True):
        label = token_label(name, longest=GROUP_LABEL)
        again = 1
        while label in labels.values():
            again += 1
            label = token_label(f"{name[: GROUP_LABEL - 8]}… ({again})", longest=GROUP_LABEL)
        labels[group] = label
    return labels
