from __future__ import annotations

import polars as pl
import pytest

from skipviz.analysis.gates.word_shares import shares_by_word
from tests.synthetic import make_trace, say


def shares(values: list[float]) -> pl.DataFrame:
    return pl.DataFrame({"token": range(len(values)), "attribution": values})


def test_tokens_of_a_word_are_summed_and_all_else_stays_apart() -> None:
    trace = say(make_trace(tokens=7), ["Un", "believ", "able", ",", " he", " said", "."])
    found = shares_by_word(trace, shares([1.0, 2.0, 4.0, 8.0, 16.0]), words=True)
    assert found["text"].to_list() == ["Unbelievable", ",", " he", " said", "."]
    assert found["attribution"].to_list() == [7.0, 8.0, 16.0, None, None]
    assert found.select("first", "last").rows() == [(0, 2), (3, 3), (4, 4), (5, 5), (6, 6)]
    each = shares_by_word(trace, shares([1.0, 2.0, 4.0, 8.0, 16.0]), words=False)
    assert each["attribution"].to_list() == [1.0, 2.0, 4.0, 8.0, 16.0, None, None]


@pytest.mark.parametrize("words", [False, True])
def test_every_character_is_there_once_and_no_share_is_lost(words: bool) -> None:
    trace = make_trace(tokens=30)  # an emoji of three tokens among them
    found = shares_by_word(trace, shares([0.5] * 30), words=words)
    spans = trace.tokens.group_by("span", maintain_order=True).first()["text"]
    assert "".join(found["text"]) == "".join(spans)
    assert found["attribution"].sum() == pytest.approx(15.0)
    emoji = found.filter(pl.col("text") == " 🦊").row(0, named=True)
    assert emoji["attribution"] == pytest.approx(1.5)
    assert found["first"].to_list()[1:] == [last + 1 for last in found["last"].to_list()[:-1]]
