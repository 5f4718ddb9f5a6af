"""A corpus holds what ``trace`` says of each document, and a run goes on where it was."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import skipviz
from skipviz.corpus import writer
from skipviz.corpus.summaries import CorpusProgress
from skipviz.experiments.hidden_states.prediction_by_depth import convergence_layers
from skipviz.experiments.hidden_states.states import record_states
from skipviz.families.powers import Traits
from tests.corpus import datasets
from tests.corpus.conftest import PART, rows, write_rows

Run = Callable[..., skipviz.CorpusSummary]


def check_like_traces(folder: Path, model: skipviz.SkipModel, found: list[dict[str, Any]]) -> None:
    """The naive way: every document traced alone."""
    table = datasets.tokens(folder)
    for number, row in enumerate(found):
        alone = skipviz.trace(model, row["text"])
        own = table.filter(document=number)
        ran = own.select(alone.sites["label"].to_list()).to_numpy()
        np.testing.assert_array_equal(ran, alone.matrix("exec_count") > 0)
        for name in ("nll", "surprisal", "entropy"):
            np.testing.assert_allclose(
                own[name].to_numpy(), alone.tokens[name].to_numpy(), atol=1e-5
            )
        same = ["position", "token_id", "text", "char_start", "char_end", "span", "context",
                "phase", "exit_depth", "layers_used"]  # fmt: skip
        expected = alone.tokens.select(same).cast({each: own.schema[each] for each in same})
        assert own.select(same).equals(expected)
        for site, label in enumerate(alone.sites["label"]):
            score = own[f"{label}.score"].cast(pl.Float32).to_numpy()
            np.testing.assert_allclose(score, alone.matrix("score")[:, site], rtol=1e-3, atol=1e-3)
        threshold = np.stack(own["threshold"].to_list())
        np.testing.assert_array_equal(threshold, alone.matrix("threshold"))
        assert own["p_execute"].null_count() == own["exec_count"].null_count() == own.height


def test_documents_are_as_trace_says(run: Run, gated: skipviz.SkipModel, tmp_path: Path) -> None:
    summary = run()
    assert (summary.documents, summary.failed) == (8, 0)
    assert summary.parts > 2
    check_like_traces(tmp_path / "corpus", gated, rows(8))
    datasets.is_whole(tmp_path / "corpus")
    found = datasets.documents(tmp_path / "corpus")
    assert found["label"].to_list() == [row["label"] for row in rows(8)]
    assert found["source"][3] == "texts.jsonl:4"
    about = json.loads((tmp_path / "corpus" / "corpus.json").read_text())
    assert about["run"]["model"] == "tiny-gated"
    assert about["sites"] == skipviz.trace(gated, "a").sites.to_dicts()


@pytest.mark.slow
def test_a_family_that_decides_over_a_text_is_run_alone(
    run: Run, gated: skipviz.SkipModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    trace = skipviz.trace

    def counted(model: Any, texts: list[Any], **options: Any) -> Any:
        sizes.append(len(texts))
        return trace(model, texts, **options)

    monkeypatch.setattr("skipviz.corpus.work.trace", counted)
    run(out="together")
    assert max(sizes) > 1
    sizes.clear()
    alone = Traits(batchable=False, in_backbone=True)
    monkeypatch.setattr(type(gated.family), "traits", lambda *_: alone)
    run(out="alone")
    assert set(sizes) == {1}


def test_a_second_run_does_nothing(run: Run, tmp_path: Path) -> None:
    first = run()
    there = datasets.contents(tmp_path / "corpus")

    def broken() -> skipviz.SkipModel:
        raise AssertionError

    assert run(report=lambda progress: pytest.fail("a part was done again")) == first
    assert datasets.contents(tmp_path / "corpus") == there


def test_a_run_that_was_stopped_goes_on_to_the_same_files(run: Run, tmp_path: Path) -> None:
    run(out="whole")
    stop = threading.Event()
    seen: list[CorpusProgress] = []

    def halfway(progress: CorpusProgress) -> None:
        seen.append(progress)
        if progress.documents >= 3:
            stop.set()

    with pytest.raises(skipviz.Stopped):
        run(stop=stop, report=halfway)
    assert not (tmp_path / "corpus" / "manifest.json").exists()
    left = len(list((tmp_path / "corpus" / "done").iterdir()))
    assert left >= 1
    (tmp_path / "corpus" / "tokens" / "000009-x.parquet.1.partial").write_bytes(b"half")
    again: list[CorpusProgress] = []
    run(report=again.append)
    assert datasets.contents(tmp_path / "corpus") == datasets.contents(tmp_path / "whole")
    assert again[-1].documents < 8
    assert again[-1].share == 1.0
    assert again[-1].seconds_left == 0.0
    assert again[-1].tokens_per_second > 0


def test_a_dataset_that_is_added_to_is_not_finished(run: Run, tmp_path: Path) -> None:
    run()
    there = datasets.contents(tmp_path / "corpus")
    manifest = tmp_path / "corpus" / "manifest.json"
    sorted((tmp_path / "corpus" / "done").iterdir())[1].unlink()
    seen: list[bool] = []
    run(report=lambda _: seen.append(manifest.exists()))
    assert not seen[-1]
    assert datasets.contents(tmp_path / "corpus") == there


def test_bad_documents_are_recorded_and_do_not_stop_the_run(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = rows(8)
    found[2] = {"text": "", "label": 9}
    found[4] = ["no object"]
    trace = skipviz.trace

    def choosy(model: Any, texts: list[Any], **options: Any) -> Any:
        if any(each.text == found[5]["text"] for each in texts):
            raise RuntimeError("a layer met what it does not know")
        return trace(model, texts, **options)

    monkeypatch.setattr("skipviz.corpus.work.trace", choosy)
    source = write_rows(tmp_path / "some.jsonl", found)
    summary = run(inputs=source)
    assert (summary.documents, summary.failed) == (8, 3)
    table = datasets.documents(tmp_path / "corpus")
    assert table.filter(pl.col("error").is_not_null())["document"].to_list() == [2, 4, 5]
    assert table["label"][2] == 9
    assert "some.jsonl, line 3" in table["error"][2]
    assert "a layer met what it does not know" in table["error"][5]
    assert (table["tokens"] > 0).to_list() == [each not in (2, 4, 5) for each in range(8)]
    datasets.is_whole(tmp_path / "corpus")


def test_a_machine_that_fails_is_no_bad_document(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(out="whole")
    trace, calls = skipviz.trace, iter(range(100))

    def failing(*given: Any, **options: Any) -> Any:
        if next(calls) > 1:
            raise RuntimeError("the device is lost")
        return trace(*given, **options)

    monkeypatch.setattr("skipviz.corpus.work.trace", failing)
    with pytest.raises(skipviz.InputError, match=r"No text can be traced.*the device is lost"):
        run()
    monkeypatch.undo()
    run()
    assert datasets.contents(tmp_path / "corpus") == datasets.contents(tmp_path / "whole")


def test_where_nothing_can_be_traced_nothing_is_left(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_rows(tmp_path / "bad.jsonl", [{"text": ""}] * 30)
    with pytest.raises(skipviz.InputError, match=r"Nothing was traced: bad.jsonl, line 1"):
        run(inputs=source)
    monkeypatch.setattr(writer, "MOST_ERRORS_AT_FIRST", 10)
    with pytest.raises(skipviz.InputError, match="None of the first"):
        run(inputs=source)
    assert not (tmp_path / "corpus").exists()
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(skipviz.InputError, match="holds no document"):
        run(inputs=empty)


def test_another_input_or_model_is_refused(
    run: Run, tmp_path: Path, gated: skipviz.SkipModel, dense: skipviz.SkipModel
) -> None:
    run()
    there = datasets.contents(tmp_path / "corpus")
    other = write_rows(tmp_path / "other.jsonl", rows(8, seed=1))
    with pytest.raises(skipviz.InputError, match="holds other documents"):
        run(inputs=other)
    shorter = write_rows(tmp_path / "shorter.jsonl", rows(3))
    with pytest.raises(skipviz.InputError, match=r"other documents|more than the input"):
        run(inputs=shorter)
    with pytest.raises(skipviz.InputError, match="was begun with"):
        run(model=dense)
    with pytest.raises(skipviz.InputError, match="part_characters=400"):
        run(part_characters=PART + 1)
    assert datasets.contents(tmp_path / "corpus") == there


def test_the_input_is_recognised_by_content(run: Run, tmp_path: Path, texts: Path) -> None:
    run()
    there = datasets.contents(tmp_path / "corpus")
    moved = tmp_path / "moved"
    moved.mkdir()
    texts.rename(moved / "renamed.jsonl")
    run(inputs=moved)
    assert datasets.contents(tmp_path / "corpus") == there


def test_two_runs_do_not_write_to_one_folder(run: Run, tmp_path: Path) -> None:
    def second(_: CorpusProgress) -> None:
        with pytest.raises(skipviz.InputError, match="Another run is writing"):
            run()

    run(report=second)


def test_a_full_disk_stops_with_a_sentence_and_what_is_done_stays(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skipviz.corpus.folder import DatasetFolder

    staging, files = DatasetFolder.staging, iter(range(100))

    def refused(_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    def full(folder: DatasetFolder, name: str) -> Any:
        made = staging(folder, name)
        if next(files) == 4:
            monkeypatch.setattr("skipviz.corpus.folder.os.fsync", refused)
        return made

    monkeypatch.setattr(DatasetFolder, "staging", full)
    with pytest.raises(skipviz.InputError, match=r"cannot be written \(full\).*Free some space"):
        run()
    left = datasets.contents(tmp_path / "corpus")
    assert not [name for name in left if name.endswith(".partial")]
    done = sorted((tmp_path / "corpus" / "done").iterdir())
    assert done
    for path in done:
        counted = pl.read_parquet(path)["tokens"].sum()
        assert pl.read_parquet(tmp_path / "corpus" / "tokens" / path.name).height == counted
    monkeypatch.undo()
    run()
    datasets.is_whole(tmp_path / "corpus")


def test_what_is_wrong_in_a_call_is_said(run: Run, tmp_path: Path) -> None:
    with pytest.raises(skipviz.InputError, match="must be local or ray"):
        run(engine="cloud")
    with pytest.raises(skipviz.InputError, match="analyses has 'x'"):
        run(analyses=["x"])
    with pytest.raises(skipviz.InputError, match="at least 1"):
        run(part_characters=0)
    with pytest.raises(skipviz.InputError, match="does not exist"):
        run(inputs="no such file")
    with pytest.raises(skipviz.InputError, match="lies in"):
        run(inputs=tmp_path)


@pytest.mark.slow
def test_analyses_are_those_of_each_document(
    run: Run, gated: skipviz.SkipModel, tmp_path: Path
) -> None:
    source = write_rows(tmp_path / "few.jsonl", [{"text": "The fox."}, {"text": "Why? Nobody."}])
    run(inputs=source, analyses=["audit", "lens"])
    folder = tmp_path / "corpus"
    datasets.is_whole(folder)
    table = datasets.tokens(folder)
    utility = pl.read_parquet(folder / "audit" / "*.parquet")
    settled = pl.read_parquet(folder / "lens" / "*.parquet")
    for found in (utility, settled):
        assert found.select("document", "position").equals(table.select("document", "position"))
    for document, text in enumerate(("The fox.", "Why? Nobody.")):
        alone = skipviz.trace(gated, text)
        cells = skipviz.audit(gated, alone)
        own = utility.filter(document=document).drop("document", "position").to_numpy()
        expected = cells["utility"].to_numpy().reshape(-1, alone.sites.height)
        np.testing.assert_allclose(own[:-1], expected, atol=1e-5)
        assert np.isnan(own[-1]).all()
        states = record_states(gated, alone, most=len(alone))
        layers = convergence_layers(gated, alone, states)["settled"].to_list()
        assert settled.filter(document=document)["settled"].to_list() == layers


def test_an_analysis_that_a_model_lacks_is_refused_at_once(
    run: Run, dense: skipviz.SkipModel, tmp_path: Path
) -> None:
    with pytest.raises(skipviz.InputError, match="gated"):
        run(model=dense, analyses=["audit"])
    assert not (tmp_path / "corpus" / "corpus.json").exists()


def test_other_tools_read_it_as_it_is(run: Run, tmp_path: Path) -> None:
    run()
    where, sql = str(tmp_path / "corpus"), "median(threshold[1]), count(p_execute)"
    by_duckdb = duckdb.sql(
        f"""SELECT label, avg("L1.mlp"::INT), avg("L1.mlp.score"), avg(nll), {sql}
        FROM '{where}/tokens/*.parquet' JOIN '{where}/documents.parquet' USING (document)
        GROUP BY label ORDER BY label"""
    ).fetchall()
    tokens = datasets.tokens(tmp_path / "corpus").join(
        datasets.documents(tmp_path / "corpus"), on="document"
    )
    score = pl.col("L1.mlp.score").cast(pl.Float64).mean()
    threshold = pl.col("threshold").arr.first().median()
    found = tokens.group_by("label").agg(
        pl.col("L1.mlp").mean(), score, pl.col("nll").cast(pl.Float64).mean(), threshold,
        pl.col("p_execute").count(),
    )  # fmt: skip
    for row, expected in zip(by_duckdb, found.sort("label").rows(), strict=True):
        assert row == pytest.approx(expected, abs=1e-6)
    (path, *_) = (tmp_path / "corpus" / "tokens").iterdir()
    assert pq.read_table(path).column("L1.mlp.score").type == pa.float16()
