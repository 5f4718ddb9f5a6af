from __future__ import annotations

import csv
import io
import json

import polars as pl
import pytest

from skipviz.app.components.downloads import csv_of


def test_no_text_of_a_table_is_a_formula_and_none_is_lost() -> None:
    texts = ["=1+1", '@x "y"', "+\t1\n", "word"]
    written = csv_of(pl.DataFrame({"text": texts, "label": ["L1.mlp"] * 4, "loss": [0.5] * 4}))
    rows = list(csv.DictReader(io.StringIO(written)))
    assert all(row["text"].startswith('"') for row in rows)
    assert [json.loads(row["text"]) for row in rows] == texts
    named = csv_of(pl.DataFrame({"unit": ["=1+1.txt, character 3", None], "loss": [0.5, 1.0]}))
    assert named.splitlines()[1:] == ['"""=1+1.txt, character 3""",0.5', ",1.0"]
    assert (rows[0]["label"], rows[0]["loss"]) == ("L1.mlp", "0.5")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_every_way_to_begin_a_formula_is_guarded(start: str) -> None:
    label = f"{start}cmd|' /C calc'!A0"
    row = next(csv.DictReader(io.StringIO(csv_of(pl.DataFrame({"label": [label]})))))
    assert row["label"] == json.dumps(label)
