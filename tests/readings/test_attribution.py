from __future__ import annotations

import polars as pl
import pytest

from skipviz.analysis.gates.agreement import Agreement
from skipviz.experiments.attribution.target import Attribution
from skipviz.readings.attribution import (
    correlation_reading,
    depth_reading,
    flips_reading,
    paths_reading,
    score_reading,
    sum_reading,
    text_reading,
)


def of(texts: list[str], shares: list[float | None]) -> pl.DataFrame:
    return pl.DataFrame({"text": texts, "attribution": shares})


def test_the_largest_shares_are_named_by_sign() -> None:
    said = text_reading(
        of([" sea", " ship", ".", " x", " rest"], [5.0, -2.0, 1.0, 0.5, None]),
        what="the loss on ' y'",
        unit="nats",
    )
    assert "raised most by 'sea' (+5.00), '.' (+1.00) and 'x' (+0.50) nats" in said
    assert "lowered most by 'ship' (-2.00) nats" in said
    assert "Half of the total size of all shares comes from 1 of 4 parts." in said
    assert (
        text_reading(of(["a"], [0.0]), what="it", unit="nats") == "Nothing in the text changes it."
    )


@pytest.mark.parametrize(
    ("delta", "total", "trusted"),
    [(0.1, 2.1, True), (-0.3, 1.7, False), (5.0, 5.1, False), (0.0, 0.0, True)],
)
def test_shares_are_trusted_if_they_nearly_add_up(
    delta: float, total: float, trusted: bool
) -> None:
    assert ("not reliable" not in sum_reading(delta, total)) is trusted


def test_no_promise_no_miss() -> None:
    assert "nor have its sign" in sum_reading(None, 3.0)


def over_depth(ran: float | None, skipped: float | None) -> Attribution:
    shares = {"from_skipped": [ran, 0.0], "to_all": [0.0, skipped]}
    table = pl.DataFrame({"token": [0, 0], "site": [0, 1], **shares})
    table = table.with_columns(
        # A path without shares has none for any cell.
        pl.when(pl.col(name).is_null().any()).then(None).otherwise(pl.col(name)).alias(name)
        for name in shares
    )
    return Attribution(table, 2.0, (0.5, 1.8), due=(-20.5, 0.3), steps=(96, 512))


def test_a_path_that_does_not_add_up_has_no_shares_and_says_why() -> None:
    said = paths_reading(over_depth(-20.0, None))
    assert (
        "The shares of what ran should add up to -20.500 nats and miss it by +0.500 after" in said
    )
    assert "after 96 steps." in said
    assert "**No shares of what was skipped are shown.**" in said
    assert "to +0.300 nats and miss it by +1.800 after 512 steps" in said
    assert "No shares" not in paths_reading(over_depth(-20.0, 0.3))
    cells = pl.DataFrame(
        {"label": ["L1.attn", "L1.mlp"], "executed": [True, False], "share": [None, 0.25]}
    )
    assert depth_reading(cells, None, what="it") == (
        "By how much gated units that ran changed the loss of it cannot be told: their shares do "
        "not add up; those that were skipped would have lowered it by 0.25. No exact flip has a "
        "share to compare with."
    )


def test_depth_says_what_ran_what_was_skipped_and_whether_flips_agree() -> None:
    cells = pl.DataFrame(
        {
            "label": ["L1.mlp", "L2.mlp", "L1.mlp"],
            "executed": [True, True, False],
            "share": [1.0, 3.0, -0.5],
        }
    )
    found = Agreement(cells=50, rank=0.7, ran=0.8, skipped=0.1, same_sign=0.75)
    said = depth_reading(cells, found, what="token 3")
    assert "lowered the loss of token 3 by 4.00 nats, L2.mlp most (3.00)" in said
    assert "would have raised it by 0.50" in said
    assert "agree strongly (Spearman 0.70); 75% have the same sign. They" in said
    few = Agreement(cells=5, rank=-0.7, ran=0.0, skipped=0.0, same_sign=0.4)
    assert "strongly, in the opposite direction," in depth_reading(cells, few, what="it")
    assert "weak evidence" in depth_reading(cells, few, what="it")
    none = Agreement(cells=1, rank=float("nan"), ran=0.0, skipped=0.0, same_sign=0.0)
    assert "too few" in depth_reading(cells.filter("executed"), none, what="it")
    assert "none was skipped" in depth_reading(cells.filter("executed"), none, what="it")


