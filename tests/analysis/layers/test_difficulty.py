from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from skipviz.analysis.layers.difficulty import (
    DIFFICULTIES,
    depth_against_difficulty,
    depth_by_difficulty,
    difficulty,
)
from skipviz.analysis.statistics.intervals import clustered_margin
from tests.synthetic import make_trace, say


def of_ids(ids: list[int], sequences: int = 1) -> pl.DataFrame:
    trace = make_trace(tokens=len(ids), sequences=sequences)
    tokens = trace.tokens.with_columns(token_id=pl.Series(ids, dtype=pl.Int64))
    made = type(trace)(run=trace.run, sites=trace.sites, tokens=tokens, matrices=trace.matrices)
    return difficulty(made)


def test_what_was_seen_before_is_what_a_loop_finds() -> None:
    ids = np.random.default_rng(0).integers(0, 6, 60).tolist()
    table = of_ids(ids, sequences=3)
    for start in (0, 20, 40):
        part = ids[start : start + 20]
        for place, token in enumerate(part):
            row = table.row(start + place, named=True)
            assert row["token_before"] == (token in part[:place])
            pairs = list(itertools.pairwise(part[:place]))
            assert row["bigram_before"] == (place > 0 and (part[place - 1], token) in pairs)
    assert table["bigram_before"].sum() > 3


def test_figures_are_the_traces_and_frequent_words_score_higher() -> None:
    pieces = ["The", " lighthouse", ".", " The", " lighthouse", "\n"]
    trace = say(make_trace(tokens=6), pieces)
    table = difficulty(trace)
    assert table["token"].to_list() == list(range(6))
    assert table["surprisal"].null_count() == 1
    for name in ("layers_used", "surprisal", "entropy", "nll"):
        assert table[name].equals(trace.tokens[name].cast(pl.Float64))
    assert table["log_frequency"][0] > table["log_frequency"][1] > 0
    assert table["log_frequency"][2] is None


def planted(seed: int, *, tokens: int = 800) -> pl.DataFrame:
    """Layers used follow surprisal, and go against having been seen before; nothing else."""
    generator = np.random.default_rng(seed)
    columns: dict[str, npt.NDArray[np.float64]] = {
        name: generator.standard_normal(tokens) for name in ("surprisal", "entropy", "nll")
    }
    seen = generator.random((2, tokens)) < 0.5
    depth = columns["surprisal"] - 1.5 * seen[0] + generator.standard_normal(tokens)
    return pl.DataFrame(
        {
            "token": np.arange(tokens),
            "sequence": np.zeros(tokens, dtype=np.int64),
            "layers_used": depth,
            **columns,
            "log_frequency": generator.standard_normal(tokens),
            "token_before": seen[0],
            "bigram_before": seen[1],
        }
    ).with_columns(log_frequency=pl.when(pl.col("token") % 3 > 0).then("log_frequency"))


