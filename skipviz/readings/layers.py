"""What the figures of layers say, in a paragraph each."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from skipviz.analysis.layers.task_depth import PUBLISHED_NAME, pairs_in_published_order
from skipviz.analysis.statistics.blocks import BLOCK_TOKENS, dependent_groups
from skipviz.analysis.statistics.correlation import MIN_BLOCKS_FOR_INTERVAL
from skipviz.analysis.statistics.intervals import clustered_margin
from skipviz.analysis.statistics.multiple_tests import FALSE_DISCOVERY_RATE
from skipviz.readings.specialties import found, sentences

FEATURES = {
    "kind": "kind of token",
    "casing": "casing",
    "piece": "place in the word",
    "in_sentence": "place in the sentence",
    "part_of_speech": "part of speech",
    "entity": "named entity",
}
"""Names of the features that ``token_classes`` gives."""
_MORE = {
    "surprisal": ("the more surprising they are", "the less surprising they are"),
    "entropy": ("the more ambiguous what follows is", "the less ambiguous what follows is"),
    "nll": ("the worse the next token is predicted", "the better the next token is predicted"),
    "log_frequency": ("the more frequent their word is", "the rarer their word is"),
    "token_before": (
        "if they occurred in the text before",
        "if they did not occur in the text before",
    ),
    "bigram_before": (
        "if they occurred after the same token before",
        "if they did not occur after the same token before",
    ),
}


def specialty_reading(table: pl.DataFrame) -> str:
    """Say which classes run which sites.

    Parameters
    ----------
    table
        What ``specialties`` returned.
    """
    tested = table["p"].count()
    if not tested:
        return "No site chooses among these tokens, or no class has enough of them, to tell."
    sure = found(table)
    if sure.is_empty():
        return (
            f"None of {tested:,} pairs of a class and a site goes together further than chance "
            "would have it among so many."
        )
    words = [
        f"{sure.height:,} of {tested:,} pairs of a class and a site go together further than "
        f"chance (at most {FALSE_DISCOVERY_RATE:.0%} of these are expected to be false).",
        *sentences(table),
    ]
    return " ".join(words)


def difficulty_reading(table: pl.DataFrame) -> str:
    """Say which measures of difficulty layers used go with.

    Parameters
    ----------
    table
        What ``depth_against_difficulty`` returned.
    """
    known = table.filter(pl.col("r").is_not_null())
    if known.is_empty():
        return "All these tokens use the same number of layers, or are too few to tell."
    sure = known.filter(pl.col("q") < FALSE_DISCOVERY_RATE).sort(pl.col("r").abs(), descending=True)
    if sure.is_empty():
        return (
            "No measure of difficulty goes with layers used further than chance, among "
            f"{max(known['tokens']):,} tokens."
        )
    parts = []
    for row in sure.rows(named=True):
        interval = (
            "" if row["low"] is None else f", 95% interval {row['low']:+.2f} to {row['high']:+.2f}"
        )
        word = _MORE[row["measure"]][row["r"] < 0]
        parts.append(f"{word} (Spearman {row['r']:+.2f}{interval})")
    end = "" if known.height == sure.height else " What else was measured is within chance."
    if sure["low"].null_count():
        end += (
            f" Of fewer than {MIN_BLOCKS_FOR_INTERVAL} blocks of {BLOCK_TOKENS} tokens no interval "
            "is made."
        )
    return f"Tokens use more layers {'; '.join(parts)}.{end}"


def features_of(table: pl.DataFrame) -> list[str]:
    """Return the features of a table in the order of ``FEATURES``, others behind them."""
    present = table["feature"].unique(maintain_order=True).to_list()
    return sorted(present, key=lambda name: [*FEATURES, name].index(name))


def probe_reading(table: pl.DataFrame) -> str:
    """Say where probes of each feature gain most over their control task.

    The best of many layers is far from 0 by chance alone, so that a gain counts only if it is
    beyond chance among all features and layers looked at (Bonferroni).

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
        where = f"behind layer {best['layer']}" if best["layer"] >= 0 else "in the embeddings"
        beyond = stats.t.isf(FALSE_DISCOVERY_RATE / 2 / looked_at, best["groups"] - 1)
        sure = best["selectivity"] > beyond * best["error"]
        words.append(
            f"{FEATURES.get(feature, feature)} {where} ({best['accuracy']:.0%} right, "
            f"{100 * best['selectivity']:+.0f} points over its control"
            + ("" if sure else ", within chance")
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
        f"{reading} For tokens that ran the layer the gain is {abs(points):.0f} points "
        f"{'higher' if points > 0 else 'lower'} than for those that skipped it, on average over "
        "features and layers that choose; these are tokens of other kinds too, and chance is not "
        "reckoned in."
    )


