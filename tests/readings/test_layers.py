from __future__ import annotations

import numpy as np
import polars as pl
from scipy import stats

from skipviz.analysis.layers.specialties import specialties
from skipviz.plots.prediction_by_depth import settled_histogram
from skipviz.readings.layers import (
    attention_reading,
    difficulty_reading,
    probe_reading,
    settling_reading,
    specialty_reading,
    specialty_sentences,
    task_reading,
)
from tests.synthetic import make_trace


def test_specialties_are_said_with_how_many_there_are() -> None:
    kinds = np.repeat(["digits", "words"], [300, 300])
    generator = np.random.default_rng(0)
    order = generator.permutation(600)
    ran = generator.random((600, 8)) < 0.5
    ran[:, 5] = generator.random(600) < np.where(kinds[order] == "digits", 0.9, 0.3)
    classes = pl.DataFrame({"kind": kinds[order].tolist()})
    table = specialties(make_trace(tokens=600, exec_count=ran), classes, seed=0)
    said = specialty_reading(table)
    assert said.startswith("2 of 16 pairs of a class and a site")
    assert specialty_sentences(table)[0] in said
    null = specialties(make_trace(tokens=600, exec_count=ran[:, [0, 1, 2, 3] * 2]), classes, seed=0)
    assert specialty_reading(null).startswith("None of 16 pairs")
    still = specialties(make_trace(tokens=600, exec_count=1), classes, seed=0)
    assert specialty_reading(still).startswith("No site decides differently")


def correlations(**rows: tuple[float | None, float | None]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {"measure": name, "tokens": 400, "r": r, "low": None if r is None else r - 0.1,
             "high": None if r is None else r + 0.1, "r_detrended": r, "p": q, "q": q,
             "withheld": None}
            for name, (r, q) in rows.items()
        ],
        schema={"measure": pl.String, "tokens": pl.Int64}
        | dict.fromkeys(("r", "low", "high", "r_detrended", "p", "q"), pl.Float64)
        | {"withheld": pl.String},
    )  # fmt: skip


def test_difficulties_beyond_chance_are_said_the_strongest_first() -> None:
    table = correlations(surprisal=(0.2, 0.01), token_before=(-0.3, 0.001), nll=(0.1, 0.2))
    assert difficulty_reading(table) == (
        "Tokens use more layers the more surprising they are (Spearman +0.20, 95% interval +0.10 "
        "to +0.30). They use fewer layers if they occurred earlier in the text (Spearman -0.30, "
        "95% interval -0.40 to -0.20). For the other measures, no effect is distinguishable from "
        "zero."
    )
    none = [pl.lit(None, dtype=pl.Float64).alias(name) for name in ("low", "high")]
    short = table.with_columns(*none, withheld=pl.lit("blocks"))
    assert difficulty_reading(short) == (
        "Tokens use more layers the more surprising they are (Spearman +0.20). They use fewer "
        "layers if they occurred earlier in the text (Spearman -0.30). For the other measures, no "
        "effect is distinguishable from zero. No interval is given, as these are fewer than 8 "
        "blocks of 32 tokens."
    )
    drifting = table.with_columns(
        *none, withheld=pl.lit("trends"), r_detrended=pl.col("r") * pl.Series([0.5, -0.5, 1])
    )
    said = difficulty_reading(drifting)
    assert "(Spearman +0.20, +0.10 without slow changes)" in said
    assert said.endswith("as slow changes along the text move the coefficient.")
    assert "earlier" not in said  # what was tested has the other sign
    assert difficulty_reading(correlations(nll=(0.1, 0.2))).startswith("No measure of difficulty")
    assert difficulty_reading(correlations(nll=(None, None))).startswith("All these tokens use")


