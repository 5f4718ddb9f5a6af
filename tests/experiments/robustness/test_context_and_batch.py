from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import skipviz
from skipviz.analysis.robustness.decision_shift import shift_of_decisions
from skipviz.experiments.robustness import context_and_batch as neighbours
from skipviz.experiments.robustness.context_and_batch import (
    ALONE,
    OTHER_CONTEXT,
    _behind,
    batch_changes,
    context_changes,
)
from skipviz.readings.robustness import context_words
from tests import planted, tiny

TEXT = (
    "The quick brown fox jumps. “Why does the dog sleep?” Nobody in the house knows.\n"
    "Yes.\nOver the lazy dog it jumps, and then it sleeps. And it sleeps for a long time"
)
SENTENCES = [
    "“Why does the dog sleep?”",
    "Nobody in the house knows.",
    "Over the lazy dog it jumps, and then it sleeps.",
    "And it sleeps for a long time",
]


@pytest.fixture
def document() -> skipviz.Document:
    return skipviz.Document("story", TEXT)


def test_sentences_are_run_in_three_contexts(
    gated: skipviz.SkipModel, document: skipviz.Document
) -> None:
    others = skipviz.Document("numbers", "One two three four. Five six seven eight nine")
    table = context_changes(gated, [document, others], seed=0)
    assert table["unit"].n_unique() == len(SENTENCES) + 1
    for sentence in SENTENCES:
        source = f"story, character {TEXT.index(sentence)}"
        for kind in (ALONE, OTHER_CONTEXT):
            part = table.filter(source=source, kind=kind)
            assert part["before"].to_list() == sentence.split()
            assert part["after"].to_list() == sentence.split()
            assert part["tokens_before"].to_list() == part["tokens_after"].to_list()
    assert table["touched"].sum() == 0
    # The sentence alone, by hand.
    sentence = " " + SENTENCES[1]
    alone = skipviz.trace(gated, sentence)
    part = table.filter(source=f"story, character {TEXT.index(SENTENCES[1])}", kind=ALONE)
    own = skipviz.trace(gated, TEXT[: TEXT.index(SENTENCES[1]) + len(SENTENCES[1])])
    own_rows = own.tokens.filter(pl.col("char_end") > TEXT.index(sentence))["token"].to_numpy()
    weights = part["tokens_before"]
    assert len(own_rows) == len(alone) == weights.sum()
    for name, tokens in (("before", own.tokens[own_rows]), ("after", alone.tokens)):
        total = (part[f"layers_{name}"] * weights).sum()
        assert total == pytest.approx(tokens["layers_used"].sum(), rel=1e-6)


