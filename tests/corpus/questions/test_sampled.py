"""Analyses of traces, on a corpus."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

import skipviz
from skipviz.analysis.gates.quality import judged, quality
from skipviz.corpus.questions.assignment import assigned, cluster_shares
from skipviz.corpus.questions.cells import audited_cells
from tests.corpus.asked import made_parts, two_clusters, write_corpus


def test_clusters_of_a_sample_are_given_to_all_tokens(tmp_path: Path) -> None:
    parts = made_parts()
    domain = [{"domain": n % 2} for n in range(12)]
    corpus = write_corpus(tmp_path / "c", parts, columns=domain)
    clusters = two_clusters()
    told: list[float] = []
    found = cluster_shares(corpus, clusters, by="domain", progress=told.append)
    assert told[-1] == 1.0
    each = np.concatenate([clusters.assign(part)["cluster"].to_numpy() for part in parts])
    of = np.repeat(np.arange(12) % 2, 30)
    assert found["share"].to_list() == pytest.approx(
        [(each[of == domain] == n).mean() for domain in (0, 1) for n in (0, 1)]
    )
    assert found["tokens"].to_list() == [180] * 4
    assert sum(part.height for part in assigned(corpus, clusters)) == 360
    with pytest.raises(skipviz.InputError, match="leave out kind"):
        cluster_shares(corpus, clusters, by="kind")


def test_audits_are_judged_as_those_of_a_trace(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c", made_parts())
    about = json.loads((tmp_path / "c" / "corpus.json").read_text())
    (tmp_path / "c" / "corpus.json").write_text(json.dumps(about | {"analyses": ["audit"]}))
    (tmp_path / "c" / "audit").mkdir()
    for path in sorted((tmp_path / "c" / "tokens").iterdir()):
        rows = pq.read_table(path, columns=["document", "position", *corpus.labels])
        # A unit is worth executing exactly where it ran, but for the last token, which has no loss.
        table = pl.DataFrame(pl.from_arrow(rows)).with_columns(
            pl.when(pl.col("position") < 29).then(pl.col(label).cast(pl.Float32) - 0.5).alias(label)
            for label in corpus.labels
        )
        table.write_parquet(tmp_path / "c" / "audit" / path.name)
    corpus = skipviz.open_corpus(tmp_path / "c")
    sample = corpus.sample(tokens=100, seed=1)
    cells = audited_cells(corpus, sample)
    assert cells.height == len(sample.documents) * 29 * 4
    found = quality(judged(sample.trace, cells))
    assert found.right == 1.0
    assert found.regret == 0.0
    assert found.auroc > 0.6
    wrong = cells.with_columns(utility=-cells["utility"])
    assert quality(judged(sample.trace, wrong)).right == 0.0
