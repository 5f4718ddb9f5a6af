from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

import skipviz
from skipviz.corpus.questions.association import association
from skipviz.corpus.reading import dataset
from tests.corpus.asked import made_parts, write_corpus


def within(rows: pl.DataFrame, name: str) -> float:
    left = pl.col(name).cast(pl.Float64) - pl.col(name).cast(pl.Float64).mean().over("document")
    right = pl.col("surprisal") - pl.col("surprisal").mean().over("document")
    return float(rows.select(pl.corr(left, right)).item())


@pytest.mark.parametrize("polarity", [1, -1])
def test_it_is_the_coefficient_within_documents_and_near_the_jackknife(
    polarity: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "STEP_TOKENS", 150)
    parts = made_parts(8)
    if polarity < 0:
        parts = [
            skipviz.Trace(
                run=each.run, tokens=each.tokens, matrices=each.matrices,
                sites=each.sites.with_columns(polarity=pl.lit(-1, dtype=pl.Int64)),
            )
            for each in parts
        ]  # fmt: skip
    corpus = write_corpus(tmp_path / "c", parts)
    found = association(corpus)
    rows = corpus.tokens().collect().drop_nulls("surprisal")
    for name, column, sign in (
        ("layers_used", "layers_used", 1),
        ("L1.mlp", "L1.mlp.score", polarity),
    ):
        row = found.filter(figure=name).row(0, named=True)
        assert row["r"] == pytest.approx(sign * within(rows, column))
        assert (row["documents"], row["tokens"]) == (32, rows.height)
        left_out = np.arctanh(
            [sign * within(rows.filter(pl.col("document") != n), column) for n in range(32)]
        )
        error = np.sqrt(31 / 32 * ((left_out - left_out.mean()) ** 2).sum())
        margin = stats.t.ppf(0.975, 31) * error
        assert np.arctanh(row["high"]) - np.arctanh(row["r"]) == pytest.approx(margin, rel=0.05)


def test_what_goes_with_nothing_is_null_and_what_there_is_not_is_said(tmp_path: Path) -> None:
    still = [
        skipviz.Trace(
            run=each.run, sites=each.sites, tokens=each.tokens,
            matrices={**each.matrices, "score": np.ones_like(each.matrix("score"))},
        )
        for each in made_parts(1)
    ]  # fmt: skip
    corpus = write_corpus(tmp_path / "c", still)
    found = association(corpus, "entropy").filter(figure="L1.mlp")
    assert found.select("r", "low", "high").row(0) == (None, None, None)
    with pytest.raises(
        skipviz.InputError, match="There is no 'loss' to go with; choose of exit_depth"
    ):
        association(corpus, "loss")