def contexts(
    model: skipviz.SkipModel, *texts: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[pl.DataFrame, list[str]]:
    """Return the changes, and the texts that were run for them."""
    run: list[str] = []

    def watched(model: skipviz.SkipModel, texts: list[str], **settings: Any) -> skipviz.Trace:
        run.extend(texts)
        return skipviz.trace(model, texts, **settings)

    monkeypatch.setattr(neighbours, "trace", watched)
    documents = [skipviz.Document(f"{number}", text) for number, text in enumerate(texts)]
    return context_changes(model, documents, seed=0), run


@pytest.mark.slow
def test_another_context_shares_nothing_with_the_sentence_and_its_own(
    gated: skipviz.SkipModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = " ".join(f"Of line {i} and {i}a there is so much." for i in range(40))
    table, run = contexts(gated, long, monkeypatch=monkeypatch)
    assert len(run) == 3 * neighbours.SENTENCES
    assert table.filter(kind=OTHER_CONTEXT)["unit"].n_unique() == neighbours.SENTENCES
    for own, alone, other in zip(run[::3], run[1::3], run[2::3], strict=True):
        before, elsewhere = own.removesuffix(alone), other.removesuffix(alone)
        place = long.index(own)
        taken = range(place, place + len(own))
        assert before
        assert elsewhere
        first = long.index(elsewhere)
        assert first not in taken
        assert first + len(elsewhere) - 1 not in taken


@pytest.mark.slow
def test_another_context_is_of_another_text_if_there_is_one(
    gated: skipviz.SkipModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [" ".join(f"Of {name} {i} there is so much." for i in range(20)) for name in "xy"]
    _, run = contexts(gated, *texts, monkeypatch=monkeypatch)
    for alone, other in zip(run[1::3], run[2::3], strict=True):
        assert (" x " in alone) != (" x " in other.removesuffix(alone))


def test_a_sentence_without_a_strange_context_has_no_rows_of_it(
    gated: skipviz.SkipModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short text, and the same text twice: every other context overlaps the own one."""
    for texts in ([TEXT], [TEXT, TEXT]):
        table, run = contexts(gated, *texts, monkeypatch=monkeypatch)
        assert table["kind"].unique().to_list() == [ALONE]
        assert len(run) == 2 * len(SENTENCES) * len(texts)
        assert "No sentence was put" in context_words(shift_of_decisions(table))


def test_gates_that_do_not_look_back_do_not_move() -> None:
    gain = planted.gains(0)
    model = skipviz.from_parts(planted.model(gain, gain), planted.tokenizer())
    words = planted.text(60).split()
    text = "\n".join(" ".join(words[start : start + 6]) for start in range(0, 60, 6))
    table = context_changes(model, [skipviz.Document("a", text)], seed=0)
    assert table["moved"].max() == 0
    assert table["apart"].max() > 0


def test_a_batch_changes_nothing(
    gated: skipviz.SkipModel, document: skipviz.Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []
    gated.model.model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)),
        with_kwargs=True,
    )
    table = batch_changes(gated, [document], seed=0)
    assert shapes[-1] == (table.height, table["tokens"].max())  # all in one padded batch
    assert (table["tokens"] + table["padding"]).n_unique() == 1
    assert table["padding"][0] > 0
    assert table["flips"].sum() == 0
    assert table["decisions"].to_list() == [8 * tokens for tokens in table["tokens"]]
    assert 0 < table["score_difference"].max() < 1e-4


def test_a_batch_that_leaks_is_found(
    gated: skipviz.SkipModel, document: skipviz.Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model whose first tokens hear of how many rows there are."""

    def leak(module: object, args: object, output: object) -> object:
        return output + 0.5 * (len(output) - 1)  # type: ignore[operator, arg-type]

    gated.model.model.embed_tokens.register_forward_hook(leak)
    table = batch_changes(gated, [document], seed=0)
    assert table["flips"].min() > 0
    assert (table["ties"] <= table["flips"]).all()
    assert table["loss_difference"].max() > 0.01


def test_short_texts_get_a_sentence(gated: skipviz.SkipModel, dense: skipviz.SkipModel) -> None:
    with pytest.raises(ValueError, match="There are 0 sentences"):
        context_changes(gated, [skipviz.Document("a", "One sentence is all there is.")], seed=0)
    with pytest.raises(ValueError, match="too few words"):
        batch_changes(gated, [skipviz.Document("a", "Word")], seed=0)
    for run in (context_changes, batch_changes):
        with pytest.raises(ValueError, match="no gates"):
            run(dense, [skipviz.Document("a", TEXT)], seed=0)


def test_pieces_too_long_for_one_batch_stay_out(
    gated: skipviz.SkipModel, document: skipviz.Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "BATCH_TOKENS", 200)
    table = batch_changes(gated, [document], seed=0)
    assert table["tokens"].max() * table.height <= 200
    assert table["score_difference"].is_finite().all()


def test_a_flip_that_another_one_led_to_accuses_nobody() -> None:
    flipped = np.zeros((3, 4), dtype=bool)
    flipped[1, 0] = True
    behind = _behind(flipped, np.array([2, 2, 3, 3]))
    assert behind.tolist() == [
        [False, False, False, False],
        [False, True, True, True],  # the token itself, from the next site on
        [False, False, True, True],  # later ones, from the next layer on
    ]


def test_in_half_precision_a_batch_says_nothing() -> None:
    model = skipviz.from_parts(tiny.gated(seed=0).to(torch.bfloat16), tiny.tokenizer())
    with pytest.raises(ValueError, match="In bfloat16 rounding alone turns many decisions over"):
        batch_changes(model, [skipviz.Document("a", tiny.TEXT)], seed=0)
