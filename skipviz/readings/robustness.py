"""The page of robustness in sentences, a paragraph for each thing that was tried."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from skipviz.analysis.robustness.decision_shift import OTHER_CONTEXT
from skipviz.analysis.robustness.drift import LAYERS_USED, SHIFTED
from skipviz.analysis.robustness.tails import CONTEXT_TOKENS, cost_of_worst
from skipviz.analysis.statistics.blocks import BLOCK_TOKENS
from skipviz.analysis.statistics.multiple_tests import FALSE_DISCOVERY_RATE
from skipviz.readings.sites import site_name

_LARGEST = 3
"""Sites that a sentence names."""


def surface_words(table: pl.DataFrame) -> str:
    """Say what changes of the surface do.

    Parameters
    ----------
    table
        What ``skipviz.analysis.robustness.decision_shift.shift_of_decisions`` returned.
    """
    touched = table.filter("touched").drop_nulls("moved").sort("moved", descending=True)
    others = table.filter(~pl.col("touched")).drop_nulls("moved").sort("moved", descending=True)
    said: list[str] = []
    if touched.is_empty():
        said.append("None of the changes applies to a word of this text.")
    else:
        most = touched.row(0, named=True)
        said.append(
            f"Of the words that were changed, paths differ most under {most['kind']}: "
            f"at least {_share(most, 'moved')} of their decisions differ" + _against_apart(most)
        )
        if touched.height > 1:
            least = touched.row(-1, named=True)
            said.append(f"They differ least under {least['kind']}, by {_share(least, 'moved')}.")
        said += _largest(touched, "loss", "Loss changes", "nats per word")
        said += _largest(touched, "layers", "Layers used change", "per token")
    if others.height:
        first, last = others.row(0, named=True), others.row(-1, named=True)
        said.append(
            "In words that were not changed themselves, decisions differ by "
            + (
                f"{first['moved']:z.0%}"
                if others.height == 1
                else f"{last['moved']:z.0%} ({last['kind']}) to {first['moved']:z.0%} "
                f"({first['kind']})"
            )
            + f": {_reach(others)}."
        )
    return " ".join([*said, *_without_interval(table)])


def paraphrase_words(table: pl.DataFrame, pairs: pl.DataFrame) -> str:
    """Say what paraphrases do.

    Parameters
    ----------
    table
        What ``summary`` returned for the words that both sides have.
    pairs
        One row per pair, as ``paraphrase_changes`` returned them.
    """
    count = f"{pairs.height} pair" + ("" if pairs.height == 1 else "s")
    same = table.filter(~pl.col("touched")).drop_nulls("moved")
    if same.is_empty():
        return f"The two sides of the {count} have no words in common to compare."
    row = same.row(0, named=True)
    layers, loss = (
        float((pairs[f"{name}_after"] - pairs[f"{name}_before"]).abs().to_numpy().mean())
        for name in ("layers", "loss")
    )
    parts = [
        f"In {count}, words that both sides have in common differ in at least "
        f"{_share(row, 'moved')} of their decisions{_against_apart(row)}",
        f"On average, the two sides of a pair differ by {layers:z.1f} layers per token"
        + (
            ", in either direction."
            if np.isnan(loss)
            else f" and by {loss:z.1f} nats for the whole sentence without its first token, in "
            "either direction."
        ),
    ]
    return " ".join([*parts, *_without_interval(same)])


def context_words(table: pl.DataFrame) -> str:
    """Say what other contexts do, from what ``summary`` returned.

    Sentences without another context, because any overlaps their own, are counted.
    """
    parts = []
    for row in table.drop_nulls("moved").iter_rows(named=True):
        parts.append(
            f"With {row['kind']}, at least {_share(row, 'moved')} of the decisions of a sentence "
            f"differ{_against_apart(row)}{_cost(row)}"
        )
    tried = int(table.filter(kind=OTHER_CONTEXT)["units"].sum())
    missing = int(table["units"].to_numpy().max(initial=0)) - tried
    if not tried:
        parts.append(
            "No sentence was put into another context: in a short text, the words before another "
            "sentence overlap its own."
        )
    elif missing:
        parts.append(
            f"{missing} {'sentence was' if missing == 1 else 'sentences were'} not put into "
            "another context, because every other context overlaps their own."
        )
    return " ".join([*parts, *_without_interval(table)])


def batch_words(table: pl.DataFrame) -> str:
    """Say whether a batch changed anything, from what ``batch_changes`` returned."""
    names = ("decisions", "flips", "ties", "followed")
    decisions, flips, ties, followed = (int(table[name].sum()) for name in names)
    furthest = (
        "Between a run alone and in the padded batch, scores differ by at most "
        f"{_largest_of(table, 'score_difference'):.1g} and losses by "
        f"{_largest_of(table, 'loss_difference'):.1g} nats."
    )
    if not flips:
        return f"None of {decisions:,} decisions differs in the batch. {furthest}"
    rest = flips - ties - followed
    return (
        f"{flips:,} of {decisions:,} decisions {'differs' if flips == 1 else 'differ'} in the "
        f"batch: {ties:,} within rounding error of the threshold, and {followed:,} as a "
        "consequence of an earlier difference. "
        + (
            f"{rest:,} {'is' if rest == 1 else 'are'} not due to rounding: the other texts or the "
            "padding affect these gates. "
            if rest
            else ""
        )
        + furthest
    )


def tails_words(table: pl.DataFrame, costs: pl.DataFrame, *, layers: int) -> str:
    """Say what the tails are.

    Parameters
    ----------
    table
        What ``skipviz.analysis.robustness.tails.tails`` returned.
    costs
        What ``skipviz.analysis.robustness.tails.over_dense`` returned.
    layers
        Layers of the model.
    """
    used = costs["layers_used"].to_numpy().astype(np.float64)
    half, most = np.quantile(used, [0.5, 0.99])
    count, mean, rest = cost_of_worst(costs)
    values = costs["over_dense"].to_numpy()
    said = [
        f"Half of the tokens use at most {half:z.1f} of {layers} layers; 1% use more than "
        f"{most:z.1f}.",
        f"Skipping costs {mean:z.2f} nats per token on average; for 1% of the tokens it costs more "
        f"than {np.quantile(values, 0.99):z.1f}.",
        f"Without the cost of the worst 1% of tokens ({count:,}), the mean would be {rest:z.2f}.",
        f"For {(values < 0).mean():z.0%} of the tokens the skipping model predicts better than the "
        "dense one.",
    ]
    known = table.drop_nulls("over_dense_p99")
    if known.height > 1:
        worst = known.sort("over_dense_p99", descending=True).row(0, named=True)
        said.append(
            f"Of {known.height:,} documents, {worst['source']} has the highest 99th percentile: "
            f"{worst['over_dense_p99']:z.1f} nats."
        )
    if len(values) < 100:
        said.append(
            "With fewer than 100 tokens, the 99th percentile lies between the two highest values."
        )
    return " ".join(said)


def places_words(places: pl.DataFrame, costs: pl.DataFrame) -> str:
    """Say what a row of the worst places is, and how many tokens as bad have none.

    Parameters
    ----------
    places
        What ``skipviz.analysis.robustness.tails.worst_places`` returned, unless told otherwise.
    costs
        What it was given.
    """
    if places.is_empty():
        return "Skipping costs nothing at any of these tokens."
    least = float(places["over_dense"].to_numpy().min())
    worse = costs.filter(pl.col("over_dense") > least).height - (places.height - 1)
    rows = "1 place is" if places.height == 1 else f"{places.height} places are"
    said = (
        f"{rows} shown. Of tokens within {CONTEXT_TOKENS} of each other only the worst is shown, "
        "so that one passage does not fill the table."
    )
    if not worse:
        return f"{said} No other token costs more than the last row."
    return (
        f"{said} {worse:,} more {'token costs' if worse == 1 else 'tokens cost'} more than the "
        "last row; “Every token” below has all."
    )


def drift_words(table: pl.DataFrame) -> str:
    """Say what has drifted, from what ``skipviz.analysis.robustness.drift.drift`` returned."""
    whole = table.filter(figure=LAYERS_USED).row(0, named=True)
    sites = table.filter(pl.col("figure") != LAYERS_USED)
    said = [
        f"Layers used average {whole['mean_before']:z.2f} before and {whole['mean_after']:z.2f} "
        f"after: {_level(whole)}."
    ]
    changed = sites.filter(pl.col("level") != "stable").sort("psi", descending=True)
    counts = [(level, changed.filter(level=level).height) for level in ("drifted", "shifted")]
    if changed.is_empty():
        said.append(f"None of the {sites.height} gates has shifted or drifted.")
    else:
        found = " and ".join(f"{count} {level}" for level, count in counts if count)
        names = [
            f"{_site(row)} (index {row['psi']:z.2f}, {_chance(row)}, scores "
            f"{'higher' if row['delta'] > 0 else 'lower'} after)"
            for row in changed.head(_LARGEST).iter_rows(named=True)
        ]
        said.append(f"Of {sites.height} gates, {found}, most strongly {_listed(names)}.")
    noise = sites.filter(pl.col("level") == "stable", pl.col("psi") >= SHIFTED).height
    if noise:
        more = "" if changed.is_empty() else " more"
        said.append(
            f"{noise}{more} {'has an index' if noise == 1 else 'have indices'} of {SHIFTED:g} or "
            f"above, not distinguishable from chance (q of {FALSE_DISCOVERY_RATE:g} or above)."
        )
    if whole["exchanged"] == "blocks":
        said.append(
            f"There are too few documents for a test between documents, so blocks of "
            f"{BLOCK_TOKENS} tokens were exchanged: the result holds for these texts, not for the "
            "kinds of text that they represent."
        )
    return " ".join(said)


def _reach(others: pl.DataFrame) -> str:
    """Say whether changes reach words that were not changed themselves."""
    if (others["moved_low"].fill_null(0.0) > 0).any():
        return "changes to other words affect their gates"
    if not others["moved"].to_numpy().any():
        return "changes to other words do not affect their gates"
    if others["moved_low"].null_count() == others.height:
        return "the text is too short to say whether changes to other words affect their gates"
    return "no effect of changes to other words distinguishable from zero"


def _share(row: dict[str, Any], name: str) -> str:
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    return f"{value:z.0%}" + ("" if low is None else f" ({low:z.0%} to {high:z.0%})")


def _number(row: dict[str, Any], name: str) -> str:
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    return f"{value:+z.1f}" + ("" if low is None else f" ({low:+z.1f} to {high:+z.1f})")


def _against_apart(row: dict[str, Any]) -> str:
    if row["apart"] is None:
        return "."
    return f" (two unrelated words: {row['apart']:z.0%})."


def _cost(row: dict[str, Any]) -> str:
    if row["loss"] is None:
        return ""
    return f" Its loss changes by {_number(row, 'loss')} nats per word."


def _largest(table: pl.DataFrame, name: str, words: str, unit: str) -> list[str]:
    """Say under which change a figure changes most, if that is known."""
    known = table.drop_nulls(name)
    if known.is_empty():
        return []
    row = known.sort(pl.col(name).abs(), descending=True).row(0, named=True)
    return [f"{words} most under {row['kind']}, by {_number(row, name)} {unit}."]


def _largest_of(table: pl.DataFrame, name: str) -> float:
    return float(table[name].to_numpy().max())


def _without_interval(table: pl.DataFrame) -> list[str]:
    few = table.filter(pl.col("moved_low").is_null(), pl.col("moved").is_not_null())
    if few.is_empty():
        return []
    return ["Where no interval is given, the text is too short for one."]


def _level(row: dict[str, Any]) -> str:
    level = row["level"]
    if level == "stable" and row["psi"] >= SHIFTED:
        level = "not distinguishable from chance"
    return f"{level} (index {row['psi']:z.2f}, {_chance(row)})"


def _chance(row: dict[str, Any]) -> str:
    return f"{row['psi_chance']:z.2f} expected without drift"


def _site(row: dict[str, Any]) -> str:
    return site_name(row["layer"], row["unit"], row["visit"]).replace("Layer", "layer", 1)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
