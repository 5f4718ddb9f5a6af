from __future__ import annotations

import csv
import io
import json

import polars as pl
import pytest

from skipviz.tables import csv_text


def cells(frame: pl.DataFrame, column: str) -> list[str]:
    return [row[column] for row in csv.DictReader(io.StringIO(csv_text(frame)))]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_is_a_formula(start: str) -> None:
    frame = pl.DataFrame({"label": ["harmless", f"{start}1+1"], "text": [f"{start}2", "word"]})
    for column in frame.columns:
        written = cells(frame, column)
        assert [json.loads(cell) for cell in written] == frame[column].to_list()


def test_texts_are_json_and_labels_are_not() -> None:
    frame = pl.DataFrame({"text": ["fox", None], "label": ["L1.mlp\n=", None], "number": [-1, 2]})
    assert cells(frame, "text") == ['"fox"', ""]
    assert cells(frame, "label") == ["L1.mlp\n=", ""]
    assert cells(frame, "number") == ["-1", "2"]


def test_no_name_of_a_column_is_a_formula() -> None:
    frame = pl.DataFrame({"=1+1": [1], "n-1": [2]})
    assert next(csv.reader(io.StringIO(csv_text(frame)))) == ['"=1+1"', "n-1"]
