"""Files that are broken, by accident or on purpose: a sentence, or a trace that makes sense."""

from __future__ import annotations

import io
import json
import os
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import skipviz
from skipviz import plots
from skipviz.analysis.flops import cost_summary
from skipviz.errors import TraceError
from skipviz.schema import CLASS_COLUMNS, MATRICES, SITES, TOKENS
from skipviz.traces import METADATA_KEY, Trace
from tests.synthetic import make_trace

BYTE_FAULTS = 1500
VALUE_FAULTS = 1500
SECONDS_EACH = 5
DATA = Path(__file__).parent / "data"
ODD: list[Any] = [
    None, -1, 0, 1, 2, 255, 256, 10**6, 10**12, -(10**12), 2**63, 0.5, -0.5, float("nan"),
    float("inf"), float("-inf"), 1e300, "", "x", "mlp", "gt", "<b>", True, [], [1, 2], {},
]  # fmt: skip


@cache
def parts() -> tuple[bytes, pl.DataFrame, bytes]:
    buffer = io.BytesIO()
    make_trace(tokens=20, sequences=2).save(buffer)
    data = buffer.getvalue()
    metadata = pq.ParquetFile(io.BytesIO(data)).metadata.metadata
    return data, pl.read_parquet(io.BytesIO(data)), metadata[METADATA_KEY.encode()]


def whole() -> tuple[bytes, pl.DataFrame, dict[str, Any]]:
    """A good file, its table, and what is kept beside it, which may be changed."""
    data, frame, beside = parts()
    return data, frame, json.loads(beside)


def packed(frame: pl.DataFrame, payload: Any) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer, metadata={METADATA_KEY: json.dumps(payload)})
    return buffer.getvalue()


def makes_sense(trace: Trace) -> None:
    """What pages do with a trace."""
    used = trace.tokens["layers_used"]
    assert used.is_finite().all()
    assert (used >= 0).all()
    assert trace.matrix("exec_count").shape == (len(trace), trace.sites.height)
    trace.write_csv(io.BytesIO())
    repr(trace)
    if len(trace):
        cost_summary(trace)
        plots.layers_used_histogram(trace)
        plots.token_html(trace)


def outcome(data: bytes) -> str:
    """Whether a file is refused, or loads and makes sense."""
    try:
        trace = Trace.load(io.BytesIO(data))
    except TraceError:
        return "refused"
    makes_sense(trace)
    return "loaded"


@pytest.mark.slow
def test_damaged_bytes_are_refused_or_make_sense() -> None:
    data, draw = whole()[0], random.Random(0)
    for _ in range(BYTE_FAULTS):
        damaged = bytearray(data[: draw.randrange(len(data))] if draw.random() < 0.1 else data)
        for _ in range(draw.randint(1, 6)):
            if damaged:
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        outcome(bytes(damaged))


def a_cell(frame: pl.DataFrame, payload: dict[str, Any], draw: random.Random) -> pl.DataFrame:
    """Put an odd value into one cell of the tokens' table."""
    name = draw.choice(list(TOKENS))
    values = frame[name].to_list()
    values[draw.randrange(len(values))] = draw.choice(ODD)
    try:
        column = pl.Series(name, values, dtype=frame.schema[name], strict=True)
    except (TypeError, OverflowError, pl.exceptions.PolarsError):
        column = pl.Series(name, [str(value) for value in values])
    return frame.with_columns(column)


def a_matrix(frame: pl.DataFrame, payload: dict[str, Any], draw: random.Random) -> pl.DataFrame:
    """Put an odd value into one decision."""
    name = draw.choice(list(MATRICES))
    values = frame[f"decision_{name}"].to_numpy().copy()
    odd = draw.choice([0, 1, 2, 255, np.nan, np.inf, -np.inf, -3.0, 0.5])
    place = draw.randrange(values.size)
    with np.errstate(all="ignore"):
        values.reshape(-1)[place] = np.nan_to_num(odd) if values.dtype.kind != "f" else odd
    return frame.with_columns(
        pl.Series(f"decision_{name}", values, dtype=frame.schema[f"decision_{name}"])
    )


