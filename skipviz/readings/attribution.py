"""The page of attribution in sentences."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import polars as pl

from skipviz.analysis.gates.agreement import Agreement
from skipviz.analysis.statistics.multiple_tests import FALSE_DISCOVERY_RATE, correlation_found
from skipviz.readings.intervals import coefficient_words, q_words

if TYPE_CHECKING:
    from skipviz.experiments.attribution.target import Attribution

_TOLERANCE = 0.1
"""How much of their total shares may miss and still be trusted."""
_NONE, _WEAK, _STRONG = 0.1, 0.3, 0.6
_FEW = 20
"""Flips below which a rank correlation says little."""


def score_reading(token: int, *, score: float, threshold: float, ran: bool) -> str:
    """Say what a gate decided for a token, and in what its score is explained.

    Parameters
    ----------
    token
        Its number.
    score, threshold
        On the gate's own scale; NaN where unknown.
    ran
        The decision.
    """
    outcome = "it ran" if ran else "it was skipped"
    if math.isnan(score):
        return f"For token {token} the gate score is unknown; {outcome}."
    if math.isnan(threshold):
        return (
            f"For token {token} the gate score is {score:z.3f} and there is no threshold; "
            f"{outcome}. Shares are in units of the gate's own scale."
        )
    return (
        f"For token {token} the gate score is {score:z.3f} and the threshold {threshold:z.3f}, so "
        f"{outcome}. Shares are in units of the gate's own scale."
    )


def text_reading(pieces: pl.DataFrame, *, what: str, unit: str) -> str:
    """Say which tokens or words contributed most.

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
        f"Half of the total size of all shares comes from {half} of {known.height} parts."
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
        return (
            "Their sum need not be this value, nor have its sign: a share is a change that the "
            "tokens make, and nothing here checks what the shares add up to."
        )
    due = total - delta
    if abs(delta) <= _TOLERANCE * abs(due):
        return (
            f"The shares should add up to {due:+z.3f} and miss it by {delta:+z.3f}: the path has "
            "enough steps."
        )
    return (
        f"The shares should add up to {due:+z.3f} and miss it by {delta:+z.3f}. **They are not "
        "reliable**: use more steps or, if that does not help, a method without a path (feature "
        "ablation, Shapley sampling)."
    )


def paths_reading(found: Attribution) -> str:
    """Say whether the shares of the two paths over depth add up to what they should.

    Parameters
    ----------
    found
        What ``skipviz.attribute_depth`` returned.
    """
    names = ("what ran", "what was skipped")
    columns = ("from_skipped", "to_all")
    sentences = []
    for name, column, missed, due, steps in zip(
        names, columns, found.deltas, found.due, found.steps, strict=True
    ):
        should = f"should add up to {due:+z.3f} nats and miss it by {missed:+z.3f}"
        if found.table[column].null_count():
            sentences.append(
                f"**No shares of {name} are shown.** They {should} after {steps:,} steps, with "
                "misses along the path that are larger than 5% of it. Start with more steps, or "
                "explain a single token."
            )
        else:
            sentences.append(f"The shares of {name} {should} after {steps:,} steps.")
    return " ".join(sentences)


def flips_reading(flips: int, *, whole: bool) -> str:
    """Say which decisions were flipped, and why flips and shares may differ.

    Parameters
    ----------
    flips
        How many.
    whole
        Whether the loss is that of the whole text.
    """
    which = (
        f"{flips} of all decisions, drawn at random, each with its effect on all of the text that "
        "follows"
        if whole
        else f"the {flips} decisions of the token itself"
    )
    return (
        f"Flips and shares are of the same loss. Flipped were {which}. A flip changes one decision "
        "and leaves all others; a share is an average over a path on which all of them change at "
        "once. The two may differ and both be right."
    )


