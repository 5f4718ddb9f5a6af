"""What attributions and coefficients say, in sentences made from the figures."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from skipviz.analysis.gates.agreement import Agreement

SURE = 0.05
"""The share of false discoveries up to which a finding is named."""
NEAR = 0.1
"""How much of what they should add up to shares may miss and still be trusted."""
NONE, WEAK, STRONG = 0.1, 0.3, 0.6
FEW = 20
"""Cells below which a rank coefficient says little."""


def text_reading(pieces: pl.DataFrame, *, what: str, unit: str) -> str:
    """Say which parts of the text contributed most.

    Parameters
    ----------
    pieces
        What ``skipviz.analysis.gates.word_shares.shares_by_word`` returned.
    what
        What is explained.
    unit
        Of the shares.
    """
    known = pieces.drop_nulls("attribution")
    raised = known.filter(pl.col("attribution") > 0).sort("attribution", descending=True).head(3)
    lowered = known.filter(pl.col("attribution") < 0).sort("attribution").head(3)
    total = float(known["attribution"].abs().sum())
    if total == 0:
        return f"Nothing in the text changes {what}."
    parts = [
        f"{verb} most by {_listed(rows, unit)}"
        for verb, rows in (("raised", raised), ("lowered", lowered))
        if rows.height
    ]
    top = known["attribution"].abs().sort(descending=True)
    half = int(((top / total).cum_sum() < 0.5).sum()) + 1
    return (
        f"{what[0].upper()}{what[1:]} is {', and '.join(parts)}. "
        f"Half of all that was given out falls on {half} of {known.height} pieces."
    )


def sum_reading(delta: float | None, total: float) -> str:
    """Say whether shares add up to what they should.

    Parameters
    ----------
    delta
        By how much their sum is off; None where that is not worked out.
    total
        Their sum.
    """
    if delta is None:
        return "For this method it is not looked at whether the shares add up."
    due = total - delta
    if abs(delta) <= NEAR * abs(due):
        return (
            f"The shares should add up to {due:+.3f} and miss it by {delta:+.3f}: the path was "
            "walked finely enough."
        )
    return (
        f"The shares should add up to {due:+.3f} and miss it by {delta:+.3f}. **Do not trust "
        "them**: take more steps, and where that does not help, a method that walks no path "
        "(feature ablation, Shapley sampling)."
    )


def paths_reading(deltas: Sequence[float], sums: Sequence[float]) -> str:
    """Say whether the shares of the two paths over depth add up to what they should.

    Parameters
    ----------
    deltas
        The misses: of the path to what ran, and of the path from there to all run.
    sums
        Sums of the shares of each path.
    """
    names = ("what ran", "what was skipped")
    sentences = []
    for name, delta, total in zip(names, deltas, sums, strict=True):
        due = total - delta
        fine = abs(delta) <= NEAR * abs(due)
        sentences.append(
            f"The shares of {name} should add up to {due:+.3f} nats and miss it by {delta:+.3f}"
            + (": finely enough." if fine else ". **Do not trust their sizes**: take more steps.")
        )
    return " ".join(sentences)


def depth_reading(cells: pl.DataFrame, found: Agreement, *, what: str) -> str:
    """Say where over the depth the difference was made, and whether exact flips agree.

    Parameters
    ----------
    cells
        What ``skipviz.analysis.gates.agreement.worth_of_cells`` returned.
    found
        What ``agreement`` returned of those that were flipped.
    what
        Whose loss.
    """
    ran = cells.filter("executed")
    skipped = cells.filter(~pl.col("executed"))
    sentences = [
        f"Gated units that ran lowered the loss of {what} by "
        f"{float(ran['share'].sum()):.2f} nats in all",
    ]
    if ran.height:
        best = ran.group_by("label").agg(pl.col("share").sum()).sort("share", descending=True)
        sentences[0] += f", {best['label'][0]} most ({best['share'][0]:.2f})"
    sentences.append(
        f"those that were skipped would have lowered it by {float(skipped['share'].sum()):.2f}"
        if skipped.height
        else "none was skipped"
    )
    return f"{'; '.join(sentences)}. {_agreed(found)}"


def correlation_reading(table: pl.DataFrame, *, method: str, value: str) -> str:
    """Say how far scores go with a figure, over all and site by site.

    Parameters
    ----------
    table
        What ``skipviz.analysis.gates.score_correlation.score_correlations`` returned.
    method
        The coefficient meant.
    value
        What the scores were held against.
    """
    mine = table.filter(pl.col("method") == method)
    plain, controlled = (
        mine.filter(pl.col("controlled") == each, pl.col("scope") == "all").row(0, named=True)
        for each in (False, True)
    )
    if plain["r"] is None:
        return f"Nothing can be said: at every site all scores, or all of {value}, are alike."
    sites = mine.filter(pl.col("scope") == "site", pl.col("controlled"), pl.col("r").is_not_null())
    up = sites.filter(pl.col("q") <= SURE, pl.col("r") > 0).height
    down = sites.filter(pl.col("q") <= SURE, pl.col("r") < 0).height
    interval = (
        "" if plain["low"] is None else f", 95% interval {plain['low']:.2f} to {plain['high']:.2f}"
    )
    words = (
        f"Over all sites, scores {_strength(plain['r'], 'go')} with {value} "
        f"({method.capitalize()} {plain['r']:.2f}{interval}, q {plain['q']:.3f})"
    )
    if controlled["r"] is not None:
        words += (
            f"; with position, word frequency, surprisal and length taken out it is "
            f"{controlled['r']:.2f} (q {controlled['q']:.3f})"
        )
    return (
        f"{words}. Controlled so and corrected for {table['p'].drop_nulls().len():,} tests, "
        f"{up} of {sites.height} sites score surely higher where {value} is higher, and {down} "
        f"surely lower."
    )


def _agreed(found: Agreement) -> str:
    if found.rank != found.rank:
        return "There are too few exact flips to hold them against."
    words = (
        f"Ranks of shares and of {found.cells} exact flips {_strength(found.rank, 'agree')} "
        f"(Spearman {found.rank:.2f}), and in {found.same_sign:.0%} of them both say the same of "
        "helping or hurting"
    )
    if found.cells < FEW:
        return f"{words}. So few flips say little."
    parts = {"ran": found.ran, "were skipped": found.skipped}
    known = [f"{_strength(r, 'agree')} ({r:.2f}) where units {name}"
             for name, r in parts.items() if r == r]  # fmt: skip
    words += f"; they {' and '.join(known)}." if known else "."
    if abs(found.ran) < NONE:
        words += " **Shares of units that ran say next to nothing of what their flips are worth.**"
    return words


def _strength(r: float, verb: str) -> str:
    size = abs(r)
    if size < NONE:
        return f"hardly {verb}"
    grade = "weakly" if size < WEAK else "moderately" if size < STRONG else "strongly"
    return f"{verb} {grade}" + (" and in reverse" if r < 0 else "")


def _listed(rows: pl.DataFrame, unit: str) -> str:
    named = [
        f"{(text.strip() or text)!r} ({share:+.2f})"
        for text, share in rows.select("text", "attribution").rows()
    ]
    joined = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
    return f"{joined} {unit}"