def order(frame: pl.DataFrame, payload: dict[str, Any], draw: random.Random) -> pl.DataFrame:
    """Lose, repeat or shuffle rows."""
    rows = list(range(frame.height))
    kind = draw.randrange(3)
    if kind == 0:
        del rows[draw.randrange(len(rows))]
    elif kind == 1:
        rows.insert(draw.randrange(len(rows)), draw.randrange(len(rows)))
    else:
        draw.shuffle(rows)
    return frame[rows]


def of_a_site(frame: pl.DataFrame, payload: dict[str, Any], draw: random.Random) -> pl.DataFrame:
    """Put an odd value into one site, or lose or repeat it."""
    site = draw.choice(payload["sites"])
    if draw.random() < 0.8:
        site[draw.choice(list(SITES))] = draw.choice(ODD)
    elif draw.random() < 0.5:
        payload["sites"].remove(site)
    else:
        payload["sites"].append(dict(site))
    return frame


def of_the_run(frame: pl.DataFrame, payload: dict[str, Any], draw: random.Random) -> pl.DataFrame:
    """Put an odd value into what is said of the run, or lose it."""
    target = draw.choice([payload, payload["run"], payload["run"]])
    target[draw.choice(list(target))] = draw.choice(ODD)
    return frame


def a_column(frame: pl.DataFrame, payload: dict[str, Any], draw: random.Random) -> pl.DataFrame:
    """Lose a column, or change its type."""
    name = draw.choice(frame.columns)
    if draw.random() < 0.5:
        return frame.drop(name)
    return frame.with_columns(pl.lit(draw.choice([1, 0.5, "x", None])).alias(name))


