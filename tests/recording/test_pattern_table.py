"""A table of published patterns becomes a trace, or a sentence says what it lacks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import skipviz
from skipviz.errors import InputError, TraceError
from skipviz.recording.pattern_table import read_table
from tests.cli.runner import run

USED = {"The": [0, 1, 3], " cat": [0], " sat": [0, 1, 2, 2, 3], "A": [0, 3]}


def as_csv(path: Path) -> Path:
    rows = [f'{"AB"[token == "A"]},"{token}","{layers}"' for token, layers in USED.items()]
    path.write_text("doc,token,path\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def as_json(path: Path) -> Path:
    rows = [
        {"doc": "AB"[token == "A"], "token": token, "path": layers}
        for token, layers in USED.items()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("table", [as_csv, as_json])
def test_a_row_per_token_becomes_a_trace(table: object, tmp_path: Path) -> None:
    assert callable(table)
    path = table(tmp_path / ("a.csv" if table is as_csv else "a.jsonl"))
    outcome = run(
        "import", path, "-o", tmp_path / "a.parquet", "--layers", "4", "--text", "token",
        "--used", "path", "--sequence", "doc",
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.stderr
    trace = skipviz.Trace.load(tmp_path / "a.parquet")
    assert trace.tokens["text"].to_list() == list(USED)
    assert trace.tokens["sequence"].to_list() == [0, 0, 0, 1]
    assert trace.matrix("exec_count").tolist() == [
        [layers.count(layer) for layer in range(4)] for layers in USED.values()
    ]
    assert trace.tokens["layers_used"].to_list() == [len(layers) for layers in USED.values()]
    assert trace.run["model"].to_list() == [None]


def test_layers_may_be_counted_from_1(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,layers\nThe,1 4\n cat,\n", encoding="utf-8")
    trace = read_table(tmp_path / "a.csv", layers=4, first_layer=1)
    assert trace.matrix("exec_count").tolist() == [[1, 0, 0, 1], [0, 0, 0, 0]]


def test_a_table_of_too_many_decisions_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skipviz.recording.pattern_table.MOST_CELLS", 8)
    (tmp_path / "a.csv").write_text("text,layers\nThe,1 4\n cat,\n", encoding="utf-8")
    assert len(read_table(tmp_path / "a.csv", layers=4, first_layer=1)) == 2
    with pytest.raises(TraceError, match="2 rows of 5 layers, more than 8"):
        read_table(tmp_path / "a.csv", layers=5, first_layer=1)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("token,layers\nThe,[0]\n", "no column 'text'; it has token, layers"),
        ("text,layers\nThe,22\n", "row 1: 'layers' is '22' and must be the numbers of the layers"),
        ("text,layers\nThe,\"[0, 1.5]\"\n", "row 1: 'layers' is '[0, 1.5]'"),
        ("text,layers\nThe,[0]\n cat,[4]\n", "row 2: layer 4 is not from 0 to 3"),
        *((f'text,layers\nThe,"{cell}"\n', "row 1: 'layers' is")
          for cell in ("0:3", "0..3", "0–3", "0-3", "0 - 3", "0→3", "1/2", "0_3", "0+3")),
        ("text,layers,layers\nThe,[0],[1]\n", "two columns 'layers'"),
        ("text,layers\n", "has no rows"),
        ("", "is not a table"),
    ],
)  # fmt: skip
def test_what_a_table_lacks_is_said(written: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(written, encoding="utf-8")
    with pytest.raises(TraceError) as caught:
        read_table(tmp_path / "a.csv", layers=4)
    assert said in str(caught.value)


def test_layers_that_are_not_told_are_not_none(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "The", "layers": null}\n', encoding="utf-8")
    with pytest.raises(TraceError, match="row 1: 'layers' is None"):
        read_table(path, layers=4)


def test_a_number_alone_is_refused_in_json_too(tmp_path: Path) -> None:
    for value in ("22", "[1, 2.5]", "[[1]]", "{}", "true", '["a"]'):
        (tmp_path / "a.jsonl").write_text(
            '{"text": "The", "layers": ' + value + "}\n", encoding="utf-8"
        )
        with pytest.raises(TraceError, match="How many ran does not say which"):
            read_table(tmp_path / "a.jsonl", layers=32)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('text,layers\nThe,"[True, False, True, True]"\n', "How many ran does not say which"),
        ('text,layers\nThe,"0 to 3"\n', "How many ran does not say which"),
        ('text,layers\nThe,"1e0, 2"\n', "How many ran does not say which"),
        ('text,layers\nThe,"[1, 0, 1, 1]"\n cat,"0 0 0 1"\n', "has a 0 or a 1 for each of the 4"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_layers_is_not_read_as_one(
    written: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text(written, encoding="utf-8")
    with pytest.raises(TraceError, match=said):
        read_table(tmp_path / "a.csv", layers=4)


def test_columns_of_lists_are_refused(tmp_path: Path) -> None:
    row = {"text": ["The"], "layers": [0], "doc": {"a": 1}, "word": "The"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(TraceError, match="'text' has lists or objects"):
        read_table(tmp_path / "a.jsonl", layers=4)
    with pytest.raises(TraceError, match="'doc' has lists or objects"):
        read_table(tmp_path / "a.jsonl", layers=4, text="word", sequence="doc")


def test_what_would_never_end_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(TraceError, match="not a file"):
        read_table(tmp_path / "pipe.csv", layers=4)
    table = as_csv(tmp_path / "a.csv")
    with pytest.raises(InputError, match="layers=1000000000 must be from 1 to 100,000"):
        read_table(table, layers=10**9)
