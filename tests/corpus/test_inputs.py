"""Every kind of file gives its documents, with the user's columns; a bad one says what is wrong."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skipviz.corpus import inputs
from skipviz.corpus.format import done_schema
from skipviz.corpus.inputs import Entry, entries_of, sizes
from skipviz.corpus.sources import found_sources
from skipviz.corpus.work import _document_row
from skipviz.errors import InputError


def read(*names: Path | str, text_column: str = "text") -> list[Entry]:
    told: list[int] = []
    found = []
    for source in found_sources(names):
        told.clear()
        found += list(entries_of(source, text_column=text_column, tell=told.append))
        if source.size is not None:
            assert told[-1] == source.size
            assert told == sorted(told)
    return found


def said(entries: list[Entry]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (each.source, each.document.text, dict(each.columns))
        for each in entries
        if each.document is not None
    ]


def wrong(entries: list[Entry]) -> str:
    assert [each.document for each in entries] == [None]
    return str(entries[0].error)


def test_a_text_is_one_document_in_any_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo")
    (tmp_path / "b.md").write_bytes("größer".encode("utf-16"))
    (tmp_path / "c").write_text("three")
    found = read(tmp_path / "a.txt", tmp_path / "b.md", tmp_path / "c")
    assert said(found) == [("a.txt", "one\ntwo", {}), ("b.md", "größer", {}), ("c", "three", {})]
    (tmp_path / "d.txt").write_bytes(b"\x89PNG....")
    assert "PNG image" in wrong(read(tmp_path / "d.txt"))


def test_rows_keep_what_else_they_have(tmp_path: Path) -> None:
    rows = [{"text": "one", "domain": "a"}, {"text": "two", "n": [1]}]
    (tmp_path / "a.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    assert said(read(tmp_path / "a.jsonl")) == [
        ("a.jsonl:1", "one", {"domain": "a"}),
        ("a.jsonl:3", "two", {"n": [1]}),
    ]
    (tmp_path / "a.csv").write_text('domain,body\nx,"one\nline"\ny,"say ""two"""\n')
    assert said(read(tmp_path / "a.csv", text_column="body")) == [
        ("a.csv:3", "one\nline", {"domain": "x"}),
        ("a.csv:4", 'say "two"', {"domain": "y"}),
    ]
    pl.DataFrame({"text": ["one", None], "n": [1, 2]}).write_parquet(tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet")
    assert said(found) == [("a.parquet:1", "one", {"n": 1})]
    assert "empty or blank" in str(found[1].error)
    assert found[1].columns == {"n": 2}


def test_conversations_are_documents(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": messages, "label": 1}))
    (found,) = read(tmp_path / "a.jsonl")
    assert found.document is not None
    assert list(found.document.messages) == messages
    assert found.columns == {"label": 1}


def test_packed_files_are_unpacked(tmp_path: Path) -> None:
    data = b'{"text": "one"}\n{"text": "two"}\n'
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(data[:16]) + gzip.compress(data[16:]))
    (tmp_path / "a.jsonl.zst").write_bytes(pa.compress(data, codec="zstd", asbytes=True))
    for name in ("a.jsonl.gz", "a.jsonl.zst"):
        assert [text for _, text, _ in said(read(tmp_path / name))] == ["one", "two"]
    (tmp_path / "b.txt.gz").write_bytes(b"no gzip at all")
    assert "cannot be read" in wrong(read(tmp_path / "b.txt.gz"))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(data * 99)[:-9])
    assert "cannot be read" in str(read(tmp_path / "c.jsonl.gz")[-1].error)


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.txt", "a.md", "z/c.txt", ".hidden/d.txt", ".e.txt", "image.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    os.mkfifo(tmp_path / "pipe.txt")
    assert [source for source, _, _ in said(read(tmp_path))] == ["a.md", "b.txt", "z/c.txt"]
    assert sizes(found_sources([tmp_path])) == sum(map(len, ("a.md", "b.txt", "z/c.txt")))
    (tmp_path / "n").mkdir()
    with pytest.raises(InputError, match="has no file"):
        read(tmp_path / "n")
    with pytest.raises(InputError, match="pipe or a device"):
        read(tmp_path / "pipe.txt")


