"""Figures and coloured text, the same in the app and in notebooks; nothing here runs a model."""

from __future__ import annotations

from skipviz.plots.audit import ranking_by_layer, reliability_figure, utility_map
from skipviz.plots.frontier import frontier_figure
from skipviz.plots.layer_map import layer_map
from skipviz.plots.one_token import next_tokens, token_path
from skipviz.plots.token_html import token_html
from skipviz.plots.whole_text import (
    compute_share_figure,
    execution_rate_by_layer,
    layers_used_histogram,
)

__all__ = [
    "compute_share_figure",
    "execution_rate_by_layer",
    "frontier_figure",
    "layer_map",
    "layers_used_histogram",
    "next_tokens",
    "ranking_by_layer",
    "reliability_figure",
    "token_html",
    "token_path",
    "utility_map",
]
