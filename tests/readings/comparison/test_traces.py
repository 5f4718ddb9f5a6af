from __future__ import annotations

import polars as pl

from skipviz.analysis.comparison import compare_traces
from skipviz.readings.comparison.traces import traces_caveat, traces_reading
from skipviz.traces import Trace
from tests.synthetic import make_trace


def with_surprisal(trace: Trace, more: float) -> Trace:
    tokens = trace.tokens.with_columns(pl.col("surprisal") + more)
    return Trace(trace.run, trace.sites, tokens, trace.matrices)


def test_the_better_and_the_cheaper_run_are_named() -> None:
    cheap, dense = make_trace(tokens=300, exec_count=0), make_trace(tokens=300, exec_count=1)
    said = traces_reading(compare_traces(with_surprisal(cheap, 0.5), dense))
    assert said.startswith("**The second run predicts the text better**, by ")
    assert "The first needs " in said
    assert "Tokens used 2.0 of 6 layers in the first and 6.0 of 6 in the second" in said
    assert "decisions at 8 shared sites differ (100.0%)" in said
    turned = traces_reading(compare_traces(dense, with_surprisal(cheap, 0.5)))
    assert turned.startswith("**The first run predicts the text better**")
    assert "The second needs " in turned


def test_the_same_run_is_the_same() -> None:
    trace = make_trace(tokens=60)
    said = traces_reading(compare_traces(trace, trace))
    assert said.startswith("**Both predict the text equally well.** Both need the same FLOPs")
    assert said.endswith("All decisions at shared sites are the same.")


def test_a_short_text_tells_nothing_from_chance() -> None:
    trace = make_trace(tokens=20)
    said = traces_reading(compare_traces(with_surprisal(trace, -0.5), trace))
    assert "**The first run predicts the text better**" in said
    assert "too short to tell this from chance" in said


def test_two_texts_are_called_so() -> None:
    one, two = make_trace(tokens=20), make_trace(tokens=31)
    found = compare_traces(one, two)
    assert traces_reading(found).startswith("**These are two texts**")
    assert "20 and 31 tokens" in traces_caveat(found)


def test_what_is_unknown_is_said() -> None:
    trace = make_trace(tokens=20, statistics=False)
    said = traces_reading(compare_traces(trace, trace))
    assert said.startswith("Which predicts the text better is unknown")