def test_the_unit_named_did_what_all_did_together() -> None:
    cells = pl.DataFrame(
        {"label": ["L1.mlp", "L2.mlp"], "executed": [True, True], "share": [-3.0, 1.0]}
    )
    said = depth_reading(cells, None, what="it")
    assert said.startswith(
        "Gated units that ran raised the loss of it by 2.00 nats, L1.mlp most (3"
    )


def test_coefficients_are_told_with_their_controls_and_counts() -> None:
    def row(scope: str, label: str | None, controlled: bool, r: float | None, q: float) -> dict:
        return {
            "scope": scope, "layer": None, "label": label, "method": "spearman",
            "controlled": controlled, "controls": "surprisal and length" if controlled else None,
            "r": r, "low": -0.1, "high": 0.5, "p": q, "q": q,
            "withheld": None, "r_detrended": r,
        }  # fmt: skip

    table = pl.DataFrame(
        [
            row("all", None, False, 0.4, 0.01),
            row("all", None, True, 0.05, 0.3),
            row("site", "L1.mlp", True, 0.5, 0.01),
            row("site", "L2.mlp", True, -0.5, 0.02),
            row("site", "L3.mlp", True, 0.2, 0.5),
            row("site", "L4.mlp", True, None, 1.0),
        ]
    )
    said = correlation_reading(table, method="spearman", value="utility")
    assert (
        "scores correlate moderately with utility (Spearman +0.40, 95% interval -0.10 to +0.50, "
        "q 0.010)" in said
    )
    assert (
        "; controlled for surprisal and length, the coefficient is +0.05, 95% interval -0.10 to "
        "+0.50 (q 0.300)" in said
    )
    assert "positive at 1 and negative at 1 of 3 sites (q at most 0.05" in said
    none = [pl.lit(None, dtype=pl.Float64).alias(name) for name in ("low", "q")]
    drifting = table.with_columns(*none, withheld=pl.lit("trends"))
    said = correlation_reading(drifting, method="spearman", value="utility")
    assert (
        "(Spearman +0.40, no interval as slow changes along the text move the coefficient: +0.40 "
        "without them, too little is left to test)" in said
    )
    assert "positive at 0 and negative at 0 of 3 sites" in said
    turned = table.with_columns(r_detrended=-pl.col("r"))
    said = correlation_reading(turned, method="spearman", value="utility")
    assert "positive at 0 and negative at 0 of 3 sites" in said
    alike = table.with_columns(r=pl.lit(None, dtype=pl.Float64))
    assert "No correlation can be computed" in correlation_reading(
        alike, method="spearman", value="utility"
    )


def test_the_decision_of_a_gate_is_said_with_its_score() -> None:
    assert score_reading(3, score=0.25, threshold=0.5, ran=False) == (
        "For token 3 the gate score is 0.250 and the threshold 0.500, so it was skipped. Shares "
        "are in units of the gate's own scale."
    )
    assert "so it ran." in score_reading(3, score=0.75, threshold=0.5, ran=True)
    nan = float("nan")
    assert "score is unknown; it ran." in score_reading(3, score=nan, threshold=nan, ran=True)
    assert "no threshold; it ran." in score_reading(3, score=0.5, threshold=nan, ran=True)


def test_flips_are_of_the_token_or_of_all() -> None:
    assert "Flipped were the 28 decisions of the token itself." in flips_reading(28, whole=False)
    assert "Flipped were 28 of all decisions, drawn at random" in flips_reading(28, whole=True)