@pytest.mark.slow
@pytest.mark.parametrize("fault", [a_cell, a_matrix, order, of_a_site, of_the_run, a_column])
def test_nonsense_is_refused_or_makes_sense(fault: Callable[..., pl.DataFrame]) -> None:
    draw, seen = random.Random(1), set()
    for _ in range(VALUE_FAULTS // 6):
        _, frame, payload = whole()
        changed = fault(frame, payload, draw)
        seen.add(outcome(packed(changed, payload)))
    assert "refused" in seen


NONSENSE: dict[str, Callable[[pl.DataFrame, dict[str, Any]], pl.DataFrame]] = {
    "tokens.class_prob is 2.0": lambda frame, _: frame.with_columns(
        class_label=pl.lit("a"), class_prob=pl.lit(2.0, dtype=pl.Float32)
    ),
    "a class that is not named": lambda frame, _: frame.with_columns(
        class_prob=pl.lit(0.5, dtype=pl.Float32)
    ),
    "starts after its end": lambda frame, _: frame.with_columns(char_start=pl.lit(10**6)),
    "sites.polarity is 0": lambda frame, p: p["sites"][0].update(polarity=0) or frame,
    "its decisions come to": lambda frame, _: frame.with_columns(pl.col("layers_used") + 1),
    "not the loss of the token before": lambda frame, _: frame.with_columns(pl.col("nll") + 1),
    "run.layers is 1000000000000": lambda frame, p: p["run"].update(layers=10**12) or frame,
    "numbered from 0": lambda frame, _: frame.sort("token", descending=True),
    "trace format 3": lambda frame, p: p.update(format=3) or frame,
    "the same layer, unit and visit": lambda frame, p: (
        p["sites"][1].update(p["sites"][0], site=1) or frame
    ),
    "top_probs must be": lambda frame, _: frame.with_columns(pl.col("top_probs").arr.reverse()),
}


@pytest.mark.parametrize("said", NONSENSE)
def test_what_contradicts_itself_is_named(said: str) -> None:
    _, frame, payload = whole()
    changed = NONSENSE[said](frame, payload)
    with pytest.raises(TraceError) as caught:
        Trace.load(io.BytesIO(packed(changed, payload)))
    assert said in str(caught.value)


def test_a_file_without_classes_opens_as_if_none_were_known() -> None:
    data, frame, payload = whole()
    without = packed(frame.drop(CLASS_COLUMNS), payload)
    assert Trace.load(without).tokens.equals(Trace.load(data).tokens)


def test_a_small_file_of_many_rows_is_refused_before_it_is_read() -> None:
    _, frame, payload = whole()
    rows = frame.head(1).select(pl.all().repeat_by(6_000_000).explode())
    data = packed(rows.select(list(TOKENS)), payload)
    assert len(data) < 2**21
    with pytest.raises(TraceError, match="6,000,000 tokens"):
        Trace.load(io.BytesIO(data))


@pytest.mark.parametrize("encoding", [None, "DELTA_BYTE_ARRAY"])
def test_a_text_stored_once_for_many_rows_is_refused_before_it_is_unpacked(
    encoding: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, frame, _ = whole()
    stored = pq.read_table(io.BytesIO(data))
    text = pa.array(["x" * 2**19] * frame.height)
    made = stored.set_column(stored.schema.get_field_index("text"), "text", text)
    beside = pq.ParquetFile(io.BytesIO(data)).metadata.metadata
    small = io.BytesIO()
    pq.write_table(
        made.replace_schema_metadata(beside),
        small,
        use_dictionary=encoding is None,
        column_encoding=None if encoding is None else {"text": encoding},
    )
    size = frame.height * 2**19
    assert len(small.getvalue()) < size / 10
    monkeypatch.setattr("skipviz.parquet.MOST_STORED_TEXT", size // 2)
    with pytest.raises(TraceError, match=r"texts unpack to|skipviz does not write"):
        Trace.load(small)


def test_a_callers_arrays_stay_theirs() -> None:
    trace = make_trace(tokens=8)
    mine = {name: matrix.copy() for name, matrix in trace.matrices.items()}
    made = skipviz.Trace(trace.run, trace.sites, trace.tokens, mine)
    before = made.matrix("score").copy()
    mine["score"][:] = 0
    np.testing.assert_array_equal(made.matrix("score"), before)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("exec_count", 300, "exec_count must be whole numbers, 0 to 255"),
        ("exec_count", -1, "exec_count must be whole numbers"),
        ("exec_count", 0.5, "exec_count must be whole numbers"),
        ("forced", 2, "forced must be True or False"),
        ("score", "x", "score is of type <U1 and must be an array of numbers"),
        ("score", 1j, "score is of type complex128"),
    ],
)
def test_matrices_of_other_values_are_refused(name: str, value: Any, said: str) -> None:
    trace = make_trace(tokens=4)
    odd = np.full(trace.matrix(name).shape, value)
    with pytest.raises(TraceError, match=said):
        Trace(trace.run, trace.sites, trace.tokens, {**trace.matrices, name: odd})


def test_matrices_have_the_types_that_files_have() -> None:
    trace = make_trace(tokens=4)
    wider = {name: matrix.astype(np.float64) for name, matrix in trace.matrices.items()}
    made = Trace(trace.run, trace.sites, trace.tokens, wider)
    for name in MATRICES:
        assert made.matrix(name).dtype == trace.matrix(name).dtype
        np.testing.assert_array_equal(made.matrix(name), trace.matrix(name))


@pytest.mark.parametrize("name", ["1", "1_visits", "2"])
def test_files_of_every_format_are_read(name: str) -> None:
    makes_sense(Trace.load(DATA / f"trace_format_{name}.parquet"))


def test_exit_depth_of_format_1_becomes_the_last_run_of_a_layer() -> None:
    older = Trace.load(DATA / "trace_format_1_visits.parquet")
    newer = Trace.load(DATA / "trace_format_2.parquet")  # of the same decisions
    np.testing.assert_array_equal(older.matrix("exec_count"), newer.matrix("exec_count"))
    assert older.tokens["exit_depth"].equals(newer.tokens["exit_depth"])
    assert older.tokens["exit_depth"].max() == 4  # layers 1, 2, 1, 2, counted from 1


def test_a_file_that_contradicts_itself_is_not_converted() -> None:
    _, frame, payload = whole()
    payload["format"] = 1
    wrong = frame.with_columns(pl.col("exit_depth") - 1)
    with pytest.raises(TraceError, match="deepest gated layer"):
        Trace.load(io.BytesIO(packed(wrong, payload)))


@pytest.mark.timeout(30)
def test_what_is_no_file_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(TraceError, match="is a folder, a pipe or a device"):
            Trace.load(path)
