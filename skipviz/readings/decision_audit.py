"""The page of the audit in sentences."""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from skipviz.analysis.gates.quality import Quality

_CHANCE, _WEAK, _STRONG = 0.05, 0.2, 0.35
"""How far an AUROC lies from 0.5 up to which it is chance, weak and moderate."""

_SINGLE = (
    "This is about single decisions; whether the gates choose the right tokens as a set is what "
    "the shuffled control on the page Policies shows."
)

_NOTED = 0.05
"""The share of the regret from which the first token is worth a word."""


def audit_reading(whole: Quality, shuffled: Quality, *, tokens: int) -> str:
    """Say whether scores tell what is useful, how often decisions were right, what that cost.

    Parameters
    ----------
    whole
        Quality of all decisions.
    shuffled
        The same with each site's scores exchanged between tokens.
    tokens
        Tokens that were audited.
    """
    return (
        f"{_tells(whole.auroc, shuffled.auroc)} The gates decided rightly in {whole.right:z.0%} of "
        f"{whole.cells:,} decisions; running every unit would be right in {whole.worth:z.0%}. The "
        f"wrong ones cost {whole.regret / tokens:z.2f} nats per token, each counted as if it were "
        f"the only one. {_SINGLE}{_calibrated(whole)}"
    )


def _calibrated(whole: Quality) -> str:
    """Say whether the calibration error is more than chance gives; nothing if it is unknown."""
    if math.isnan(whole.calibration_error):
        return ""
    said = f" The calibration error, {whole.calibration_error:z.3f}, is"
    if whole.calibration_error > whole.calibrated_high:
        return (
            f"{said} larger than that of a perfectly calibrated score on so many decisions "
            f"({whole.calibrated:z.3f} on average, at most {whole.calibrated_high:z.3f} in 95% of "
            "draws)."
        )
    return (
        f"{said} not distinguishable from that of a perfectly calibrated score, which is "
        f"{whole.calibrated:z.3f} on average with so many decisions."
    )


def _tells(auroc: float, shuffled: float) -> str:
    """Say in words what the AUROC of the scores means, and how much of it sites alone explain."""
    if math.isnan(auroc):
        return (
            "**Whether the gates' scores tell useful from useless is unknown here**: the AUROC "
            "cannot be computed, because all decisions have one sign."
        )
    over = auroc - 0.5
    if over < -_CHANCE:
        words = "point the wrong way here: units worth running score lower than others"
    elif over <= _CHANCE:
        words = "hardly tell useful from useless here"
    else:
        grade = "weakly" if over <= _WEAK else "moderately well" if over <= _STRONG else "well"
        words = f"tell {grade} which units are worth running"
    said = f"**The gates' scores {words}** (AUROC {auroc:z.2f}; chance 0.50)."
    if over <= _CHANCE or math.isnan(shuffled):
        return said
    rest = f"With the scores of each site shuffled between tokens it is {shuffled:z.2f}"
    if shuffled - 0.5 >= over / 2:
        return f"{said} {rest}: most of it is known from the site alone, without the token."
    return f"{said} {rest}: most of it comes from looking at the token."


def first_token_reading(cells: pl.DataFrame) -> str:
    """Say how much of the regret the first token has, which is unlike all others.

    Parameters
    ----------
    cells
        What ``skipviz.analysis.gates.quality.judged`` returned.

    Returns
    -------
    str
        Empty if the first token was not audited, or has less than 5% of the regret.
    """
    regret = float(cells["regret"].sum())
    first = float(cells.filter(token=0)["regret"].sum())
    if not first or first < _NOTED * regret:
        return ""
    said = (
        f"The first token has {first / regret:z.0%} of the regret. Nothing stands before it and "
        "all later tokens attend to it, so its flips are unlike others and are listed apart."
    )
    others = cells["token"].n_unique() - 1
    if not others:
        return said
    cost = (regret - first) / others
    return f"{said} Without it, wrong decisions cost {cost:z.2f} nats per token."


def rounding_reading(cells: pl.DataFrame) -> str:
    """Say how many utilities hang on rounding, where gates above a flip decide anew.

    Parameters
    ----------
    cells
        What ``skipviz.audit`` returned.

    Returns
    -------
    str
        Empty where gates were held.
    """
    known = cells.drop_nulls("by_rounding")
    if known.is_empty():
        return ""
    count = int(known["by_rounding"].sum())
    least = float(known["later_margin"].min())  # type: ignore[arg-type]
    said = f"The smallest margin of a later gate is {least:.1e}."
    if not count:
        return f"{said} No flip brings a gate so near to its threshold that rounding decides."
    share = f"{count / known.height:z.1%}" if count >= 0.001 * known.height else "under 0.1%"
    return (
        f"{said} **Rounding decides in {count:,} of {known.height:,} flips** "
        f"({share}): a later gate lies nearer to its threshold than rounding "
        "moves its score on this text. Another run may find other utilities; the tables mark "
        "them."
    )


def decision_reading(wrong: dict[str, Any]) -> str:
    """Say what a wrong decision cost.

    Parameters
    ----------
    wrong
        A row of what ``skipviz.analysis.gates.quality.judged`` returned.
    """
    utility = wrong["utility"]
    if not wrong["executed"]:
        return (
            f"It was skipped; running it would have lowered the loss by {utility:z.3f} nats, to "
            f"{wrong['nll'] - utility:z.3f}."
        )
    if utility < 0:
        return f"It ran; skipping it would have lowered the loss by {-utility:z.3f} nats."
    return f"It ran; this lowered the loss by {utility:z.3f} nats, less than its FLOPs were worth."
