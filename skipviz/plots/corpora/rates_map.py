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
    rows = table.with_columns(group=names)
    sizes = rows.group_by("group", maintain_order=True).agg(pl.col("tokens").max())
    largest = sizes.sort("tokens", descending=True, maintain_order=True).head(MOST_GROUPS)["group"]
    shown = [name for name in sizes["group"] if name in set(largest)]
    cells = rows.filter(pl.col("group").is_in(shown))
    labels = {group: token_label(group, longest=GROUP_LABEL) for group in shown}
    hover = [
        ("unknown" if low is None else f"{low:.3f} to {high:.3f}", f"{tokens:,}", f"{documents:,}")
        for low, high, tokens, documents in cells.select(
            "low", "high", "tokens", "documents"
        ).rows()
    ]
    figure = go.Figure(
        go.Heatmap(
            x=cells["label"].to_list(),
            y=[labels[group] for group in cells["group"]],
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
    height = 190 + 26 * max(3, len(shown))
    dress(figure, token_label(source, longest=200), title="How often each site ran", height=height)
    order = [labels[group] for group in reversed(shown)]
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
