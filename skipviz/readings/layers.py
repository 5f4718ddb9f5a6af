"""The page of layers in sentences."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from skipviz.analysis.layers.specialties import significant_specialties
from skipviz.analysis.layers.task_depth import PUBLISHED_NAME, pairs_in_published_order
from skipviz.analysis.statistics.blocks import dependent_groups
from skipviz.analysis.statistics.intervals import clustered_margin
from skipviz.analysis.statistics.multiple_tests import FALSE_DISCOVERY_RATE, correlation_found
from skipviz.analysis.tokens.classes import FEATURE_NAMES
from skipviz.readings.intervals import coefficient_words, no_interval_words
from skipviz.readings.sites import site_name

_SENTENCES = 5
"""Specialties that a paragraph names."""
_MORE = {
    "surprisal": ("the more surprising they are", "the less surprising they are"),
    "entropy": ("the less certain the prediction is", "the more certain the prediction is"),
    "nll": ("the worse the next token is predicted", "the better the next token is predicted"),
    "log_frequency": ("the more frequent their word is", "the rarer their word is"),
}
_IF = {
    "token_before": "if they occurred earlier in the text",
    "bigram_before": "if the same pair of tokens occurred earlier",
}
"""What holds or does not, so that a negative coefficient is said without a negation."""


def specialty_reading(table: pl.DataFrame) -> str:
    """Say which classes run which sites.

    Parameters
    ----------
    table
        What ``specialties`` returned.
    """
    tested = table["p"].count()
    if not tested:
        return (
            "No site decides differently for these tokens, or no class has enough tokens to tell."
        )
    clear = significant_specialties(table)
    if clear.is_empty():
        return (
            f"None of {tested:,} pairs of a class and a site differs from chance, after correction "
            "for so many tests."
        )
    words = [
        f"{clear.height:,} of {tested:,} pairs of a class and a site differ from chance (at most "
        f"{FALSE_DISCOVERY_RATE:z.0%} of these are expected to be false).",
        *specialty_sentences(table),
    ]
    return " ".join(words)


def specialty_sentences(table: pl.DataFrame, *, most: int = _SENTENCES) -> list[str]:
    """Say which specialties are strongest, each class and each site at most once.

    Parameters
    ----------
    table
        What ``specialties`` returned.
    most
        How many sentences.
    """
    said: list[str] = []
    classes, sites = set(), set()
    for row in significant_specialties(table).iter_rows(named=True):
        if len(said) == most:
            break
        if row["class"] in classes or row["site"] in sites or not row["strength"]:
            continue
        classes.add(row["class"])
        sites.add(row["site"])
        said.append(_specialty(table, row))
    return said


def difficulty_reading(table: pl.DataFrame) -> str:
    """Say which measures of difficulty correlate with layers used.

    Parameters
    ----------
    table
        What ``depth_against_difficulty`` returned.
    """
    known = table.filter(pl.col("r").is_not_null())
    if known.is_empty():
        return (
            "All these tokens use the same number of layers, or there are too few of them to tell."
        )
    sure = known.filter(correlation_found()).sort(pl.col("r").abs(), descending=True)
    if sure.is_empty():
        return (
            "No measure of difficulty has a correlation with layers used that is distinguishable "
            f"from zero, among {max(known['tokens']):,} tokens."
        )
    parts: dict[str, list[str]] = {"more": [], "fewer": []}
    rows = sure.rows(named=True)
    for row in rows:
        name, negative = row["measure"], row["r"] < 0
        word = _IF[name] if name in _IF else _MORE[name][negative]
        found = parts["fewer" if negative and name in _IF else "more"]
        found.append(f"{word} (Spearman {coefficient_words(row, why=False)})")
    said = [f"use {kind} layers {'; '.join(each)}" for kind, each in parts.items() if each]
    words = [f"Tokens {'. They '.join(said)}."]
    if known.height > sure.height:
        words.append("For the other measures, no effect is distinguishable from zero.")
    return " ".join([*words, *no_interval_words(rows)])


def features_of(table: pl.DataFrame) -> list[str]:
    """Return the features of a table in the order of ``FEATURE_NAMES``, others after them."""
    present = table["feature"].unique(maintain_order=True).to_list()
    return sorted(present, key=lambda name: [*FEATURE_NAMES, name].index(name))


def probe_reading(table: pl.DataFrame) -> str:
    """Say where probes of each feature gain most over their control task.

    The best of many layers is far from 0 by chance alone, so that a gain counts only if it is
    significant among all features and layers tested (Bonferroni).

    Parameters
    ----------
    table
        What ``skipviz.experiments.hidden_states.probes.probes`` returned.
    """
    words = []
    looked_at = table.filter(part="all").height
    for feature in features_of(table):
        part = table.filter(feature=feature, part="all")
        best = part.sort("selectivity", descending=True).row(0, named=True)
        where = f"after layer {best['layer']}" if best["layer"] >= 0 else "in the embeddings"
        beyond = stats.t.isf(FALSE_DISCOVERY_RATE / 2 / looked_at, best["groups"] - 1)
        sure = best["selectivity"] > beyond * best["error"]
        words.append(
            f"{FEATURE_NAMES.get(feature, feature)} {where} ({best['accuracy']:z.0%} accuracy, "
            f"{100 * best['selectivity']:+z.0f} points over its control"
            + ("" if sure else f", not distinguishable from zero among {looked_at} tests")
            + ")"
        )
    apart = table.filter(pl.col("part") != "all")
    reading = f"Where probes gain most over their control task: {'; '.join(words)}."
    both = apart.group_by("feature", "layer").agg(
        (pl.col("selectivity").filter(pl.col("part") == part).first().alias(part))
        for part in ("executed", "skipped")
    )
    gap = both.select(pl.col("executed") - pl.col("skipped")).drop_nulls().to_series()
    if gap.is_empty():
        return reading
    points = 100 * _mean(gap)
    return (
        f"{reading} For tokens that ran the layer the gain is {abs(points):z.0f} points "
        f"{'higher' if points > 0 else 'lower'} than for those that skipped it, on average over "
        "features and gated layers. The two groups also differ in their kinds of token, and no "
        "interval is given."
    )


def settling_reading(settled: pl.DataFrame, turned: pl.DataFrame) -> str:
    """Say where predictions are settled, and which layers change the hidden state.

    Parameters
    ----------
    settled, turned
        What ``convergence_layers`` and ``layer_influence`` of
        ``skipviz.experiments.hidden_states.prediction_by_depth`` returned.
    """
    last = turned.height - 1
    read = settled.drop_nulls("settled")
    words, of_whom = [], "of the tokens"
    if read.height < settled.height:
        words.append(
            f"For {read.height / settled.height:z.0%} of the tokens the logit lens finds the "
            "model's prediction after some layer; the others left early, and only the translator "
            "of their exit finds it."
        )
        of_whom = "of the former"
    if read.height:
        before = _mean(read["settled"] < last)
        # A layer, not halfway between two.
        median = np.quantile(read["settled"].to_numpy(), 0.5, method="inverted_cdf")
        of_them = "" if read.height == settled.height else " of these"
        # By the last layer every prediction is.
        settles = (
            f"For half {of_whom} the prediction is settled by layer {median:z.0f} (of 0 to {last})"
            if median < last
            else f"For most {of_whom} the prediction changes up to the last layer, {last}"
        )
        words.append(
            f"{settles}; for {before:z.0%}{of_them} the last layer does not change it. On average, "
            f"{_mean(read['layers_after']):z.1f} layers run after a prediction is settled."
        )
    gated = turned.filter(pl.any_horizontal(pl.col("executed", "skipped").is_not_null()))
    # Early exits were named above.
    if gated.height and read.height == settled.height:
        gates = gated["layer"].to_numpy()
        # After the last gated layer there is no decision; where none ran, they ended before it.
        chosen = read["exit_depth"].fill_null(gates.min() - 1).to_numpy()
        ends = read["settled"].to_numpy()
        early, late = np.mean(chosen < np.minimum(ends, gates.max())), np.mean(ends > gates.max())
        words.append(
            f"For {early:z.0%} of the tokens gates skip all that is left to them before the "
            f"prediction is settled. For {late:z.0%} it is settled only after layer {gates.max()}, "
            "the last with a gate."
        )
    apart = turned.drop_nulls(["executed", "skipped"])
    if apart.height:
        more = (apart["executed"] > apart["skipped"]).sum()
        words.append(
            f"At {more} of {apart.height} layers the hidden state changes more for tokens that ran "
            "the layer than for those that skipped it."
        )
    return " ".join(words)


def attention_reading(layers: pl.DataFrame, losses: pl.DataFrame) -> str:
    """Say how much attention goes to tokens that skipped, and what hiding them does.

    Parameters
    ----------
    layers, losses
        Of ``skipviz.experiments.hidden_states.attention_paid.AttentionPaid``.
    """
    seen = layers.drop_nulls("paid")
    if seen.is_empty() or losses.is_empty():
        return "Too few tokens ran attention after others to tell what they attend to."
    weight = (seen["tokens"] * seen["earlier"]).to_numpy()
    paid, blind = (np.average(seen[name].to_numpy(), weights=weight) for name in ("paid", "blind"))
    more = (losses["hidden_nll"] - losses["nll"]).to_numpy()
    margin = clustered_margin(more, dependent_groups(losses["sequence"].to_numpy()))
    interval = "" if np.isnan(margin) else f" ± {margin:z.3f}, 95% interval"
    return (
        f"Of the attention to earlier tokens, {paid:z.0%} goes to tokens that skipped the layer; "
        f"with equal attention to all it would be {blind:z.0%}. With the keys and values of those "
        f"tokens hidden, the loss goes from {_mean(losses['nll']):z.3f} to "
        f"{_mean(losses['hidden_nll']):z.3f} nats per token ({more.mean():+z.3f}{interval})."
    )


def task_reading(table: pl.DataFrame, *, layers: int) -> str:
    """Say which tasks use the most layers.

    Parameters
    ----------
    table
        What ``by_task`` returned.
    layers
        Layers of the model.
    """
    ordered = table.sort("layers", descending=True)
    most, least = ordered.row(0, named=True), ordered.row(-1, named=True)
    if most["layers"] == least["layers"]:
        return f"Every task uses {most['layers']:z.1f} of {layers} layers."
    same, pairs = pairs_in_published_order(table)
    return (
        f"“{most['task']}” uses the most layers, {_taken(most)} of {layers}, and "
        f"“{least['task']}” the fewest, {_taken(least)}. {same} of {pairs} pairs of tasks are in "
        f"the same order as in {PUBLISHED_NAME}."
    )


def _taken(row: dict[str, Any]) -> str:
    interval = "" if row["low"] is None else f" ({row['low']:z.1f} to {row['high']:z.1f})"
    return f"{row['layers']:z.1f}{interval}"


def _mean(values: pl.Series) -> float:
    return float(np.mean(values.to_numpy()))


def _specialty(table: pl.DataFrame, row: dict[str, Any]) -> str:
    site = site_name(row["layer"], row["unit"], row["visit"])
    rivals = table.filter(feature=row["feature"], site=row["site"]).filter(
        pl.col("class") != row["class"]
    )
    more = row["log_odds"] > 0
    said = f"{site} runs for {'' if more else 'only '}{row['rate']:z.0%} of {row['class']}"
    if rivals.is_empty():
        return f"{said}, {row['rate_outside']:z.0%} of all other tokens."
    other = rivals.sort("rate", descending=not more).row(0, named=True)
    return f"{said}, {other['rate']:z.0%} of {other['class']}."
