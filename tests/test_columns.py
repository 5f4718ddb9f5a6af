"""Results have the columns that their docstrings say, and no others."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
from numpydoc.docscrape import NumpyDocString

import skipviz
from skipviz.schema import DECISIONS, RUN, SITES, TOKENS
from tests import tiny
from tests.folders import write_gated

TEXTS = ["A text of its own.", "Another text, which is a bit longer."]
ENDS = ("_low", "_high")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> skipviz.SkipModel:
    dense = tmp_path_factory.mktemp("columns") / "tiny-dense"
    tiny.backbone(seed=0).save_pretrained(dense)
    tiny.tokenizer().save_pretrained(dense)
    return skipviz.load(write_gated(dense.parent / "tiny-gated", backbone=dense))


@pytest.fixture(scope="module")
def trace(model: skipviz.SkipModel) -> skipviz.Trace:
    return skipviz.trace(model, tiny.TEXT)


def said(value: Any, section: str, entry: str | None = None) -> set[str]:
    """Return the names in backticks in a section of a docstring, or in one entry of it."""
    found = NumpyDocString(inspect.getdoc(value) or "")[section]
    lines = [" ".join(each.desc) for each in found if entry is None or each.name == entry]
    return set(re.findall(r"``(\w+)``", " ".join(lines)))


def check(names: set[str], frame: pl.DataFrame) -> None:
    """Compare names with columns; an end of an interval may be said once for several columns."""
    columns = set(frame.columns)
    ends = {f"{name}{end}" for name in columns for end in ENDS if end in names}
    assert columns - names - ends == set(), "columns that the docstring does not name"
    assert names - columns - set(ENDS) == set(), "names that are no columns"


def audited(model: skipviz.SkipModel, trace: skipviz.Trace) -> pl.DataFrame:
    return skipviz.audit(model, trace, cells=[(0, 0), (1, 1)])


def correlated(model: skipviz.SkipModel, trace: skipviz.Trace) -> pl.DataFrame:
    return skipviz.correlate(trace, skipviz.audit(model, trace), "utility", permutations=9)


def attributed(model: skipviz.SkipModel, trace: skipviz.Trace) -> pl.DataFrame:
    target = skipviz.Target(token=3)
    return skipviz.attribute(model, trace, target, method="input_x_gradient").table


def evaluated(model: skipviz.SkipModel, trace: skipviz.Trace) -> pl.DataFrame:
    return skipviz.evaluate(model.name, TEXTS)


def over_depth(model: skipviz.SkipModel, trace: skipviz.Trace) -> pl.DataFrame:
    return skipviz.attribute_depth(model, trace, skipviz.Target(token=3), steps=2).table


Made = Callable[[skipviz.SkipModel, skipviz.Trace], pl.DataFrame]
CASES: dict[str, tuple[Any, Made, set[str]]] = {
    "audit": (skipviz.audit, audited, set()),
    "correlate": (skipviz.correlate, correlated, {"all", "site"}),
    "evaluate": (skipviz.evaluate, evaluated, set()),
    "attribute": (skipviz.attribute, attributed, set()),
    "attribute_depth": (skipviz.attribute_depth, over_depth, {"deltas", "due", "steps"}),
    "minus": (skipviz.Trace.__sub__, lambda _, trace: trace - trace, set()),
}
"""The function, a frame of it, and what else its docstring has in backticks."""


@pytest.mark.parametrize("case", CASES)
def test_a_result_has_the_columns_that_are_said(
    case: str, model: skipviz.SkipModel, trace: skipviz.Trace
) -> None:
    function, made, besides = CASES[case]
    check(said(function, "Returns") - besides, made(model, trace))


@pytest.mark.parametrize("name", ["run", "sites", "tokens", "profiles", "criterion", "references"])
def test_clusters_have_the_columns_that_are_said(name: str, trace: skipviz.Trace) -> None:
    found = skipviz.cluster(trace, clusters=2)
    check(said(skipviz.Clusters, "Attributes", name), getattr(found, name))


def test_a_trace_has_the_columns_of_the_schema(trace: skipviz.Trace) -> None:
    for frame, schema in ((trace.run, RUN), (trace.sites, SITES), (trace.tokens, TOKENS)):
        assert dict(frame.schema) == schema
    assert dict(trace.decisions.schema) == DECISIONS
    decisions = inspect.getdoc(inspect.getattr_static(skipviz.Trace, "decisions")) or ""
    assert set(re.findall(r"``(\w+)``", decisions)) == set(DECISIONS)


def test_a_table_of_attribution_has_the_columns_that_are_said(
    model: skipviz.SkipModel, trace: skipviz.Trace
) -> None:
    both = set(attributed(model, trace).columns) | set(over_depth(model, trace).columns)
    assert said(skipviz.Attribution, "Attributes", "table") == both
