from __future__ import annotations

from typing import Any

import polars as pl

from skipviz.analysis.robustness.drift import LAYERS_USED
from skipviz.readings.robustness import (
    OTHER_CONTEXT,
    batch_words,
    context_words,
    drift_words,
    paraphrase_words,
    places_words,
    surface_words,
    tails_words,
)


def row(kind: str, touched: bool, moved: float | None, **more: float | None) -> dict[str, Any]:
    names = [
        f"{name}{end}"
        for name in ("moved", "apart", "layers", "loss")
        for end in ("", "_low", "_high")
    ]
    figures: dict[str, Any] = dict.fromkeys(names)
    counts = {"words": 9, "units": 3}
    return figures | {"kind": kind, "touched": touched, "moved": moved, **counts, **more}


def table(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), infer_schema_length=None)


def test_surface() -> None:
    said = surface_words(
        table(
            row(
                "typos",
                True,
                0.25,
                moved_low=0.2,
                moved_high=0.3,
                apart=0.4,
                loss=-3.0,
                layers=-0.5,
            ),
            row("spacing", True, 0.1, apart=0.4, loss=1.0, layers=0.25),
            row("typos", False, 0.05),
            row("spacing", False, 0.07),
        )
    )
    assert (
        "most under typos: at least 25% (20% to 30%) of their decisions differ (two unrelated"
        in said
    )
    assert "least under spacing, by 10%" in said
    assert "Loss changes most under typos, by -3.0 nats per word." in said
    assert "Layers used change most under typos, by -0.5 per token." in said
    assert "5% (typos) to 7% (spacing)" in said
    assert "the text is too short for one" in said
    alone = surface_words(table(row("upper case", False, 0.0, moved_low=0.0, moved_high=0.0)))
    assert alone.startswith("None of the changes applies to a word")
    assert "too short" not in alone


def test_a_reach_is_claimed_only_from_an_interval_above_zero() -> None:
    def said(*rows: dict[str, Any]) -> str:
        return surface_words(table(*rows))

    nothing = row("typos", False, 0.0, moved_low=0.0, moved_high=0.0)
    unsure = row("spacing", False, 0.02, moved_low=0.0, moved_high=0.05)
    sure = row("capitals", False, 0.02, moved_low=0.01, moved_high=0.05)
    assert "changes to other words do not affect their gates" in said(nothing)
    assert "no effect of changes to other words distinguishable from zero" in said(nothing, unsure)
    assert "(capitals): changes to other words affect their gates" in said(nothing, sure)
    assert "too short to say whether" in said(row("typos", False, 0.05))


def test_sentences_without_another_context_are_counted() -> None:
    alone, other = (row(kind, False, 0.5) for kind in ("no context", OTHER_CONTEXT))
    assert "No sentence was put" in context_words(table(alone | {"units": 3}))
    said = context_words(table(alone | {"units": 3}, other | {"units": 2}))
    assert "1 sentence was not put" in said
    said = context_words(table(alone | {"units": 3}, other | {"units": 3}))
    assert "put into another" not in said


def test_paraphrases_and_contexts() -> None:
    pairs = pl.DataFrame(
        {
            "layers_before": [20.0, 20.0],
            "layers_after": [21.0, 18.0],
            "loss_before": [5.0, 5.0],
            "loss_after": [9.0, 3.0],
        }
    )
    same = table(row("paraphrase", False, 0.2, moved_low=0.1, moved_high=0.3, apart=0.4))
    said = paraphrase_words(same, pairs)
    assert "In 2 pairs" in said
    assert "20% (10% to 30%)" in said
    assert "1.5 layers per token and by 3.0 nats" in said
    assert "no words in common" in paraphrase_words(same.clear(), pairs.head(1))
    said = context_words(table(row("no context", False, 0.5, loss=1.5, loss_low=1.0, loss_high=2)))
    assert "With no context, at least 50% of the decisions" in said
    assert "+1.5 (+1.0 to +2.0) nats per word" in said


