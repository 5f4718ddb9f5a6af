from __future__ import annotations

from dataclasses import replace
from functools import partial

import polars as pl
import pytest

import skipviz
from skipviz.readings.generation import (
    WHY_ENDED,
    comparison_reading,
    generation_reading,
    writer_reading,
)
from tests.synthetic import make_trace

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
        "this one 4.0: 0.50 times as many."
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


def test_another_writer_than_the_model_of_the_trace_is_named_with_the_reason() -> None:
    trace = make_trace()
    run = trace.run.with_columns(
        model=pl.lit("mine"), policy=pl.lit("learned"), budget=0.8, loss=pl.lit("next_token")
    )
    trace = replace(trace, run=run)
    asked = partial(writer_reading, trace, model="mine", policy="learned", budget=0.8, asked=True)
    assert asked() is None
    assert asked(policy=None, budget=None) is None
    assert asked(budget=0.6) == (
        "This page writes with mine at a budget of 60%, as the side bar says. The text shown above "
        "was traced with mine at a budget of 80%."
    )
    assert asked(policy="random") == (
        "This page writes with mine under the policy random, as the side bar says. The text shown "
        "above was traced with mine under the policy learned."
    )
    assert asked(model="yours", policy="random", budget=0.6) == (
        "This page writes with yours, as the side bar says. The text shown above was traced with "
        "mine."
    )
    whole = replace(trace, run=run.with_columns(loss=pl.lit("none"), model=pl.lit(None, pl.String)))
    assert writer_reading(whole, model="yours", policy=None, budget=None, asked=False) == (
        "This page writes with yours, since the side bar names no model. The text shown above was "
        "traced with an unknown model, which predicts no next token and cannot write. To write "
        "with another model, choose a text and a model there."
    )
