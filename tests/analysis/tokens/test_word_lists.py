from __future__ import annotations

import re
import statistics
import token
import tokenize
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from wordfreq import available_languages, get_frequency_dict

from skipviz.analysis.gates.score_correlation import correlate
from skipviz.analysis.layers.difficulty import difficulty
from skipviz.analysis.tokens.classes import WORDS, token_classes, word_lists
from skipviz.analysis.tokens.covariates import covariates
from skipviz.analysis.tokens.function_words import ENGLISH_SHARE, is_function_word
from skipviz.traces import Trace
from tests.synthetic import make_trace, say

TEXTS = {
    "English": "All human beings are born free and equal in dignity and rights. They are endowed "
    "with reason and conscience and should act towards one another in a spirit of brotherhood.",
    "German": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit "
    "Vernunft und Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen.",
    "French": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont "
    "doués de raison et de conscience et doivent agir les uns envers les autres dans un esprit de "
    "fraternité.",
    "Russian": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они "
    "наделены разумом и совестью и должны поступать в отношении друг друга в духе братства.",
    "Dutch": "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren. Zij zijn "
    "begaafd met verstand en geweten, en behoren zich jegens elkander in een geest van "
    "broederschap te gedragen.",
    "code": "def clip(values, low, high):\n    result = []\n    for value in values:\n        "
    "result.append(max(low, min(high, value)))\n    return result\n",
}


def traced(*texts: str) -> Trace:
    pieces = [re.findall(r"\s?\S+|\s+", text) for text in texts]
    longest = max(map(len, pieces))
    filled = [each + [" 1"] * (longest - len(each)) for each in pieces]
    trace = make_trace(tokens=longest * len(texts), sequences=len(texts))
    return say(trace, [piece for each in filled for piece in each])


def test_running_english_is_told_from_every_language_of_which_words_are_counted() -> None:
    shares = {}
    for language in available_languages("best"):
        known = {
            word: often
            for word, often in get_frequency_dict(language).items()
            if any(map(str.isalpha, word))
        }
        function = sum(often for word, often in known.items() if is_function_word(word))
        shares[language] = function / sum(known.values())
    english = shares.pop("en")
    assert english == pytest.approx(0.51, abs=0.005)
    assert max(shares.values()) == pytest.approx(0.13, abs=0.005) == shares["hu"]
    assert max(shares.values()) < ENGLISH_SHARE / 1.9 < ENGLISH_SHARE < english / 1.9


def test_code_has_few_function_words() -> None:
    words = []
    for module in sorted(Path(tokenize.__file__).parent.glob("[a-h]*.py")):
        with tokenize.open(module) as file:
            names = [each.string for each in tokenize.generate_tokens(file.readline)
                     if each.type == token.NAME]  # fmt: skip
        words.append(re.findall(r"[^\W\d_]+", " ".join(names)))
    shares = [sum(map(is_function_word, each)) / len(each) for each in words if len(each) > 50]
    assert statistics.median(shares) == pytest.approx(0.14, abs=0.01)
    assert np.mean([share < ENGLISH_SHARE for share in shares]) > 0.95


@pytest.mark.parametrize("language", TEXTS)
def test_words_of_other_languages_are_one_class_of_unknown_frequency(language: str) -> None:
    trace = traced(TEXTS[language])
    kinds = set(token_classes(trace)["kind"])
    english = language == "English"
    assert ({"function words", "content words"} <= kinds) == english
    assert (WORDS in kinds) == (not english)
    assert (covariates(trace)["log_frequency"].count() > 0) == english
    assert (difficulty(trace)["log_frequency"].count() > 0) == english
    assert word_lists(trace)["english"].to_list() == [english]


def test_each_text_is_judged_by_itself() -> None:
    trace = traced(TEXTS["English"], TEXTS["German"])
    found = trace.tokens.select("token", "sequence").join(token_classes(trace), on="token")
    german = pl.col("kind") == WORDS
    assert not found.filter(sequence=0).select(german).to_series().any()
    assert not (found.filter(sequence=1)["kind"].is_in(["function words", "content words"])).any()
    frequency = covariates(trace)["log_frequency"].is_not_null()
    assert set(trace.tokens["sequence"].filter(frequency)) == {0}
    assert word_lists(trace).select("words", "english").rows() == [(30, True), (26, False)]


def test_frequency_is_not_named_as_controlled_where_it_is_unknown() -> None:
    def controls(text: str) -> list[str | None]:
        trace = traced(text)
        cells = trace.decisions.select("token", "site", value=pl.col("score"))
        table = correlate(trace, cells, "value", permutations=9)
        return table.sort("controlled")["controls"].unique(maintain_order=True).to_list()

    assert controls(TEXTS["German"]) == [None, "position, surprisal and length"]
    assert controls(TEXTS["English"]) == [None, "position, word frequency, surprisal and length"]
