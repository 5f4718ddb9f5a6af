"""No reading says that a figure is minus zero."""

from __future__ import annotations

import ast
from pathlib import Path

import polars as pl

import skipviz.readings
from skipviz.readings.robustness import tails_words

ROOT = Path(skipviz.readings.__file__).parent


def rounded(path: Path) -> list[str]:
    """Return how numbers are rounded in the f-strings of a module."""
    return [
        ast.unparse(part.format_spec)[2:-1]
        for part in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(part, ast.FormattedValue)
        and part.format_spec is not None
        and "." in ast.unparse(part.format_spec)
        and ast.unparse(part.format_spec)[-2] in "f%"
    ]


def test_a_mean_just_below_zero_is_zero() -> None:
    costs = pl.DataFrame({"over_dense": [-0.001] * 100 + [0.001], "layers_used": [1.0] * 101})
    by_document = pl.DataFrame({"source": ["one"], "over_dense_p99": [0.0]})
    said = tails_words(by_document, costs, layers=30)
    assert "the mean would be 0.00." in said
    assert "-0.0" not in said


def test_whatever_readings_round_loses_the_sign_of_zero() -> None:
    found = {path.name: rounded(path) for path in ROOT.rglob("*.py")}
    assert sum(map(len, found.values())) > 50
    without = {name: [each for each in specs if "z" not in each] for name, specs in found.items()}
    assert {name: specs for name, specs in without.items() if specs} == {}
