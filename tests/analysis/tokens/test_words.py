from __future__ import annotations

import numpy as np
import pytest

from skipviz.analysis.tokens.words import Words, word_changes
from tests.synthetic import make_trace, say

PIECES = ["The", " f", "ox", " ", " \n", "sat", ".", " Why", "?", "\n"]
TEXT = "".join(PIECES)
SPANS = [(0, 3), (4, 7), (10, 14), (15, 19)]
TOKENS = [[0], [1, 2], [3, 4, 5, 6], [7, 8, 9]]


@pytest.fixture
def words() -> tuple[Words, object]:
    trace = say(make_trace(tokens=len(PIECES), sequences=1), PIECES)
    return Words.of(trace, 0, SPANS), trace


def test_spans_are_the_words_of_the_text() -> None:
    assert [TEXT[start:end] for start, end in SPANS] == TEXT.split()


def test_a_word_is_what_its_tokens_come_to(words: tuple[Words, object]) -> None:
    found, trace = words
    executed = trace.matrix("exec_count") > 0
    surprisal = trace.tokens["surprisal"].to_list()
    used = trace.tokens["layers_used"].to_numpy()
    assert found.tokens.tolist() == [len(tokens) for tokens in TOKENS]
    for word, tokens in enumerate(TOKENS):
        np.testing.assert_allclose(found.rates[word], executed[tokens].mean(axis=0))
        assert found.layers_used[word] == pytest.approx(used[tokens].mean())
        if word:
            assert found.loss[word] == pytest.approx(sum(surprisal[t] for t in tokens))
    assert np.isnan(found.loss[0])  # the first token of a text is not predicted


def test_a_word_without_tokens_has_no_figures() -> None:
    trace = say(make_trace(tokens=2), ["a", " b"])
    found = Words.of(trace, 0, [(0, 1), (2, 3), (4, 5)])
    assert found.tokens.tolist() == [1, 1, 0]
    assert np.isnan(found.rates[2]).all()


def test_no_words_and_no_such_text_get_a_sentence(words: tuple[Words, object]) -> None:
    with pytest.raises(ValueError, match="no words"):
        Words.of(make_trace(), 0, [])
    with pytest.raises(ValueError, match="no text 7"):
        Words.of(make_trace(), 7, SPANS)


def test_single_tokens_move_by_the_share_of_decisions_that_differ() -> None:
    generator = np.random.default_rng(0)
    first, second = (generator.integers(0, 2, (3, 8)) for _ in range(2))
    pieces = ["one", " two", " three"]
    before, after = (
        Words.of(say(make_trace(tokens=3, exec_count=each), pieces), 0, [(0, 3), (4, 7), (8, 13)])
        for each in (first, second)
    )
    table = word_changes(before, after, [(0, 0), (2, 1), (1, 2)])
    pairs = [(0, 0), (2, 1), (1, 2)]
    others = [1, 2, 0]
    assert table["word"].to_list() == [0, 2, 1]
    for row, (i, j), other in zip(table.iter_rows(named=True), pairs, others, strict=True):
        assert row["moved"] == pytest.approx((first[i] != second[j]).mean())
        assert row["apart"] == pytest.approx((first[i] != second[other]).mean())
        change = (second[j].sum() - first[i].sum()) / 2
        assert row["layers_after"] - row["layers_before"] == pytest.approx(change)
    assert table["loss_before"].to_list()[0] is None


def test_a_word_of_no_relation_is_no_neighbour() -> None:
    """Words whose neighbours run the same sites, and those far away others."""
    executed = np.zeros((8, 8), dtype=np.int64)
    executed[4:] = 1
    text = [f" {letter}" for letter in "abcdefgh"]
    trace = say(make_trace(tokens=8, exec_count=executed), text)
    words = Words.of(trace, 0, [(2 * i + 1, 2 * i + 2) for i in range(8)])
    assert word_changes(words, words, [(i, i) for i in range(8)])["apart"].to_list() == [1.0] * 8


def test_one_pair_has_no_other_to_lie_apart_from() -> None:
    trace = say(make_trace(tokens=2), ["a", " b"])
    words = Words.of(trace, 0, [(0, 1), (2, 3)])
    table = word_changes(words, words, [(1, 1)])
    assert table["moved"].item() == 0
    assert table["apart"].item() is None
    assert word_changes(words, words, []).height == 0
