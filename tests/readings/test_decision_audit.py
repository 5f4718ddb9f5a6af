from __future__ import annotations

import dataclasses

from skipviz.analysis.gates.quality import Quality
from skipviz.readings.decision_audit import audit_reading, decision_reading

WHOLE = Quality(
    cells=1200, worth=0.4, right=0.75, auroc=0.81, average_precision=0.7, calibration_error=0.1,
    regret=30.0,
)  # fmt: skip


def test_the_audit_says_how_often_how_much_and_whether_scores_tell() -> None:
    shuffled = dataclasses.replace(WHOLE, auroc=0.66)
    assert audit_reading(WHOLE, shuffled, tokens=40) == (
        "The gates decided rightly in 75% of 1,200 decisions. The wrong ones cost 0.75 nats per "
        "token, each counted as if it were the only one. The AUROC of the scores is 0.81, and "
        "0.66 if the scores of each site are shuffled between tokens (0.5 is chance)."
    )
    alike = dataclasses.replace(WHOLE, auroc=float("nan"))
    assert "cannot be computed" in audit_reading(alike, alike, tokens=40)


def test_a_wrong_decision_is_said_with_what_was_right() -> None:
    row = {"executed": False, "utility": 0.5, "nll": 2.0}
    assert decision_reading(row) == (
        "It was skipped; running it would have lowered the loss by 0.500 nats, to 1.500."
    )
    ran = row | {"executed": True}
    assert decision_reading(ran | {"utility": -0.5}) == (
        "It ran; skipping it would have lowered the loss by 0.500 nats."
    )
    assert "less than its FLOPs were worth" in decision_reading(ran)
