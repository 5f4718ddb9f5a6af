from __future__ import annotations

import sys

import numpy as np
import pytest
from wordfreq import zipf_frequency

from skipviz.analysis.tokens.covariates import COVARIATES, covariates, design_matrix
from tests.synthetic import make_trace, say

PIECES = ["The", " light", "house", ",", " qqxzt", "\n"]


def test_a_token_has_the_frequency_of_its_whole_word() -> None:
    trace = say(make_trace(tokens=len(PIECES)), PIECES)
    found = covariates(trace)
    house = zipf_frequency("lighthouse", "en")
    assert found["log_frequency"].to_list() == [
        zipf_frequency("the", "en"), house, house, None, 0.0, None
    ]  # fmt: skip
    assert found["length"].to_list() == [3, 6, 5, 1, 6, 1]
    assert found["position"].to_list() == list(range(6))
    assert found["surprisal"][0] is None
    assert found["surprisal"][3] == pytest.approx(trace.tokens["surprisal"][3])


def test_positions_and_words_are_those_of_each_text() -> None:
    found = covariates(make_trace(tokens=20, sequences=2))
    assert found["token"].to_list() == list(range(20))
    assert found["position"].to_list() == [*range(10), *range(10)]
    assert found["surprisal"].is_null().to_list() == [place in (0, 10) for place in range(20)]


def test_tokens_outside_words_take_the_mean_frequency_and_are_marked() -> None:
    trace = say(make_trace(tokens=len(PIECES)), PIECES)
    table = covariates(trace)
    numbers = design_matrix(table)
    assert numbers.shape == (6, len(COVARIATES) + 1)
    inside = table["log_frequency"].drop_nulls().to_numpy()
    np.testing.assert_allclose(numbers[[3, 5], 1], inside.mean())
    assert numbers[:, -1].tolist() == [0, 0, 0, 1, 0, 1]
    assert np.isnan(numbers).sum() == 1  # the surprisal of the first token


def test_without_wordfreq_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wordfreq", None)
    with pytest.raises(ImportError, match=r"skipviz\[correlation\]"):
        covariates(make_trace(tokens=4))