def test_batches() -> None:
    found = pl.DataFrame(
        {
            "decisions": [600, 400],
            "flips": [0, 0],
            "ties": [0, 0],
            "followed": [0, 0],
            "score_difference": [1e-6, 2e-6],
            "loss_difference": [0.0, 3e-5],
        }
    )
    assert batch_words(found).startswith("None of 1,000 decisions")
    assert "at most 2e-06 and losses by 3e-05 nats" in batch_words(found)
    flipped = found.with_columns(
        flips=pl.Series([3, 1]), ties=pl.Series([1, 1]), followed=pl.Series([1, 0])
    )
    said = batch_words(flipped)
    assert "4 of 1,000 decisions differ in the batch: 2 within rounding error" in said
    assert "and 1 as a consequence of an earlier difference. 1 is not due to rounding" in said
    rounded = flipped.with_columns(ties=pl.col("flips") - pl.col("followed"))
    assert "not due to rounding" not in batch_words(rounded)


def test_tails() -> None:
    costs = pl.DataFrame(
        {"layers_used": [20.0] * 98 + [29.0] * 2, "over_dense": [0.1] * 60 + [-0.1] * 39 + [8.0]}
    )
    by_document = pl.DataFrame({"source": ["a", "b"], "over_dense_p99": [1.0, 4.0]})
    said = tails_words(by_document, costs, layers=30)
    assert "at most 20.0 of 30 layers; 1% use more than 29.0" in said
    assert "costs 0.10 nats per token" in said
    assert "worst 1% of tokens (1), the mean would be 0.02" in said
    assert "For 39% of the tokens" in said
    assert "Of 2 documents, b has" in said
    assert "fewer than 100" not in said
    assert "fewer than 100" in tails_words(by_document, costs.head(50), layers=30)


def test_drift() -> None:
    def figure(name: str, psi: float, level: str, **more: Any) -> dict[str, Any]:
        about = {"layer": 3, "unit": "mlp", "visit": 0, "psi_chance": 0.02, "delta": 0.3}
        means = {"mean_before": 20.0, "mean_after": 21.5, "exchanged": "documents"}
        return {"figure": name, "psi": psi, "level": level, **about, **means, **more}

    whole = figure(LAYERS_USED, 0.05, "stable")
    said = drift_words(
        table(
            whole,
            figure("L3.mlp", 0.15, "shifted"),
            figure("L4.attn", 0.4, "drifted", layer=4, unit="attn", delta=-0.3),
            figure("L5.mlp", 0.3, "stable", layer=5),
        )
    )
    assert "average 20.00 before and 21.50 after: stable (index 0.05, 0.02 expected without" in said
    assert "Of 3 gates, 1 drifted and 1 shifted, most strongly layer 4's attention (index" in said
    assert "(index 0.40, 0.02 expected without drift, scores lower after) and layer 3's MLP" in said
    assert "1 more has an index of 0.1 or above, not distinguishable from chance" in said
    assert "blocks" not in said
    quiet = drift_words(
        table(
            figure(LAYERS_USED, 0.7, "stable", exchanged="blocks"), figure("L3.mlp", 0.01, "stable")
        )
    )
    assert "not distinguishable from chance (index 0.70" in quiet
    assert "None of the 1 gates" in quiet
    assert "blocks of 32 tokens" in quiet


def test_tokens_as_bad_as_a_place_that_have_no_row_are_counted() -> None:
    costs = pl.DataFrame({"over_dense": [2.9, 2.8, 1.0, -0.5, 0.9, 0.1]})
    said = places_words(costs[[0, 2]], costs)
    assert said.startswith("2 places are shown. Of tokens within 24 of each other only the worst")
    assert said.endswith("1 more token costs more than the last row; “Every token” below has all.")
    assert "2 more tokens cost more" in places_words(costs[[0, 4]], costs)
    alone = places_words(costs[[0]], costs)
    assert alone.startswith("1 place is")
    assert alone.endswith("costs more than the last row.")
    assert places_words(costs.clear(), costs) == "Skipping costs nothing at any of these tokens."