def test_probes_are_said_with_their_best_layer() -> None:
    rows = [
        ("kind", 3, "all", 0.9, 0.30, 0.05, 100),
        ("kind", 3, "executed", 0.9, 0.35, 0.05, 100),
        ("kind", 3, "skipped", 0.9, 0.25, 0.05, 100),
        ("casing", -1, "all", 0.8, 0.01, 0.05, 100),
        ("casing", 3, "all", 0.8, -0.01, 0.05, 100),
        ("kind", -1, "all", 0.5, 0.05, 0.05, 100),
    ]
    schema = ["feature", "layer", "part", "accuracy", "selectivity", "error", "groups"]
    assert probe_reading(pl.DataFrame(rows, schema=schema, orient="row")) == (
        "Where probes gain most over their control task: kind of token after layer 3 (90% "
        "accuracy, +30 points over its control); casing in the embeddings (80% accuracy, +1 points "
        "over its control, not distinguishable from zero among 4 tests). For tokens that ran "
        "the layer the gain is 10 points higher than for those that skipped it, on average over "
        "features and gated layers. The two groups also differ in their kinds of token, and no "
        "interval is given."
    )


def test_settling_says_when_and_what_runs_after() -> None:
    settled = pl.DataFrame(
        {"settled": [1, 2, 3, 3], "exit_depth": [2, 2, 2, None], "layers_after": [2.0, 1, 0, 0]}
    )
    turned = pl.DataFrame(
        {"layer": range(4), "executed": [None, 0.2, 0.1, None], "skipped": [None, 0.1, 0.2, None]}
    )
    assert settling_reading(settled, turned) == (
        "For half of the tokens the prediction is settled by layer 2 (of 0 to 3); for 50% the last "
        "layer does not change it. On average, 0.8 layers run after a prediction is settled. For "
        "25% of the tokens gates skip all that is left to them before the prediction is settled. "
        "For 50% it is settled only after layer 2, the last with a gate. At 1 of 2 layers the "
        "hidden state changes more for tokens that ran the layer than for those that skipped it."
    )


def test_settling_says_which_predictions_no_layer_reads() -> None:
    settled = pl.DataFrame(
        {
            "settled": [1, None, 3, 3],
            "exit_depth": [None, 1, 3, 3],
            "layers_after": [1.0, None, 0, 0],
        }
    )
    turned = pl.DataFrame(
        {"layer": range(4), "executed": [None, None, 0.1, 0.1], "skipped": [None, None, 0.2, 0.2]}
    )
    said = settling_reading(settled, turned)
    assert said.startswith(
        "For 75% of the tokens the logit lens finds the model's prediction after some layer; the "
        "others left early, and only the translator of their exit finds it. For most of the former "
        "the prediction changes up to the last layer, 3; for 33% of these the last layer does not "
        "change it. On average, 0.3 layers run after a prediction is settled. At"
    )
    none = settling_reading(settled.filter(pl.col("settled").is_null()), turned)
    assert "For 0% of the tokens" in none
    assert "settled by" not in none


def test_a_token_that_ran_no_gated_layer_stopped_just_before_the_first() -> None:
    settled = pl.DataFrame(
        {"settled": [0, 1], "exit_depth": [None, None], "layers_after": [1.0, 0]}
    )
    turned = pl.DataFrame(
        {"layer": range(3), "executed": [None, 0.2, 0.1], "skipped": [None, 0.1, 0.2]}
    )
    assert "For 50% of the tokens gates skip all that is left" in settling_reading(
        settled.cast({"exit_depth": pl.Int64}), turned
    )


def test_attention_says_shares_weighted_by_attention_and_the_loss() -> None:
    layers = pl.DataFrame(
        {"tokens": [10, 30], "earlier": [0.5, 0.5], "paid": [0.4, 0.2], "blind": [0.2, 0.6]}
    )
    losses = pl.DataFrame(
        {"token": range(64), "sequence": [0] * 64, "nll": [1.0] * 64, "hidden_nll": [1.5] * 64}
    )
    said = attention_reading(layers, losses)
    assert (
        "25% goes to tokens that skipped the layer; with equal attention to all it would be 50%"
        in said
    )
    assert "from 1.000 to 1.500 nats per token (+0.500 ± 0.000, 95% interval)" in said
    assert attention_reading(layers.clear(), losses).startswith("Too few tokens")


