from __future__ import annotations

import time

import polars as pl
import pytest

import skipviz
from skipviz.analysis.tokens import linguistics
from skipviz.analysis.tokens.classes import WORDS, kinds_of_texts, token_classes
from skipviz.analysis.tokens.function_words import is_function_word
from tests.synthetic import make_trace, say


def classes(pieces: list[str], *, linguistic: bool = False) -> pl.DataFrame:
    trace = say(make_trace(tokens=len(pieces)), pieces)
    return token_classes(trace, linguistic=linguistic)


def test_each_kind_is_found() -> None:
    pieces = ["The", " fox", " ate", " ", "4", "2", ",", "\n\n", " =", "🦊", " don", "'t", ' "']
    assert classes(pieces)["kind"].to_list() == [
        "function words",
        "content words",
        "content words",
        "white space",
        "digits",
        "digits",
        "punctuation",
        "white space",
        "symbols",
        "symbols",
        "function words",
        "function words",
        "punctuation",
    ]


def test_a_piece_has_the_kind_and_casing_of_its_word_not_its_own() -> None:
    # "there" is a function word, and part of one that is not.
    found = classes([" Bot", "there", "d", " there", " NASA", " iPhone", " עברית", " A", "7"])
    assert found["kind"].to_list()[:4] == ["content words"] * 3 + ["function words"]
    assert found["casing"].to_list() == [
        "capitalised words",
        "capitalised words",
        "capitalised words",
        "lower-case words",
        "upper-case words",
        "mixed-case words",
        None,
        "capitalised words",
        None,
    ]
    assert found["piece"].to_list()[:4] == [
        "first pieces",
        "continuations",
        "continuations",
        "whole words",
    ]
    assert found["word_piece"].to_list() == [0, 1, 2, 0, 0, 0, 0, 0, None]


def test_sentences_end_at_stops_and_empty_lines_but_not_at_line_breaks() -> None:
    found = classes(["One", " two", ".”", " Three", "\n", "four", "\n\n", "Five", " 3", ".", "14"])
    assert found["sentence"].to_list() == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert found["sentence_position"].to_list() == [0, 1, 2, 0, None, 1, None, 0, 1, 2, 3]
    assert found["in_sentence"].to_list() == [
        "sentence starts",
        "sentence middles",
        "sentence ends",
        "sentence starts",
        None,
        "sentence ends",
        None,
        "sentence starts",
        "sentence middles",
        "sentence middles",
        "sentence ends",
    ]


def test_tokens_that_share_an_emoji_and_odd_ones_are_classed() -> None:
    found = token_classes(make_trace(tokens=60, sequences=3))
    trace = make_trace(tokens=60, sequences=3)
    kinds = dict(zip(trace.tokens["text"], found["kind"], strict=True))
    assert kinds["🦊"] == kinds[" 🦊"] == kinds["\x00"] == "symbols"
    assert kinds["\r\n"] == "white space"
    assert kinds[" &amp;"] == "punctuation"
    assert kinds[" cafe\u0301"] == WORDS  # one in nine of them is an English function word
    assert found["token"].to_list() == list(range(60))
    # Each text counts its own sentences on.
    assert found["sentence"].n_unique() >= 3


def test_without_offsets_the_texts_are_joined() -> None:
    assert token_classes(make_trace(offsets=False))["kind"].null_count() == 0


def test_a_real_tokenizers_pieces_add_up(gated: skipviz.SkipModel) -> None:
    text = "It's naïve, isn’t it? 3.14 🦊🦊 — ok.\n\nNew"
    trace = skipviz.trace(gated, [text, text], statistics=False)
    found = token_classes(trace).hstack(trace.tokens.select("text", "sequence"))
    first = found.filter(sequence=0)
    assert first.drop("token", "sentence", "sequence").equals(
        found.filter(sequence=1).drop("token", "sentence", "sequence")
    )
    assert first["sentence"].unique().to_list() == [0, 1, 2]
    digits = first.filter(kind="digits")["text"].str.strip_chars()
    assert "".join(digits) == "314"


def test_other_scripts_have_sentences_too() -> None:
    assert classes(["我来", "。", "你好", "！"])["sentence"].to_list() == [0, 0, 1, 1]


@pytest.mark.parametrize("word", ["The", "don't", "isn’t", "it's", "won't", "WITH"])
def test_function_words(word: str) -> None:
    assert is_function_word(word)


@pytest.mark.parametrize("word", ["system", "fox", "o'clock", "t"])
def test_content_words(word: str) -> None:
    assert not is_function_word(word)


def test_an_empty_trace_is_refused() -> None:
    with pytest.raises(ValueError, match="0 tokens"):
        token_classes(make_trace(tokens=0))


@pytest.mark.slow
def test_spacy_says_part_of_speech_and_entity() -> None:
    pieces = ["Angela", " Mer", "kel", " visited", " Paris", ".", "\n"]
    found = classes(pieces, linguistic=True)
    assert found["part_of_speech"].to_list() == [
        "proper nouns",
        "proper nouns",
        "proper nouns",
        "verbs",
        "proper nouns",
        "punctuation",
        None,
    ]
    assert found["entity"].to_list() == [
        "names of people",
        "names of people",
        "names of people",
        None,
        "countries and cities",
        None,
        None,
    ]


@pytest.mark.slow
def test_a_long_text_is_tagged_in_stretches_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = ["Angela", " Merkel", " visited", " Paris", ". "] * 12
    whole = classes(pieces, linguistic=True)
    monkeypatch.setattr(linguistics, "STRETCH", 90)
    parts = classes(pieces, linguistic=True)
    assert parts.height == len(pieces)
    assert (parts["part_of_speech"] == whole["part_of_speech"]).mean() > 0.9


def test_absence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linguistics, "MODEL", "en_core_web_missing")
    linguistics.tagger.cache_clear()
    with pytest.raises(ImportError, match=r"pip install 'skipviz\[linguistics\]'"):
        classes(["Hello"], linguistic=True)
    linguistics.tagger.cache_clear()


def test_five_thousand_tokens_take_a_moment() -> None:
    began = time.perf_counter()
    classes([" word", "s", ".", " 4", " And"] * 1000)
    assert time.perf_counter() - began < 1


def test_texts_by_themselves_are_of_the_kind_of_tokens_that_are_whole_words() -> None:
    pieces = [
        "The",
        " fox",
        "'s",
        " 42",
        ",",
        "\n",
        " $",
        " don't",
        " of",
        "\t",
        " \u00e9t\u00e9",
        ".",
    ]
    expected = classes(pieces)["kind"].to_list()
    found = kinds_of_texts(pl.Series(pieces)).to_list()
    assert found[:2] + found[3:] == expected[:2] + expected[3:]
    assert kinds_of_texts(pl.Series(["the", "ology", "", " ", "'s"])).to_list() == [
        "function words", "content words", "white space", "white space", "punctuation"
    ]  # fmt: skip
    assert kinds_of_texts(pl.Series([], dtype=pl.String)).to_list() == []