def test_what_differs_between_texts_alone_is_not_found_within_them() -> None:
    table = planted(0).with_columns(sequence=pl.col("token") // 100)
    noise = np.random.default_rng(1).standard_normal(table.height)
    table = table.with_columns(
        layers_used=20.0 * pl.col("sequence") + noise,
        entropy=20.0 * pl.col("sequence") + pl.col("entropy"),
    )
    found = depth_against_difficulty(table, permutations=99)
    row = found.row(by_predicate=pl.col("measure") == "entropy", named=True)
    assert abs(row["r"]) < 0.1
    assert np.corrcoef(table["layers_used"], table["entropy"])[0, 1] > 0.99


def test_what_depth_follows_is_found_and_what_it_does_not_is_not() -> None:
    found = [
        depth_against_difficulty(planted(seed), permutations=99, seed=seed) for seed in range(10)
    ]
    for table in found:
        rows = {row["measure"]: row for row in table.rows(named=True)}
        assert list(rows) == list(DIFFICULTIES)
        assert rows["surprisal"]["r"] > 0.4
        assert rows["token_before"]["r"] < -0.3
        assert max(rows[name]["q"] for name in ("surprisal", "token_before")) < 0.05
        assert rows["log_frequency"]["tokens"] == 533
    null = pl.concat(found).filter(~pl.col("measure").is_in(["surprisal", "token_before"]))
    assert (null["q"] < 0.05).mean() < 0.1


def test_what_cannot_be_told_is_null() -> None:
    table = planted(0).with_columns(
        entropy=pl.lit(2.0), nll=pl.when(pl.col("token") < 5).then("nll")
    )
    found = depth_against_difficulty(table, permutations=19, seed=0)
    rows = {row["measure"]: row for row in found.rows(named=True)}
    assert rows["entropy"]["r"] is None
    assert rows["nll"]["p"] is None
    assert rows["nll"]["tokens"] == 5
    assert rows["surprisal"]["q"] is not None


def test_parts_are_means_of_equal_parts_of_the_tokens() -> None:
    table = planted(0)
    found = depth_by_difficulty(table, bins=4)
    part = found.filter(measure="surprisal")
    ordered = table.sort("surprisal")
    for number, row in enumerate(part.rows(named=True)):
        wanted = ordered.slice(200 * number, 200)
        assert row["tokens"] == 200
        assert row["value"] == pytest.approx(wanted["surprisal"].mean())
        assert row["layers"] == pytest.approx(wanted["layers_used"].mean())
        assert 0.06 < row["margin"] < 0.6
    seen = found.filter(measure="token_before")
    assert seen["value"].to_list() == [0.0, 1.0]
    wanted = table.group_by("token_before").agg(pl.col("layers_used").mean()).sort("token_before")
    assert seen["layers"].to_numpy() == pytest.approx(wanted["layers_used"].to_numpy())


def test_a_short_text_has_few_parts() -> None:
    part = depth_by_difficulty(planted(0).head(87)).filter(measure="surprisal")
    assert part["tokens"].min() >= 20
    assert len(part) == 4


def test_errors_are_by_texts_where_there_are_many_and_else_by_blocks_of_each() -> None:
    table = planted(0)
    depth = (
        table.select(pl.col("layers_used").filter(pl.col("token_before"))).to_series().to_numpy()
    )
    for size, block in ((40, 40), (200, 32)):
        several = table.with_columns(sequence=pl.col("token") // size)
        inside = several.filter(pl.col("token_before"))
        of_text = inside["token"].to_numpy() % size // block
        groups = 100 * inside["sequence"].to_numpy() + of_text
        row = depth_by_difficulty(several).filter(measure="token_before", part=1)
        assert row["margin"].item() == pytest.approx(clustered_margin(depth, groups))


def test_a_trace_without_losses_has_the_rest() -> None:
    trace = make_trace(tokens=60, statistics=False)
    table = difficulty(trace)
    found = depth_against_difficulty(table, permutations=19, seed=0)
    assert found.filter(measure="surprisal")["tokens"].item() == 0
    assert found.filter(measure="token_before")["r"].item() is not None
    assert "surprisal" not in depth_by_difficulty(table)["measure"].to_list()


def test_what_holds_for_nearly_all_tokens_is_parted_by_that() -> None:
    table = planted(0).with_columns(
        token_before=pl.col("token") % 20 > 0, bigram_before=pl.lit(True)
    )
    found = depth_by_difficulty(table)
    assert found.filter(measure="token_before").select("value", "tokens").rows() == [
        (0.0, 40),
        (1.0, 760),
    ]
    assert found.filter(measure="bigram_before")["value"].to_list() == [1.0]


@pytest.mark.slow
def test_texts_that_differ_as_wholes_are_no_finding_and_progress_is_told() -> None:
    shares: list[float] = []
    claimed = 0
    for seed in range(20):
        generator = np.random.default_rng(seed)
        text = np.repeat(np.arange(5), 160)
        table = planted(seed).with_columns(
            sequence=pl.Series(text),
            layers_used=pl.Series(generator.standard_normal(800) + generator.normal(size=5)[text]),
            nll=pl.Series(generator.standard_normal(800) + generator.normal(size=5)[text]),
        )
        found = depth_against_difficulty(table, permutations=99, seed=seed, progress=shares.append)
        claimed += found.filter(measure="nll")["p"].item() <= 0.05
    assert claimed <= 4
    assert shares[:7] == pytest.approx(np.linspace(0, 1, 7))