def test_the_interval_of_what_hiding_costs_counts_texts_where_there_are_many() -> None:
    layers = pl.DataFrame({"tokens": [10], "earlier": [0.5], "paid": [0.4], "blind": [0.2]})
    generator = np.random.default_rng(0)
    text = np.repeat(np.arange(20), 100)
    more = generator.normal(0, 0.5, 20)[text] + generator.standard_normal(2000)
    losses = pl.DataFrame({"token": range(2000), "sequence": text, "nll": 0.0, "hidden_nll": more})
    off = stats.sem(more.reshape(20, 100).mean(axis=1)) * stats.t.ppf(0.975, 19)
    assert f"± {off:.3f}" in attention_reading(layers, losses)


def test_tasks_are_said_from_most_to_least() -> None:
    table = pl.DataFrame(
        {"task": ["copy", "add"], "layers": [20.0, 22.0], "low": [19.0, 21.0],
         "high": [21.0, 23.0], "published": [22, 24]}
    )  # fmt: skip
    said = task_reading(table, layers=30)
    assert said.startswith(
        "“add” uses the most layers, 22.0 (21.0 to 23.0) of 30, and “copy” the fewest"
    )
    assert "1 of 1 pairs of tasks are in the same order as in FlexiDepth" in said
    same = table.with_columns(layers=pl.lit(30.0))
    assert task_reading(same, layers=30) == "Every task uses 30.0 of 30 layers."


def test_the_best_of_many_layers_is_corrected_for_as_many() -> None:
    """Of 62 gains without any truth to them, the largest are beyond 1.96 errors but not sure."""
    generator = np.random.default_rng(0)
    gains = 0.05 * generator.standard_normal((20, 62))
    said = [
        probe_reading(
            pl.DataFrame(
                {"feature": ["kind", "casing"] * 31, "layer": np.repeat(np.arange(31) - 1, 2),
                 "part": "all", "accuracy": 0.5, "selectivity": gain, "error": 0.05, "groups": 500}
            )
        )
        for gain in gains
    ]  # fmt: skip
    assert (gains.max(axis=1) > 1.96 * 0.05).mean() > 0.5
    assert sum(each.count("not distinguishable") == 2 for each in said) >= 18
    sure = pl.DataFrame(
        {"feature": ["kind"] * 31, "layer": np.arange(31), "part": "all", "accuracy": 0.9,
         "selectivity": 0.2, "error": 0.05, "groups": 500}
    )  # fmt: skip
    assert "not distinguishable" not in probe_reading(sure)


def test_half_of_the_tokens_are_settled_by_a_layer_that_there_is() -> None:
    settled = pl.DataFrame(
        {"settled": [2, 3], "exit_depth": [3, 3], "layers_after": [1.0, 0.0]},
    )
    turned = pl.DataFrame(
        {"layer": range(4), "executed": [None] * 4, "skipped": [None] * 4},
        schema_overrides=dict.fromkeys(("executed", "skipped"), pl.Float64),
    )
    assert "settled by layer 2 (of 0 to 3)" in settling_reading(settled, turned)


def test_what_settles_above_the_last_gate_is_what_the_figure_shows() -> None:
    settled = pl.DataFrame(
        {"settled": [3, 3, 1, 1], "exit_depth": [2, 2, 2, 2], "layers_after": [0.0, 0, 2, 2]}
    )
    turned = pl.DataFrame(
        {"layer": range(4), "executed": [None, 0.2, 0.1, None], "skipped": [None, 0.1, 0.2, None]}
    )
    said = settling_reading(settled, turned)
    assert "For 0% of the tokens gates skip all that is left to them before" in said
    bars = settled_histogram(make_trace(tokens=4, layers=4), settled).data[0]
    above = sum(share for layer, share in zip(bars.x, bars.y, strict=True) if layer > 2)
    assert f"For {above:.0%} it is settled only after layer 2" in said
