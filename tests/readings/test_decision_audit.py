from __future__ import annotations

import dataclasses

import polars as pl
import pytest

from skipviz.analysis.gates.quality import Quality
from skipviz.readings.decision_audit import (
    audit_reading,
    decision_reading,
    first_token_reading,
    rounding_reading,
)

WHOLE = Quality(
    cells=1200, worth=0.4, right=0.75, auroc=0.81, average_precision=0.7, calibration_error=0.1,
    calibrated=0.04, calibrated_high=0.06, regret=30.0,
)  # fmt: skip


def test_the_audit_says_how_often_how_much_and_whether_scores_tell() -> None:
    shuffled = dataclasses.replace(WHOLE, auroc=0.66)
    assert audit_reading(WHOLE, shuffled, tokens=40) == (
        "**The gates' scores tell moderately well which units are worth running** (AUROC 0.81; "
        "chance 0.50). With the scores of each site shuffled between tokens it is 0.66: most of "
        "it is known from the site alone, without the token. The gates decided rightly in 75% of "
        "1,200 decisions; running every unit would be right in 40%. The wrong ones cost 0.75 nats "
        "per token, each counted as if it were the only one. This is about single decisions; "
        "whether the gates choose the right tokens as a set is what the shuffled control on the "
        "page Policies shows. The calibration "
        "error, 0.100, is larger than that of a perfectly calibrated score on so many "
        "decisions (0.040 on average, at most 0.060 in 95% of draws)."
    )
    alike = dataclasses.replace(WHOLE, auroc=float("nan"))
    assert "cannot be computed" in audit_reading(alike, alike, tokens=40)


def test_a_calibration_error_is_said_beside_that_of_a_calibrated_score() -> None:
    small = dataclasses.replace(WHOLE, calibration_error=0.05)
    assert audit_reading(small, small, tokens=40).endswith(
        "The calibration error, 0.050, is not distinguishable from that of a perfectly calibrated "
        "score, which is 0.040 on average with so many decisions."
    )
    unknown = dataclasses.replace(WHOLE, calibration_error=float("nan"))
    assert "calibrat" not in audit_reading(unknown, unknown, tokens=40)


@pytest.mark.parametrize(
    ("auroc", "shuffled", "words"),
    [
        (0.52, 0.51, "scores hardly tell useful from useless here** (AUROC 0.52; chance 0.50)"),
        (0.46, 0.51, "hardly tell useful from useless here** (AUROC 0.46"),
        (0.40, 0.50, "scores point the wrong way here"),
        (
            0.62,
            0.55,
            "scores tell weakly which units are worth running** (AUROC 0.62; chance 0.50). With",
        ),
        (0.90, 0.60, "scores tell well which units"),
        (0.90, 0.60, "most of it comes from looking at the token."),
        (
            0.62,
            float("nan"),
            "tell weakly which units are worth running** (AUROC 0.62; chance 0.50). The gates",
        ),
    ],
)
def test_an_auroc_is_said_in_words(auroc: float, shuffled: float, words: str) -> None:
    whole, blind = (dataclasses.replace(WHOLE, auroc=each) for each in (auroc, shuffled))
    said = audit_reading(whole, blind, tokens=40)
    assert words in said
    if auroc < 0.55 or shuffled != shuffled:
        assert "shuffled between tokens" not in said


def test_the_first_token_is_set_apart() -> None:
    cells = pl.DataFrame({"token": [0, 0, 1, 2], "regret": [3.0, 3.0, 1.0, 1.0]})
    said = first_token_reading(cells)
    assert said.startswith("The first token has 75% of the regret.")
    assert said.endswith("Without it, wrong decisions cost 1.00 nats per token.")
    assert "Without" not in first_token_reading(cells.head(2))
    assert first_token_reading(cells.filter(pl.col("token") > 0)) == ""
    little = cells.with_columns(pl.when(token=0).then(0.01).otherwise("regret").alias("regret"))
    assert first_token_reading(little) == ""


def test_what_rounding_decides_is_counted() -> None:
    schema = {"later_margin": pl.Float64, "by_rounding": pl.Boolean}
    cells = pl.DataFrame(
        {"later_margin": [6e-8, 0.1, 0.2, None], "by_rounding": [True, False, False, None]},
        schema=schema,
    )
    said = rounding_reading(cells)
    assert said.startswith("The smallest margin of a later gate is 6.0e-08.")
    assert "**Rounding decides in 1 of 3 flips** (33.3%)" in said
    many = pl.concat([cells[:1], *[cells[1:2]] * 2999])
    assert "in 1 of 3,000 flips** (under 0.1%)" in rounding_reading(many)
    assert "No flip brings a gate so near" in rounding_reading(cells[1:])
    assert rounding_reading(cells[3:]) == ""


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
