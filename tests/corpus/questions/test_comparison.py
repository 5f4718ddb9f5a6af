from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

import skipviz
from tests.corpus.asked import made_parts, write_corpus
from tests.synthetic import make_trace


def other_policy(traced: skipviz.Trace, seed: int) -> skipviz.Trace:
    """The same tokens under other decisions, with other losses."""
    made = make_trace(seed=seed, tokens=len(traced), sequences=4, gated=(1, 2), rate=0.4)
    tokens = traced.tokens.with_columns(
        layers_used=made.tokens["layers_used"], nll=made.tokens["nll"]
    )
    return skipviz.Trace(run=traced.run, sites=traced.sites, tokens=tokens, matrices=made.matrices)


def test_documents_of_both_are_compared_with_intervals(tmp_path: Path) -> None:
    parts = made_parts()
    others = [other_policy(each, seed=50 + n) for n, each in enumerate(parts)]
    domain = [{"domain": n % 2} for n in range(12)]
    first = write_corpus(tmp_path / "a", parts, columns=domain)
    second = write_corpus(tmp_path / "b", others)
    found = skipviz.compare_corpora(first, second)
    assert found.unmatched == (0, 0)
    assert found.documents["same_tokens"].all()
    assert found.documents["domain"].to_list() == [0, 1] * 6
    both = [first.trace(7), second.trace(7)]
    row = found.documents.row(7, named=True)
    difference = (both[1] - both[0])["layers_used"].mean()
    assert row["layers_used_difference"] == pytest.approx(difference)
    changed = both[1].matrix("exec_count") != both[0].matrix("exec_count")
    assert row["changed"] == pytest.approx(changed.mean())
    # Documents are equally long, so the interval is that of a paired t test of their means.
    figure = found.means.filter(figure="layers_used").row(0, named=True)
    own = found.documents["layers_used_difference"].to_numpy()
    low, high = stats.ttest_1samp(own, 0).confidence_interval()
    assert (figure["low"], figure["high"]) == pytest.approx((low, high))
    assert figure["p"] == pytest.approx(stats.ttest_1samp(own, 0).pvalue)
    rate = found.means.filter(figure="L2.mlp").row(0, named=True)
    ran = [
        corpus.tokens().select("L2.mlp").collect()["L2.mlp"].mean() for corpus in (first, second)
    ]
    assert (rate["first"], rate["second"]) == pytest.approx(tuple(ran))


def test_documents_are_found_by_what_they_hold(tmp_path: Path) -> None:
    parts = made_parts(2)
    first = write_corpus(tmp_path / "a", parts)
    second = write_corpus(tmp_path / "b", parts[:1])
    found = skipviz.compare_corpora(first, second)
    assert (found.documents.height, found.unmatched) == (4, (4, 0))
    assert np.abs(found.means["difference"].to_numpy()).max() == 0
    assert "only in one: 4 and 0" in repr(found)


def test_other_tokens_and_other_sites_are_not_compared_one_by_one(tmp_path: Path) -> None:
    first = write_corpus(tmp_path / "a", made_parts(1))
    other = make_trace(seed=8, tokens=160, sequences=4, gated=(2, 3))
    second = write_corpus(tmp_path / "b", [other])
    found = skipviz.compare_corpora(first, second)
    assert not found.documents["same_tokens"].any()
    for name in ("changed", "nll_difference"):
        assert found.documents[name].null_count() == 4
    assert found.documents["layers_used_difference"].null_count() == 0
    assert found.means["figure"].to_list() == ["layers_used", "nll", "L2.attn", "L2.mlp"]
    assert found.means.filter(figure="nll").row(0)[1:4] == (0, None, None)


def test_corpora_of_nothing_in_common_are_refused(tmp_path: Path) -> None:
    first = write_corpus(tmp_path / "a", made_parts(1))
    second = write_corpus(tmp_path / "b", made_parts(1))
    path = tmp_path / "b" / "documents.parquet"
    table = pl.read_parquet(path)
    table.with_columns(sha256=pl.lit("x") + pl.col("sha256")).write_parquet(path)
    with pytest.raises(skipviz.InputError, match=r"share no document \(0 of 4 and 4\)"):
        skipviz.compare_corpora(first, second)


def test_tokens_without_ids_are_the_same_by_their_texts(tmp_path: Path) -> None:
    (made,) = made_parts(1)
    unknown = made.tokens.with_columns(token_id=pl.lit(None, dtype=pl.Int64))
    one_of = (pl.col("sequence") == 2) & (pl.col("position") == 3)
    other = unknown.with_columns(text=pl.when(one_of).then(pl.lit("?")).otherwise("text"))
    both = [
        skipviz.Trace(run=made.run, sites=made.sites, tokens=tokens, matrices=made.matrices)
        for tokens in (unknown, other)
    ]
    first, second = (write_corpus(tmp_path / f"{n}", [each]) for n, each in enumerate(both))
    found = skipviz.compare_corpora(first, second).documents
    assert found["same_tokens"].to_list() == [True, True, False, True]


def test_columns_called_as_ours_and_sites_that_always_differ(tmp_path: Path) -> None:
    (made,) = made_parts(1)
    given = [{"first": n, "second": "x", "changed": None} for n in range(4)]
    ran = {name: matrix.copy() for name, matrix in made.matrices.items()}
    sides = []
    for always in (0, 1):
        ran["score"][:, 0], ran["threshold"][:, 0] = always, 0.5
        ran["exec_count"][:, 0] = always
        matrices = {name: matrix.copy() for name, matrix in ran.items()}
        own = skipviz.Trace(run=made.run, sites=made.sites, tokens=made.tokens, matrices=matrices)
        sides.append(write_corpus(tmp_path / f"{always}", [own], columns=given))
    found = skipviz.compare_corpora(*sides)
    assert found.documents["user.first"].to_list() == [0, 1, 2, 3]
    assert found.documents["first"].to_list() == [0, 1, 2, 3]
    assert (found.documents["changed"] > 0).all()
    site = found.means.filter(figure=made.sites["label"][0]).row(0, named=True)
    assert (site["difference"], site["low"], site["p"]) == (1.0, 1.0, 0.0)
    assert site["q"] < 0.05