def depth_reading(cells: pl.DataFrame, found: Agreement | None, *, what: str) -> str:
    """Say where over the depth the difference was made, and whether exact flips agree.

    Parameters
    ----------
    cells
        What ``skipviz.analysis.gates.agreement.worth_of_cells`` returned.
    found
        What ``agreement`` returned of those that were flipped; None if none of them has a share.
    what
        Whose loss.
    """
    ran = cells.filter("executed")
    skipped = cells.filter(~pl.col("executed"))
    if ran["share"].null_count():
        sentences = [
            f"By how much gated units that ran changed the loss of {what} cannot be told: their "
            "shares do not add up"
        ]
    else:
        sentences = [
            f"Gated units that ran {_lowered(ran)} the loss of {what} by {_total(ran)} nats"
        ]
        if ran.height:
            # The one that did most of what all did together.
            sites = ran.group_by("label").agg(pl.col("share").sum())
            best = sites.sort("share", descending=_lowered(ran) == "lowered").row(0, named=True)
            sentences[0] += f", {best['label']} most ({abs(best['share']):z.2f})"
    if skipped["share"].null_count():
        sentences.append("the shares of those that were skipped do not add up")
    elif skipped.height:
        sentences.append(
            f"those that were skipped would have {_lowered(skipped)} it by {_total(skipped)}"
        )
    else:
        sentences.append("none was skipped")
    agreed = "No exact flip has a share to compare with." if found is None else _agreed(found)
    return f"{'; '.join(sentences)}. {agreed}"


def correlation_reading(table: pl.DataFrame, *, method: str, value: str) -> str:
    """Say how strongly scores correlate with a quantity, over all sites and at each.

    Parameters
    ----------
    table
        What ``skipviz.correlate`` returned.
    method
        The coefficient meant.
    value
        What the scores were correlated with.
    """
    mine = table.filter(pl.col("method") == method)
    plain, controlled = (
        mine.filter(pl.col("controlled") == each, pl.col("scope") == "all").row(0, named=True)
        for each in (False, True)
    )
    if plain["r"] is None:
        return (
            f"No correlation can be computed: at every site all scores, or all {value}, are equal."
        )
    sites = mine.filter(pl.col("scope") == "site", pl.col("controlled"), pl.col("r").is_not_null())
    found = sites.filter(correlation_found())
    up, down = (found.filter(pl.col("r").sign() == sign).height for sign in (1, -1))
    words = (
        f"Over all sites, scores {_strength(plain['r'], 'correlate')} with {value} "
        f"({method.capitalize()} {coefficient_words(plain)}, {q_words(plain['q'])})"
    )
    if controlled["r"] is not None:
        words += (
            f"; controlled for {controlled['controls']}, the coefficient is "
            f"{coefficient_words(controlled)} ({q_words(controlled['q'])})"
        )
    return (
        f"{words}. With these controls, the correlation is positive at {up} and negative at {down} "
        f"of {sites.height} sites (q at most {FALSE_DISCOVERY_RATE:g} among "
        f"{table['p'].drop_nulls().len():,} tests)."
    )


def _agreed(found: Agreement) -> str:
    if found.rank != found.rank:
        return "There are too few exact flips to compare with."
    words = (
        f"The ranks of shares and of {found.cells} exact flips {_strength(found.rank, 'agree')} "
        f"(Spearman {found.rank:z.2f}); {found.same_sign:z.0%} have the same sign"
    )
    if found.cells < _FEW:
        return f"{words}. So few flips are weak evidence."
    parts = {"ran": found.ran, "were skipped": found.skipped}
    known = [f"{_strength(r, 'agree')} ({r:z.2f}) for units that {name}"
             for name, r in parts.items() if r == r]  # fmt: skip
    words += f". They {' and '.join(known)}." if known else "."
    if abs(found.ran) < _NONE:
        words += " **Shares of units that ran say almost nothing about the effect of their flips.**"
    return words


def _lowered(cells: pl.DataFrame) -> str:
    return "lowered" if float(cells["share"].sum()) >= 0 else "raised"


def _total(cells: pl.DataFrame) -> str:
    return f"{abs(float(cells['share'].sum())):z.2f}"


def _strength(r: float, verb: str) -> str:
    size = abs(r)
    if size < _NONE:
        return f"hardly {verb}"
    grade = "weakly" if size < _WEAK else "moderately" if size < _STRONG else "strongly"
    return f"{verb} {grade}" + (", in the opposite direction," if r < 0 else "")


def _listed(rows: pl.DataFrame, unit: str) -> str:
    named = [
        f"{(text.strip() or text)!r} ({share:+z.2f})"
        for text, share in rows.select("text", "attribution").rows()
    ]
    joined = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
    return f"{joined} {unit}"
