from __future__ import annotations

import polars as pl
import pytest

import skipviz
from skipviz.analysis.comparison import compare_traces
from skipviz.analysis.tokens.text_classes import predicted_classes
from skipviz.readings.comparison.traces import classes_reading, traces_reading
from skipviz.readings.paths import class_reading, class_words
from tests.synthetic import make_trace

Told = list[tuple[str | None, float | None]]


def of_texts(told: Told, *, loss: str | None = "none") -> skipviz.Trace:
    """A trace of texts of which these classes were predicted."""
    made = make_trace(tokens=6 * len(told), sequences=len(told), statistics=False)
    where = made.tokens["sequence"].to_list()
    tokens = made.tokens.with_columns(
        pl.Series("class_label", [told[text][0] for text in where], dtype=pl.String),
        pl.Series("class_prob", [told[text][1] for text in where], dtype=pl.Float32),
    )
    run = made.run.with_columns(loss=pl.lit(loss, dtype=pl.String))
    return skipviz.Trace(run, made.sites, tokens, made.matrices)


@pytest.mark.parametrize(
    ("told", "said", "words"),
    [
        ([("good", 0.75)], "The predicted class is good, with a probability of 75.0%.", "good"),
        ([("good", None)], "The predicted class is good; its probability is unknown.", "good"),
        ([("good", 0.5), ("bad", 0.5), ("good", 0.9)],
         "Predicted classes of 3 texts: good for 2, bad for 1.", "2 classes"),
        ([("good", 0.5), (None, None)], "Predicted classes of 2 texts: good for 1, unknown for 1.",
         "good, some unknown"),
        ([(None, None)], "Which class is predicted is unknown: the model gives a number or several "
         "classes at once, or the trace was made without.", "unknown"),
        ([(f"c{n}", 0.5) for n in range(8)],
         "Predicted classes of 8 texts: c0 for 1, c1 for 1, c2 for 1, c3 for 1, c4 for 1, c5 for "
         "1, 2 other classes for 2.", "8 classes"),
    ],
)  # fmt: skip
def test_classes_are_said(told: Told, said: str, words: str) -> None:
    trace = of_texts(told)
    assert class_reading(trace) == said
    assert class_words(trace) == words


def test_texts_of_one_class_stay_apart() -> None:
    found = predicted_classes(of_texts([("good", 0.5), ("good", 0.5)]))
    assert found["first_token"].to_list() == [0, 6]
    assert found["tokens"].to_list() == [6, 6]


def test_nothing_is_said_of_models_that_predict_the_next_token() -> None:
    assert class_reading(make_trace()) == ""
    assert class_reading(of_texts([(None, None)], loss=None)) == ""
    # As of a recording made elsewhere, which does not say.
    assert class_reading(of_texts([("good", 0.5)], loss=None)).startswith("The predicted class")


def test_two_runs_are_compared_by_class() -> None:
    one, other = of_texts([("good", 0.75)]), of_texts([("bad", None)])
    found = compare_traces(one, other)
    assert "Neither predicts the next token" in traces_reading(found)
    assert classes_reading(found) == (
        "The first run predicts the class good, with a probability of 75.0%. The second run "
        "predicts the class bad."
    )
    one, other = (of_texts([("good", 0.5), (last, 0.5)]) for last in ("good", "bad"))
    assert classes_reading(compare_traces(one, other)) == (
        "They predict the same class for 1 of 2 texts."
    )
    assert classes_reading(compare_traces(make_trace(), make_trace())) == ""
