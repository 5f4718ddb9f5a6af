"""The part of a report that every trace has: figures and tables of the whole text."""

from __future__ import annotations

import polars as pl

from skipviz.analysis.flops import CostSummary, compute_share, execution_rates, flops_known
from skipviz.analysis.tokens.text_classes import predicted_classes
from skipviz.plots.whole_text import (
    compute_share_figure,
    execution_rate_by_layer,
    layers_used_histogram,
)
from skipviz.readings.paths import class_reading, class_words, loss_words
from skipviz.reports.sections import Drawing, Section, Table
from skipviz.traces import Trace


def key_figures_of(trace: Trace, figures: CostSummary) -> list[tuple[str, str]]:
    """Return the names and values that stand at the top of a report.

    Parameters
    ----------
    trace
        The trace.
    figures
        What ``skipviz.analysis.flops.cost_summary`` returned for it.
    """
    return [
        ("Tokens", f"{figures.tokens:,}"),
        ("Layers used, mean", f"{figures.layers_mean:.1f} of {figures.layers}"),
        ("Budget realised", _or_unknown(figures.budget, ".3f")),
        ("Whole-model FLOPs", _or_unknown(figures.flop_share, ".1%")),
        ("Predicted class", class_words(trace))
        if trace.run["loss"].item() == "none"
        else ("Loss, mean", loss_words(trace, figures.loss)),
    ]


def whole_text(trace: Trace, figures: CostSummary) -> Section:
    """Return layers used, how often each layer ran, and what the text cost.

    Parameters
    ----------
    trace
        A trace of at least one token.
    figures
        What ``skipviz.analysis.flops.cost_summary`` returned for it.
    """
    rates = execution_rates(trace)
    tables = [
        Table(
            name="tokens",
            title="Tokens, those with the highest loss first"
            if trace.tokens["nll"].count()
            else "Tokens",
            frame=trace.tokens,
            shown=trace.tokens.select(
                "token", "text", "layers_used", "exit_depth", "surprisal", "nll", "entropy"
            ).sort("nll", descending=True, nulls_last=True, maintain_order=True),
        )
    ]
    classes = predicted_classes(trace)
    if classes.height:
        tables.append(
            Table(name="predicted-classes", title="Predicted class of each text", frame=classes)
        )
    if rates.height:
        shown = rates.select("label", "tokens", "executed", "rate").sort("rate")
        tables.append(Table(
            name="execution-rates", title="Sites, those that ran least first", frame=rates,
            shown=shown,
        ))  # fmt: skip
    if flops_known(trace):
        tables.append(Table(name="compute", title="Compute", frame=compute_share(trace)))
    return Section(
        name="whole-text",
        title="How is compute spread over tokens and layers?",
        answer=[
            f"A token used {figures.layers_min:g} to {figures.layers_max:g} of {figures.layers} "
            f"layers; the median is {figures.layers_median:g}.",
            *filter(None, [class_reading(trace)]),
        ],
        drawings=[
            Drawing(layers_used_histogram(trace), _used(figures)),
            Drawing(execution_rate_by_layer(trace), _ran(rates)),
            Drawing(compute_share_figure(trace), _spent(figures)),
        ],
        tables=tables,
        caveat="FLOPs are those that the decisions imply, whether or not the runtime saved them.",
    )


def _used(figures: CostSummary) -> str:
    return (
        f"Histogram of layers used: mean {figures.layers_mean:.1f}, median "
        f"{figures.layers_median:g}, from {figures.layers_min:g} to {figures.layers_max:g}."
    )


def _ran(rates: pl.DataFrame) -> str:
    if not rates.height:
        return "Bars of how often each layer ran: every layer, always."
    ordered = rates.sort("rate").select("label", "rate").rows()
    (least, low), (most, high) = ordered[0], ordered[-1]
    return (
        f"Bars of how often each layer ran: least {least}, for {low:.0%} of the tokens, most "
        f"{most}, for {high:.0%}."
    )


def _spent(figures: CostSummary) -> str:
    if figures.flop_share is None:
        return "Compute, which is unknown for this model."
    return f"Bars of compute: {figures.flop_share:.1%} of the dense model's FLOPs."


def _or_unknown(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)
