"""Figures and coloured text, the same in the app and in notebooks; nothing here runs a model.

Every name is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from skipviz.late_names import late_names

if TYPE_CHECKING:
    from skipviz.plots.attention_paid import attention_figure
    from skipviz.plots.attribution import (
        attribution_html,
        correlation_figure,
        depth_bars,
        depth_map,
        share_scatter,
    )
    from skipviz.plots.clustered_text import cluster_text
    from skipviz.plots.clusters import cluster_criterion, cluster_map, cluster_profiles
    from skipviz.plots.colored_text import token_html
    from skipviz.plots.comparison.figure import comparison_figure
    from skipviz.plots.decision_audit import (
        loss_change_figure,
        quality_by_class,
        ranking_by_layer,
        reliability_figure,
        utility_map,
    )
    from skipviz.plots.difficulty import difficulty_curve, task_figure
    from skipviz.plots.frontier import frontier_figure, text_frontier_figure
    from skipviz.plots.layer_heatmap import layer_map
    from skipviz.plots.one_token import next_tokens, token_path
    from skipviz.plots.prediction_by_depth import influence_bars, settled_histogram
    from skipviz.plots.probes import probe_accuracy, probe_selectivity
    from skipviz.plots.robustness import change_figure, drift_figure, tails_figure
    from skipviz.plots.specialties import specialty_map
    from skipviz.plots.style.saving import save_figure
    from skipviz.plots.timing.benches import bench_figure
    from skipviz.plots.timing.flops_and_time import (
        flops_by_part_figure,
        latency_figure,
        time_by_part_figure,
    )
    from skipviz.plots.whole_text import (
        compute_share_figure,
        execution_rate_by_layer,
        layers_used_histogram,
    )

__all__ = [
    "attention_figure",
    "attribution_html",
    "bench_figure",
    "change_figure",
    "cluster_criterion",
    "cluster_map",
    "cluster_profiles",
    "cluster_text",
    "comparison_figure",
    "compute_share_figure",
    "correlation_figure",
    "depth_bars",
    "depth_map",
    "difficulty_curve",
    "drift_figure",
    "execution_rate_by_layer",
    "flops_by_part_figure",
    "frontier_figure",
    "influence_bars",
    "latency_figure",
    "layer_map",
    "layers_used_histogram",
    "loss_change_figure",
    "next_tokens",
    "probe_accuracy",
    "probe_selectivity",
    "quality_by_class",
    "ranking_by_layer",
    "reliability_figure",
    "save_figure",
    "settled_histogram",
    "share_scatter",
    "specialty_map",
    "tails_figure",
    "task_figure",
    "text_frontier_figure",
    "time_by_part_figure",
    "token_html",
    "token_path",
    "utility_map",
]

_HOMES = {
    "attention_paid": ("attention_figure",),
    "attribution": (
        "attribution_html",
        "correlation_figure",
        "depth_bars",
        "depth_map",
        "share_scatter",
    ),
    "clustered_text": ("cluster_text",),
    "clusters": (
        "cluster_criterion",
        "cluster_map",
        "cluster_profiles",
    ),
    "colored_text": ("token_html",),
    "comparison.figure": ("comparison_figure",),
    "decision_audit": (
        "loss_change_figure",
        "quality_by_class",
        "ranking_by_layer",
        "reliability_figure",
        "utility_map",
    ),
    "difficulty": (
        "difficulty_curve",
        "task_figure",
    ),
    "frontier": (
        "frontier_figure",
        "text_frontier_figure",
    ),
    "layer_heatmap": ("layer_map",),
    "one_token": (
        "next_tokens",
        "token_path",
    ),
    "prediction_by_depth": (
        "influence_bars",
        "settled_histogram",
    ),
    "probes": (
        "probe_accuracy",
        "probe_selectivity",
    ),
    "robustness": (
        "change_figure",
        "drift_figure",
        "tails_figure",
    ),
    "style.saving": ("save_figure",),
    "specialties": ("specialty_map",),
    "timing.benches": ("bench_figure",),
    "timing.flops_and_time": (
        "flops_by_part_figure",
        "latency_figure",
        "time_by_part_figure",
    ),
    "whole_text": (
        "compute_share_figure",
        "execution_rate_by_layer",
        "layers_used_histogram",
    ),
}
"""The module that each name is in."""

if not TYPE_CHECKING:
    __getattr__ = late_names(__name__, _HOMES)