def settling_reading(settled: pl.DataFrame, turned: pl.DataFrame) -> str:
    """Say where predictions are settled, and which layers turn the state.

    Parameters
    ----------
    settled, turned
        What ``convergence_layers`` and ``layer_influence`` of
        ``skipviz.experiments.hidden_states.prediction_by_depth`` returned.
    """
    last = turned.height - 1
    read = settled.drop_nulls("settled")
    words, half = [], "Half of the tokens"
    if read.height < settled.height:
        words.append(
            f"Behind some layer the logit lens says what the model predicts for "
            f"{read.height / settled.height:.0%} of the tokens; the others left early, and only "
            "the translator of their exit says it."
        )
        half = "Of the former, half"
    if read.height:
        before = _mean(read["settled"] < last)
        median = np.median(read["settled"].to_numpy())
        words.append(
            f"{half} have their prediction settled behind layer {median:.0f} of 0 to "
            f"{last}; for {before:.0%} the last layer does "
            f"not change it any more. {_mean(read['layers_after']):.1f} layers run after a "
            "prediction is settled, on average."
        )
    gated = turned.filter(pl.any_horizontal(pl.col("executed", "skipped").is_not_null()))
    # Of those that left early it has been said.
    if gated.height and read.height == settled.height:
        gates = gated["layer"].to_numpy()
        # Behind the last gated layer nobody chooses; where none ran, it stopped before the first.
        chosen = read["exit_depth"].fill_null(gates.min() - 1).to_numpy()
        early = np.mean(chosen < np.minimum(read["settled"].to_numpy(), gates.max()))
        words.append(
            f"{early:.0%} of the tokens stop choosing layers before their prediction is settled."
        )
    apart = turned.drop_nulls(["executed", "skipped"])
    if apart.height:
        more = (apart["executed"] > apart["skipped"]).sum()
        words.append(
            f"A layer turns the state of tokens that ran it further than of those that skipped it "
            f"at {more} of {apart.height} layers."
        )
    return " ".join(words)


def attention_reading(layers: pl.DataFrame, losses: pl.DataFrame) -> str:
    """Say how much attention skipping tokens get, and what their keys and values are worth.

    Parameters
    ----------
    layers, losses
        Of ``skipviz.experiments.hidden_states.attention_paid.AttentionPaid``.
    """
    seen = layers.drop_nulls("paid")
    if seen.is_empty() or losses.is_empty():
        return "Too few tokens ran attention behind others to tell what they look at."
    weight = (seen["tokens"] * seen["earlier"]).to_numpy()
    paid, blind = (np.average(seen[name].to_numpy(), weights=weight) for name in ("paid", "blind"))
    more = (losses["hidden_nll"] - losses["nll"]).to_numpy()
    margin = clustered_margin(more, dependent_groups(losses["sequence"].to_numpy()))
    sure = "" if np.isnan(margin) else f", give or take {margin:.3f}"
    return (
        f"Of the attention that tokens pay to earlier ones, {paid:.0%} goes to tokens that skipped "
        f"the layer they look from; it would be {blind:.0%} if they looked at all alike. With keys "
        f"and values of those hidden, the loss goes from {_mean(losses['nll']):.3f} to "
        f"{_mean(losses['hidden_nll']):.3f} nats a token ({more.mean():+.3f}{sure}, 95% "
        "interval)."
    )


def task_reading(table: pl.DataFrame, *, layers: int) -> str:
    """Say which tasks take most layers.

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
        return f"Every task takes {most['layers']:.1f} of {layers} layers."
    same, pairs = pairs_in_published_order(table)
    return (
        f"“{most['task']}” takes most, {_taken(most)} of {layers} layers, and “{least['task']}” "
        f"least, {_taken(least)}. {same} of {pairs} pairs of tasks are in the order of "
        f"{PUBLISHED_NAME}."
    )


def _taken(row: dict[str, Any]) -> str:
    interval = "" if row["low"] is None else f" ({row['low']:.1f} to {row['high']:.1f})"
    return f"{row['layers']:.1f}{interval}"


def _mean(values: pl.Series) -> float:
    return float(np.mean(values.to_numpy()))
