from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skipviz.errors import InputError, TraceError
from skipviz.schema import CLASS_COLUMNS, MATRICES, TOKENS
from skipviz.traces import Trace
from tests.synthetic import make_trace


def with_texts(texts: list[str]) -> Trace:
    made = make_trace(tokens=len(texts), layers=2, gated=(1,), units=("mlp",))
    tokens = made.tokens.with_columns(pl.Series("text", texts, dtype=pl.String))
    return dataclasses.replace(made, tokens=tokens)


def assert_same(found: Trace, expected: Trace) -> None:
    for table in ("run", "sites", "tokens"):
        one, other = getattr(found, table), getattr(expected, table)
        assert one.schema == other.schema
        assert one.equals(other, null_equal=True), table
    for name in MATRICES:
        one, other = found.matrix(name), expected.matrix(name)
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes(), name


@pytest.mark.parametrize(
    "made",
    [
        make_trace(tokens=23, sequences=3, visits=2),
        make_trace(statistics=False, offsets=False, budget=None),
        make_trace(gated=()),
        make_trace(tokens=1),
    ],
    ids=["visits", "nulls", "dense", "one token"],
)
def test_load_gives_back_what_save_wrote(tmp_path: Path, made: Trace) -> None:
    made.save(tmp_path / "trace.parquet")
    assert_same(Trace.load(tmp_path / "trace.parquet"), made)
    buffer = io.BytesIO()
    made.save(buffer)
    buffer.seek(0)
    assert_same(Trace.load(buffer), made)


def test_a_trace_that_an_earlier_version_wrote_is_read(tmp_path: Path) -> None:
    """Format 1 as it was written before runs had a limit."""
    found = Trace.load(Path(__file__).parent / "data" / "trace_format_1.parquet")
    assert "".join(found.tokens["text"]).endswith("it sleeps.\nWhy? Nobody knows: 42.")
    assert found.run.select("model", "policy", "limit").row(0) == ("tiny-gated", "learned", None)
    assert found.sites.select("layer", "unit").rows() == [
        (layer, unit) for layer in range(1, 5) for unit in ("attn", "mlp")
    ]
    executed = found.matrix("exec_count")
    assert executed.shape == (found.tokens.height, 8) == (40, 8)
    np.testing.assert_array_equal(executed, found.matrix("score") > found.matrix("threshold"))
    assert 0 < executed.mean() < 1
    # Layers 0 and 5 have no gates and always run; half a layer for each unit of the others.
    np.testing.assert_allclose(found.tokens["layers_used"], 2 + executed.sum(axis=1) / 2)
    found.save(tmp_path / "trace.parquet")
    assert_same(Trace.load(tmp_path / "trace.parquet"), found)


def test_odd_numbers_survive_saving(tmp_path: Path) -> None:
    made = make_trace(tokens=4)
    score = made.matrix("score").copy()
    score[0, :4] = [np.nan, np.inf, -np.inf, -0.0]
    forced = np.ones_like(made.matrix("forced"))  # so that scores need not agree with what ran
    made = dataclasses.replace(made, matrices={**made.matrices, "score": score, "forced": forced})
    made.save(tmp_path / "trace.parquet")
    assert_same(Trace.load(tmp_path / "trace.parquet"), made)


def test_what_is_no_trace_is_refused_with_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    with pytest.raises(TraceError, match=r"cannot be read as a trace.*Trace\.save wrote"):
        Trace.load(path)
    path.write_bytes(b"not parquet at all")
    with pytest.raises(TraceError, match="cannot be read as a trace"):
        Trace.load(path)
    pl.DataFrame({"a": [1]}).write_parquet(path)
    with pytest.raises(TraceError, match="is a Parquet file but not a trace"):
        Trace.load(path)
    pl.DataFrame({"a": [1]}).write_parquet(path, metadata={"skipviz": '{"format": 99}'})
    with pytest.raises(TraceError, match="trace format 99"):
        Trace.load(path)


def test_a_truncated_trace_is_refused_with_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "trace.parquet"
    make_trace().save(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TraceError, match="cannot be read as a trace"):
        Trace.load(path)


def test_difference_of_two_policies() -> None:
    one = make_trace(exec_count=1)
    executed = np.ones((40, 8), dtype=np.uint8)
    executed[3, :2] = 0
    other = make_trace(exec_count=executed)
    difference = one - other
    assert difference.columns == ["token", "text", "layers_used", "nll", "surprisal", "changed"]
    assert difference["changed"].to_list() == [0] * 3 + [2] + [0] * 36
    assert difference["layers_used"].to_list() == [0.0] * 3 + [1.0] + [0.0] * 36
    assert difference["nll"].drop_nulls().abs().max() == 0
    assert difference["nll"].null_count() == one.tokens["nll"].null_count()


def test_difference_over_other_sites_has_no_count_of_changes() -> None:
    made = make_trace()
    ungated = dataclasses.replace(make_trace(gated=()), tokens=made.tokens)
    difference = made - ungated
    assert difference["changed"].null_count() == 40


def test_difference_of_other_tokens_is_refused() -> None:
    with pytest.raises(TraceError, match=r"40 and 39 tokens.*Trace the same text"):
        make_trace() - make_trace(tokens=39)


NASTY = ["=1+1", "\n", "a\x00b", '"', "'", ",", "\r\n", "\\", "@x", "-2", "+3", "\t", "🦊", "שלום"]


@pytest.mark.slow
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=20))
def test_any_text_survives_the_csv(texts: list[str]) -> None:
    check_csv(texts)


def test_nasty_texts_survive_the_csv() -> None:
    check_csv(NASTY)