def test_standard_input_is_one_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\ntwo\n")))
    assert said(read("-")) == [("<stdin>", "one\ntwo\n", {})]
    assert sizes(found_sources(["-"])) is None


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", b"{", "line 1: this is not valid JSON"),
        ("a.jsonl", b"[1]", "found a list"),
        ("a.jsonl", b'{"body": "x"}', 'has no field "text" (its fields are "body")'),
        ("a.jsonl", b'{"text": 1}', "is a number"),
        ("a.jsonl", b'{"text": "\xff"}', "not UTF-8"),
        ("a.jsonl", b'{"text": "\\ud800"}', "half a character"),
        ("a.csv", b"a,b\n1,2\n", 'no column "text" for the text; there are "a", "b"'),
        ("a.csv", b"text,b\n1\n", "has 1 values; the header names 2 columns"),
        ("a.csv", b"text\n\xff\n", "cannot be read as CSV in UTF-8"),
        ("a.csv", b'text\n"open', "cannot be read as CSV"),
        ("a.csv", b"text,text\nx,y\n", 'there are 2 columns "text"; give each'),
        ("a.csv", b"text,n,n\nx,1,2\n", 'there are 2 columns "n"'),
        ("a.csv", b"", "no column"),
        ("a.parquet", b"PAR1", "not a Parquet file"),
        ("a.parquet.gz", b"", "packed already"),
        ("a.txt", b" ", "empty or blank"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert says in wrong(read(tmp_path / name))


def test_texts_that_are_stored_once_for_many_rows_are_texts(tmp_path: Path) -> None:
    texts = pa.array(["a fox", "a dog", "a fox"])
    for number, kind in enumerate((texts.dictionary_encode(), texts.cast(pa.string_view()))):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({"text": kind}), path)
        found = [entry.document.text for entry in read(path) if entry.document]
        assert found == ["a fox", "a dog", "a fox"]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    for names in (["text", "text"], ["text", "n", "n"]):
        table = pa.table([pa.array(["x"]) for _ in names], names=names)
        pq.write_table(table, tmp_path / "a.parquet")
        assert f'there are 2 columns "{names[-1]}"' in wrong(read(tmp_path / "a.parquet"))


def test_a_table_without_the_column_says_so(tmp_path: Path) -> None:
    pl.DataFrame({"body": ["x"], "n": [1]}).write_parquet(tmp_path / "a.parquet")
    assert 'no column "text"' in wrong(read(tmp_path / "a.parquet"))
    assert "n is of type int64" in wrong(read(tmp_path / "a.parquet", text_column="n"))


def test_what_is_too_long_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MOST_DOCUMENT_BYTES", 50)
    (tmp_path / "a.txt").write_text("x" * 51)
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n' + "x" * 51 + '\n{"text": "y"}\n')
    assert "more than 50 bytes" in wrong(read(tmp_path / "a.txt"))
    found = read(tmp_path / "a.jsonl")
    assert [text for _, text, _ in said(found)] == ["x"]
    assert "No line after it was read" in str(found[1].error)
    monkeypatch.setattr(inputs, "MOST_DOCUMENT_CHARACTERS", 5)
    (tmp_path / "b.txt").write_text("x" * 6)
    assert "more than 5 characters" in wrong(read(tmp_path / "b.txt"))


def test_content_is_told_from_content_and_not_by_name(tmp_path: Path) -> None:
    for name, text in {"a": "one", "b": "one", "c": "two"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    (tmp_path / "d.jsonl").write_text('{"text": "one", "x": 1}\n{"text": "one"}\n')
    a, b, c, d, e = (each.content for each in read(tmp_path))
    assert a == b == e
    assert len({a, c, d}) == 3


def test_a_value_that_cannot_be_held_is_of_one_row(tmp_path: Path) -> None:
    texts = pa.array([b"The fox.", b"\xff\xfe", b"A dog."])
    table = pa.table({"text": pa.StringArray.from_buffers(3, *texts.buffers()[1:])})
    pq.write_table(table, tmp_path / "some.parquet")
    found = read(tmp_path / "some.parquet")
    assert [each.document is None for each in found] == [False, True, False]
    assert "some.parquet:2 cannot be read" in str(found[1].error)


def test_half_a_character_in_a_column_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "The fox.", "label": "x\\ud83d"}')
    (found,) = read(tmp_path / "a.jsonl")
    row = _document_row(0, found, tokens=3, error=None)
    assert json.loads(row["columns"]) == {"label": "x\ufffd"}
    assert pa.Table.from_pylist([row], schema=done_schema()).num_rows == 1
