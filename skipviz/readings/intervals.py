"""Why an interval or a p-value of a correlation is missing, in sentences of several pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from skipviz.analysis.statistics.blocks import BLOCK_TOKENS
from skipviz.analysis.statistics.correlation import MIN_BLOCKS_FOR_INTERVAL

_WHY = {
    "blocks": f"these are fewer than {MIN_BLOCKS_FOR_INTERVAL} blocks of {BLOCK_TOKENS} tokens",
    "trends": "slow changes along the text move the coefficient",
    "weight": "the coefficient rests on too few tokens",
}


def coefficient_words(row: dict[str, Any], *, why: bool = True) -> str:
    """Say a coefficient with its 95% interval, or why there is none, and what it is without trends.

    Parameters
    ----------
    row
        ``r``, ``low``, ``high``, ``withheld`` and ``r_detrended``, null where unknown.
    why
        Whether to say why there is no interval; of several, ``no_interval_words`` says it once.
    """
    words = f"{row['r']:+z.2f}"
    if row["low"] is not None:
        return f"{words}, 95% interval {row['low']:+z.2f} to {row['high']:+z.2f}"
    if row["withheld"] is None:
        return words
    if why:
        words += f", no interval as {_WHY[row['withheld']]}"
    if row["withheld"] == "trends" and row["r_detrended"] is not None:
        words += (
            f": {row['r_detrended']:+z.2f} without them"
            if why
            else (f", {row['r_detrended']:+z.2f} without slow changes")
        )
    return words


def no_interval_words(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Say in a sentence why coefficients have no interval, each reason once; none if all have one.

    Parameters
    ----------
    rows
        As ``coefficient_words`` takes them.
    """
    reasons = Counter(row["withheld"] for row in rows if row["low"] is None and row["withheld"])
    if not reasons:
        return []
    if len(reasons) == 1 and reasons.total() == len(rows):
        return [f"No interval is given, as {_WHY[next(iter(reasons))]}."]
    parts = [f"for {count} of them, as {_WHY[reason]}" for reason, count in sorted(reasons.items())]
    return [f"No interval is given {'; '.join(parts)}."]


def q_words(q: float | None) -> str:
    """Say a q-value, or that there is none.

    Parameters
    ----------
    q
        The q-value; None if there is none.
    """
    return "too little is left to test" if q is None else f"q {q:z.3f}"


def withheld_words(reasons: dict[str, int]) -> str:
    """Say how many coefficients have no interval, and why; nothing if all have one.

    Parameters
    ----------
    reasons
        How many there are for each that ``Correlation`` names.
    """
    parts = [f"for {count:,}, {_WHY[reason]}" for reason, count in sorted(reasons.items())]
    if not parts:
        return ""
    return f"Intervals that would not hold are not drawn: {'; '.join(parts)}."
