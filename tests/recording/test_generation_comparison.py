from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

import skipviz
from skipviz.errors import InputError

PROMPT = "The quick brown"


def test_it_finds_where_two_texts_part(gated: skipviz.SkipModel, dense: skipviz.SkipModel) -> None:
    one, other = (skipviz.generate(each, PROMPT, max_new_tokens=12) for each in (gated, dense))
    found = skipviz.compare_generations(one, other)
    token = found.token
    assert token is not None
    pairs = zip(one.written, other.written, strict=False)
    same = [mine.token_id == theirs.token_id for mine, theirs in pairs]
    assert same[:token] == [True] * token
    assert not same[token]
    assert found.shared == "".join(each.text for each in one.written[:token])
    assert found.texts == (one.written[token].text, other.written[token].text)
    rows = found.figures.to_dicts()
    assert [row["model"] for row in rows] == ["tiny-gated", "tiny-dense"]
    assert rows[1]["layers_used"] == 6
    written = one.trace.tokens.filter(phase="decode")
    assert rows[0]["layers_used"] == pytest.approx(written["layers_used"].mean())
    prompt = one.trace.tokens.filter(phase="prefill")
    assert rows[0]["prompt_layers_used"] == pytest.approx(prompt["layers_used"].mean())
    assert rows[0]["tokens_per_second"] == one.tokens_per_second
    assert rows[0]["seconds_to_first"] == one.seconds_to_first


def test_equal_texts_do_not_part(gated: skipviz.SkipModel) -> None:
    one, other = (skipviz.generate(gated, PROMPT, max_new_tokens=5) for _ in range(2))
    found = skipviz.compare_generations(one, other)
    assert (found.token, found.shared, found.texts) == (None, one.text, ("", ""))


def test_a_text_that_ends_before_parts_there(gated: skipviz.SkipModel) -> None:
    one, other = (skipviz.generate(gated, PROMPT, max_new_tokens=n) for n in (5, 7))
    found = skipviz.compare_generations(one, other)
    assert found.token == 5
    assert found.texts == ("", other.written[5].text)


def test_a_text_that_was_stopped_is_compared_as_far_as_it_was_written(
    gated: skipviz.SkipModel, dense: skipviz.SkipModel
) -> None:
    short, long = (skipviz.generate(gated, PROMPT, max_new_tokens=n) for n in (5, 7))
    stopped = replace(short, ended="stopped")
    for pair in ((stopped, long), (long, stopped)):
        found = skipviz.compare_generations(*pair)
        assert (found.token, found.texts) == (None, ("", ""))
        assert found.shared == "".join(each.text for each in pair[0].written[:5])
    assert skipviz.compare_generations(short, replace(long, ended="stopped")).token == 5
    other = replace(skipviz.generate(dense, PROMPT, max_new_tokens=12), ended="stopped")
    own = skipviz.generate(gated, PROMPT, max_new_tokens=14)
    parts = skipviz.compare_generations(own, other).token
    assert parts is not None
    assert parts < 12


def test_a_single_token_has_no_speed(gated: skipviz.SkipModel) -> None:
    made = skipviz.generate(gated, PROMPT, max_new_tokens=1)
    assert made.tokens_per_second is None
    assert replace(made, tokens=made.tokens * 3, seconds_after=0.5).tokens_per_second == 4
    figures = skipviz.compare_generations(made, made).figures
    assert figures["layers_used"].to_list() == [None, None]
    assert figures.schema["tokens_per_second"] == figures.schema["layers_used"] == pl.Float64


def test_other_prompts_are_refused(gated: skipviz.SkipModel) -> None:
    one, other = (skipviz.generate(gated, text, max_new_tokens=2) for text in ("a", "b"))
    with pytest.raises(InputError, match="The prompts differ"):
        skipviz.compare_generations(one, other)