def check_csv(texts: list[str]) -> None:
    made = with_texts(texts)
    buffer = io.BytesIO()
    made.write_csv(buffer)
    raw = buffer.getvalue().decode("utf-8")
    assert "\x00" not in raw
    rows = list(csv.DictReader(io.StringIO(raw, newline="")))
    assert [json.loads(row["text"]) for row in rows] == texts
    assert all(row["text"].startswith('"') for row in rows)
    assert [json.loads(row["source"]) for row in rows] == made.tokens["source"].to_list()


def test_csv_is_to_long() -> None:
    made = make_trace(sequences=2)
    buffer = io.BytesIO()
    made.write_csv(buffer)
    buffer.seek(0)
    long = made.to_long()
    found = pl.read_csv(buffer, schema=long.schema).with_columns(
        pl.col("text", "source").map_elements(lambda cell: json.loads(cell), return_dtype=pl.String)
    )
    assert found.equals(long)


@pytest.mark.parametrize("label", [None, "good"])
def test_columns_on_classes_are_there_where_a_class_is(label: str | None) -> None:
    made = make_trace(tokens=4)
    known = pl.col("token") > 1  # of one text it is known, of the other it is not
    tokens = made.tokens.with_columns(
        class_label=pl.when(known).then(pl.lit(label, pl.String)),
        class_prob=pl.when(known).then(pl.lit(label and 0.5, pl.Float32)),
    )
    buffer = io.BytesIO()
    dataclasses.replace(made, tokens=tokens).write_csv(buffer)
    header = buffer.getvalue().decode().splitlines()[0].split(",")
    assert [each for each in header if "class" in each] == (
        ["class_label", "class_prob"] if label else []
    )
    assert "layers_used" in header


def test_long_rows_are_tokens_by_sites() -> None:
    made = make_trace(tokens=7)
    long = made.to_long()
    assert long["token"].to_list() == [t for t in range(7) for _ in range(8)]
    assert long["label"].to_list() == made.sites["label"].to_list() * 7
    for name in ("score", "threshold", "exec_count", "forced"):
        assert np.array_equal(long[name].to_numpy().reshape(7, 8), made.matrix(name))
    assert long["p_execute"].null_count() == 56  # NaN in the matrix: the family defines none


def test_matrices_cannot_be_written_to() -> None:
    made = make_trace()
    for name in MATRICES:
        with pytest.raises(ValueError, match="read-only"):
            made.matrix(name)[0, 0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.run = made.run  # type: ignore[misc]
    with pytest.raises(KeyError, match="There is no matrix 'scores'"):
        made.matrix("scores")


def test_loaded_matrices_cannot_be_written_to() -> None:
    buffer = io.BytesIO()
    make_trace().save(buffer)
    buffer.seek(0)
    with pytest.raises(ValueError, match="read-only"):
        Trace.load(buffer).matrix("score")[0, 0] = 0


def test_classes_may_be_left_out() -> None:
    made = make_trace()
    bare = Trace(made.run, made.sites, made.tokens.drop(CLASS_COLUMNS), made.matrices)
    assert bare.tokens.equals(made.tokens)


def test_tables_that_do_not_fit_are_refused() -> None:
    made = make_trace()
    with pytest.raises(TraceError, match="tokens lacks the column 'nll'"):
        dataclasses.replace(made, tokens=made.tokens.drop("nll"))
    with pytest.raises(TraceError, match=r"tokens\.nll is Float64 and must be Float32"):
        dataclasses.replace(made, tokens=made.tokens.with_columns(pl.col("nll").cast(pl.Float64)))
    with pytest.raises(TraceError, match="one row and has 2"):
        dataclasses.replace(made, run=pl.concat([made.run, made.run]))
    short = made.matrix("score")[1:].copy()
    with pytest.raises(TraceError, match="score has shape"):
        dataclasses.replace(made, matrices={**made.matrices, "score": short})
    with pytest.raises(TraceError, match="matrices are"):
        dataclasses.replace(made, matrices={"score": made.matrix("score")})


def test_what_it_is_on_paper() -> None:
    made = make_trace()
    assert len(made) == 40
    assert "40 tokens, 8 sites" in repr(made)
    assert list(made.tokens.columns) == list(TOKENS)


def test_constant_columns_take_no_memory() -> None:
    made = make_trace(tokens=1000)
    constant = {"threshold": 0.25, "p_execute": np.nan, "forced": False}
    matrices = {
        name: np.full(matrix.shape, constant[name], dtype=matrix.dtype)
        if name in constant
        else matrix
        for name, matrix in made.matrices.items()
    }
    small = dataclasses.replace(made, matrices=matrices)
    for name, matrix in matrices.items():
        assert small.matrix(name).tobytes() == matrix.tobytes()
        assert (small.matrix(name).strides[0] == 0) == (name in constant)


def test_csv_is_there_whole_or_a_sentence_says_why_not(tmp_path: Path) -> None:
    trace = make_trace(tokens=3)
    for target in (tmp_path, tmp_path / "none" / "a.csv", f"{tmp_path}/a\0b"):
        for write in (trace.write_csv, trace.save):
            with pytest.raises(InputError, match=r"cannot be written|no name of a file"):
                write(target)
    trace.write_csv(tmp_path / "a.csv")
    held = io.BytesIO()
    trace.write_csv(held)
    assert (tmp_path / "a.csv").read_bytes() == held.getvalue()
    assert [each.name for each in tmp_path.iterdir()] == ["a.csv"]


def test_a_trace_is_loaded_from_its_bytes() -> None:
    trace, held = make_trace(tokens=3), io.BytesIO()
    trace.save(held)
    assert Trace.load(held.getvalue()).tokens.equals(trace.tokens)
    with pytest.raises(TraceError, match=r"The data cannot be read as a trace"):
        Trace.load(held.getvalue()[:-9])
