"""The page of the audit in sentences."""

from __future__ import annotations

from typing import Any

from skipviz.analysis.gates.quality import Quality


def audit_reading(whole: Quality, shuffled: Quality, *, tokens: int) -> str:
    """Say how often the gates decided rightly, what that cost, and whether scores tell.

    Parameters
    ----------
    whole
        Quality of all decisions.
    shuffled
        The same with each site's scores exchanged between tokens.
    tokens
        Tokens that were audited.
    """
    tells = (
        "cannot be computed, because all decisions have the same sign"
        if whole.auroc != whole.auroc
        else f"is {whole.auroc:.2f}, and {shuffled.auroc:.2f} if the scores of each site are "
        "shuffled between tokens (0.5 is chance)"
    )
    return (
        f"The gates decided rightly in {whole.right:.0%} of {whole.cells:,} decisions. The wrong "
        f"ones cost {whole.regret / tokens:.2f} nats per token, each counted as if it were the "
        f"only one. The AUROC of the scores {tells}."
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
            f"It was skipped; running it would have lowered the loss by {utility:.3f} nats, to "
            f"{wrong['nll'] - utility:.3f}."
        )
    if utility < 0:
        return f"It ran; skipping it would have lowered the loss by {-utility:.3f} nats."
    return f"It ran; this lowered the loss by {utility:.3f} nats, less than its FLOPs were worth."
