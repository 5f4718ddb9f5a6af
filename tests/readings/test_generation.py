from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

import skipviz
from skipviz.readings.generation import (
    LEAST_COMPARED,
    WHY_ENDED,
    comparison_reading,
    generation_reading,
)

PROMPT = "The quick brown"


@pytest.fixture(autouse=True)
def _endless(gated: skipviz.SkipModel, dense: skipviz.SkipModel) -> None:
    for each in (gated, dense):
        each.model.generation_config.eos_token_id = None


def test_the_sentence_has_the_numbers(gated: skipviz.SkipModel, dense: skipviz.SkipModel) -> None:
    made = replace(
        skipviz.generate(gated, PROMPT, max_new_tokens=9), seconds_after=2.0, ended="stopped"
    )
    used = made.trace.tokens
    mean = used.filter(phase="decode")["layers_used"].mean()
    prompt = used.filter(phase="prefill")["layers_used"].mean()
    assert made.mean_layers("decode") == pytest.approx(mean)
    assert generation_reading(made) == (
        f"The model wrote 9 tokens and used {mean:.1f} of 6 layers for each on average "
        f"({prompt:.1f} for each token of the prompt); it was stopped. It wrote 4.0 tokens per "
        "second. Skipped units were computed and discarded here (masked), so skipping saved no "
        "time. Times are those of this one run; they vary with what else the machine does."
    )
    fast = skipviz.generate(skipviz.with_runtime(gated, "gathered"), PROMPT, max_new_tokens=3)
    assert "masked" not in generation_reading(fast)
    plain = generation_reading(skipviz.generate(dense, PROMPT, max_new_tokens=3))
    assert "wrote 3 tokens and used all 6 layers for each; it ended at the number" in plain
    assert "masked" not in plain
    one = skipviz.generate(gated, PROMPT, max_new_tokens=1)
    assert generation_reading(one) == f"The model wrote 1 token; {WHY_ENDED['max_new_tokens']}."


def test_where_two_texts_part_is_said(gated: skipviz.SkipModel, dense: skipviz.SkipModel) -> None:
    own, other = (
        replace(skipviz.generate(each, PROMPT, max_new_tokens=9), seconds_after=seconds)
        for each, seconds in ((gated, 2.0), (dense, 1.0))
    )
    found = skipviz.compare_generations(own, other)
    assert found.token is not None
    found = replace(found, texts=("(", "fox"))
    assert comparison_reading(found) == (
        f"The texts part at written token {found.token + 1}: “{found.texts[0]}” here, "
        f"“{found.texts[1]}” by the dense model. The dense model wrote 8.0 tokens per second, and "
        "this one 4.0. Fewer than 16 tokens are too few to compare their speeds: write more, or "
        "see the page Cost."
    )
    figures = found.figures.with_columns(tokens=pl.lit(LEAST_COMPARED, pl.Int64))
    assert comparison_reading(replace(found, figures=figures)).endswith(
        "wrote 8.0 tokens per second, and this one 4.0: 0.50 times as many. Each was timed in one "
        "run, one after the other; the page Cost runs the two in turn, several times."
    )
    same = comparison_reading(skipviz.compare_generations(own, own))
    assert same.startswith("The dense model wrote the same 9 tokens.")
    short = skipviz.generate(gated, PROMPT, max_new_tokens=1)
    cut = comparison_reading(skipviz.compare_generations(short, own))
    assert cut.startswith("The texts part at written token 2: the end of the text here, “")
    assert "per second" not in cut
    stopped = replace(short, ended="stopped")
    for pair, shorter in (
        ((own, stopped), "that of the dense model"),
        ((stopped, own), "this text"),
    ):
        assert comparison_reading(skipviz.compare_generations(*pair)) == (
            f"The texts are the same as far as {shorter} was written: 1 token. It was stopped "
            "there."
        )
    part = replace(found, texts=("", found.texts[1]), token=2)
    assert "token 3: a part of a character here" in comparison_reading(part)
