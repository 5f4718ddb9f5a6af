from __future__ import annotations

import threading

import numpy as np
import polars as pl
import pytest

import skipviz
from skipviz.experiments.robustness.paraphrases import PAIRS, pair_lines, read_pairs
from skipviz.experiments.robustness.perturbations import PERTURBATIONS, surface, upper_case
from skipviz.experiments.robustness.surface import (
    SURFACE_SCHEMA,
    beginnings,
    paraphrase_changes,
    shared_words,
    surface_changes,
)
from tests import tiny

TEXTS = (tiny.TEXT, "A dog and a fox, lazy both of them.\nThey sleep.")


@pytest.fixture
def documents() -> list[skipviz.Document]:
    return [skipviz.Document(f"doc{number}", text) for number, text in enumerate(TEXTS)]


def test_words_are_those_of_traces_of_each_text(
    gated: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    table = surface_changes(gated, documents, seed=3)
    assert dict(table.schema) == SURFACE_SCHEMA
    assert table["kind"].unique(maintain_order=True).to_list() == list(PERTURBATIONS)
    assert table.height == len(PERTURBATIONS) * sum(len(text.split()) for text in TEXTS)
    part = table.filter(kind="upper case", source="doc1")
    assert part["before"].to_list() == TEXTS[1].split()
    assert part["after"].to_list() == TEXTS[1].upper().split()
    texts = (TEXTS[1], upper_case(TEXTS[1], seed=3).text)
    before, after = (skipviz.trace(gated, text) for text in texts)
    assert part["tokens_after"].sum() == len(after)
    # The whole text, and one word by hand: its tokens are those that touch its characters.
    weighted = part["layers_before"] * part["tokens_before"]
    assert weighted.sum() == pytest.approx(before.tokens["layers_used"].sum(), rel=1e-6)
    rates = []
    for traced, text in ((before, texts[0]), (after, texts[1])):
        # With the white space before it.
        start, end = surface(text).spans[3][1], surface(text).spans[4][1]
        inside = (pl.col("char_end") > start) & (pl.col("char_start") < end)
        rows = traced.tokens.filter(inside)["token"].to_numpy()
        rates.append((traced.matrix("exec_count")[rows] > 0).mean(axis=0))
    assert part["moved"][4] == pytest.approx(np.abs(rates[0] - rates[1]).mean())


def test_a_text_that_stays_as_it_is_does_not_move(gated: skipviz.SkipModel) -> None:
    document = skipviz.Document("sums", "12 + 7 = 19 and 3 + 4 = 7.")
    kinds = {"none": PERTURBATIONS["spacing"], "same": lambda text, *, seed=0: surface(text)}
    table = surface_changes(gated, [document], perturbations=kinds, seed=0)
    same = table.filter(kind="same")
    assert same["moved"].to_list() == [0.0] * 11
    assert same["touched"].sum() == 0
    assert (same["loss_after"] - same["loss_before"]).abs().max() < 1e-4
    other = table.filter(kind="none")
    assert other["touched"].to_list() == [False] + [True] * 10
    assert other["moved"].max() > 0


def test_words_before_the_first_change_do_not_move(gated: skipviz.SkipModel) -> None:
    kinds = {"end": lambda text, *, seed=0: surface(text.replace("42.", "43!"))}
    document = skipviz.Document("a", tiny.TEXT)
    table = surface_changes(gated, [document], perturbations=kinds, seed=0)
    assert table["touched"].to_list() == [False] * 16 + [True]
    assert table["moved"].to_list()[:-1] == [0.0] * 16


def test_paraphrases_are_compared_where_they_share_words(gated: skipviz.SkipModel) -> None:
    pairs = [("The fox sleeps; why?", "Why? The fox sleeps."), ("A dog.", "Nobody knows")]
    words, table = paraphrase_changes(gated, pairs)
    assert words.select("before", "after").rows() == [
        ("The", "The"), ("fox", "fox"), ("sleeps;", "sleeps."),
    ]  # fmt: skip
    assert words["touched"].to_list() == [True, False, True]
    assert table["shared"].to_list() == [3, 0]
    assert table["moved"][1] is None
    traced = skipviz.trace(gated, pairs[0][1])
    assert table["layers_after"][0] == pytest.approx(traced.tokens["layers_used"].mean())
    assert table["loss_after"][0] == pytest.approx(traced.tokens["nll"].sum(), rel=1e-5)
    assert shared_words(["a", "b", "c"], ["C", "a", "x", "b"]) == [(0, 1), (1, 3)]


def test_beginnings_share_the_characters(documents: list[skipviz.Document]) -> None:
    long = skipviz.Document("long", "word " * 500)
    taken = beginnings([documents[1], long, long], most=2000)
    assert taken[0].text == TEXTS[1]
    assert sum(len(each.text) for each in taken) <= 2000
    assert all(each.text.split()[-1] == "word" for each in taken[1:])
    assert len(taken[1].text) == pytest.approx(len(taken[2].text), abs=6)
    assert len(beginnings([long] * 90, most=2000)) == 5  # of 400 characters each
    assert len(beginnings([skipviz.Document("no spaces", "字" * 5000)])[0].text) == 3000
    with pytest.raises(ValueError, match="no text with words"):
        beginnings([skipviz.Document("blank", " \n")])


def test_what_cannot_be_run_gets_a_sentence(
    gated: skipviz.SkipModel, dense: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    with pytest.raises(ValueError, match="no gates"):
        surface_changes(dense, documents, seed=0)
    with pytest.raises(ValueError, match="no gates"):
        paraphrase_changes(dense, PAIRS)
    with pytest.raises(ValueError, match="no pairs"):
        paraphrase_changes(gated, [])
    stop = threading.Event()
    stop.set()
    with pytest.raises(skipviz.Stopped):
        surface_changes(gated, documents, seed=0, stop=stop)


def test_pairs_are_read_as_they_are_written() -> None:
    assert tuple(read_pairs(pair_lines())) == PAIRS
    assert read_pairs("a b | c d\n\n e|f ") == [("a b", "c d"), ("e", "f")]
    for text, sentence in (
        ("a | b\nc", "Line 2 is not a pair"),
        ("a | b | c", "Line 1 is not a pair"),
        ("a | ", "Line 1 is not a pair"),
        ("", "0 pairs"),
        ("a | b\n" * 51, "51 pairs"),
        (f"a | {'b' * 601}", "too long"),
    ):
        with pytest.raises(ValueError, match=sentence):
            read_pairs(text)
