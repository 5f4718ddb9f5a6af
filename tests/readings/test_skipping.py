from __future__ import annotations

import polars as pl
import pytest

import skipviz
from skipviz.readings.skipping import skipping_notes
from tests import published, tiny


def labels(trace: skipviz.Trace) -> list[str]:
    return [note.label for note in skipping_notes(trace)]


def traced(model: object) -> skipviz.Trace:
    return skipviz.trace(skipviz.from_parts(model, tiny.tokenizer()), tiny.TEXT)


def test_what_must_be_known_is_said_of_each_kind() -> None:
    assert labels(traced(tiny.gated(seed=0))) == ["computed anyway"]
    assert labels(traced(tiny.backbone(seed=0))) == []
    assert labels(traced(published.mixture_of_depths())) == ["not causal"]
    assert labels(traced(published.skipgpt())) == ["drawn at random", "computed anyway"]
    assert labels(traced(published.router_tuning(level="sequence"))) == [
        "one decision per text", "not causal", "computed anyway"
    ]  # fmt: skip
    assert labels(traced(published.dr_llm())) == [
        "one decision per batch", "not causal", "layers repeat"
    ]  # fmt: skip
    assert labels(traced(published.flexidepth())) == ["saving unknown"]


def test_what_is_unknown_is_not_said(gated: skipviz.SkipModel) -> None:
    trace = skipviz.trace(gated, tiny.TEXT)
    names = ("rule", "scope", "polarity")
    sites = trace.sites.with_columns(
        pl.lit(None, dtype=trace.sites.schema[name]).alias(name) for name in names
    )
    assert labels(skipviz.Trace(trace.run, sites, trace.tokens, trace.matrices)) == [
        "computed anyway"
    ]  # fmt: skip


@pytest.mark.parametrize("word", ["seed 0"])
def test_the_seed_of_a_draw_is_named(word: str) -> None:
    assert word in skipping_notes(traced(published.skipgpt()))[0].sentence
