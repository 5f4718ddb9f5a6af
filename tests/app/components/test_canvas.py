from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

import skipviz
from skipviz.app.components.canvas import Selection, selection_of
from skipviz.app.components.canvas_payload import (
    changed_payload,
    lens_payload,
    payload,
    span_texts,
)
from skipviz.errors import InputError
from skipviz.plots.lenses.found import class_lens, utility_lens
from skipviz.plots.lenses.lens import Lens
from skipviz.plots.lenses.own import own_lens
from skipviz.plots.style import palette
from skipviz.plots.style.palette import MARGIN_ENDS, margin_end
from tests import tiny
from tests.synthetic import make_trace

TOKENS, SITES = 30, 8


def unpacked(sent: dict[str, Any], name: str) -> np.ndarray:
    """Read an array as the browser does."""
    kind, start, count = sent["parts"][name]
    raw = sent["bytes"]["b"].to_numpy()[start:].tobytes()
    return np.frombuffer(raw, dtype=kind, count=count)


def counted(name: str) -> Lens:
    """Return a lens that counts the tokens."""
    return Lens(
        name=name, unit="", values=np.arange(TOKENS, dtype=np.float32), scale="sequential",
        ends=(0.0, TOKENS - 1.0),
    )  # fmt: skip


def with_matrices(trace: skipviz.Trace, **matrices: np.ndarray) -> skipviz.Trace:
    return skipviz.Trace(
        run=trace.run, sites=trace.sites, tokens=trace.tokens,
        matrices={**trace.matrices, **matrices},
    )  # fmt: skip


def test_the_browser_gets_every_decision_and_score() -> None:
    trace = make_trace(tokens=TOKENS, polarity=-1)
    sent = payload(trace, key="k")
    assert (sent["key"], sent["count"], sent["layers"]) == ("k", TOKENS, 6)
    assert [site["label"] for site in sent["sites"]] == trace.sites["label"].to_list()
    ran = np.unpackbits(unpacked(sent, "ran"), bitorder="little")[: TOKENS * SITES]
    assert (trace.matrix("exec_count") == ran.reshape(SITES, TOKENS).T).all()
    scores = unpacked(sent, "scores").reshape(SITES, TOKENS).T.astype(float)
    margin = scores * [site["spread"] for site in sent["sites"]]
    np.testing.assert_allclose(margin, trace.margin, rtol=1e-3)
    threshold = np.array([site["threshold"] for site in sent["sites"]])
    np.testing.assert_allclose(threshold - margin, trace.matrix("score"), atol=2e-3)


def test_scores_near_a_threshold_keep_their_digits() -> None:
    trace = make_trace(tokens=TOKENS)
    margin = np.linspace(-3e-5, 3e-5, TOKENS * SITES).reshape(TOKENS, SITES)
    threshold = np.full((TOKENS, SITES), 0.5)
    near = with_matrices(
        trace,
        threshold=threshold.astype(np.float32),
        score=(threshold + margin).astype(np.float32),
    )
    sent = payload(near, key="k")
    scores = unpacked(sent, "scores").reshape(SITES, TOKENS).T.astype(float)
    found = scores * [site["spread"] for site in sent["sites"]]
    np.testing.assert_allclose(found, near.margin, rtol=1e-3, atol=1e-9)


def test_thresholds_that_vary_go_as_runs() -> None:
    trace = make_trace(tokens=TOKENS)
    limits = trace.matrix("threshold").copy()
    limits[:, 0] = 0.25
    limits[:, 1] = np.repeat([0.0, 1.0, 2.0], 10)
    limits[:5, 2] = np.nan
    sent = payload(with_matrices(trace, threshold=limits), key="k")
    assert sent["sites"][0]["threshold"] == 0.25
    assert sent["sites"][1]["threshold"] is None
    assert unpacked(sent, "limitStarts1").tolist() == [0, 10, 20]
    assert unpacked(sent, "limits1").tolist() == [0, 1, 2]
    assert unpacked(sent, "limitStarts2").tolist() == [0, 5]
    # Where there is no threshold the score itself goes.
    scores = unpacked(sent, "scores").reshape(SITES, TOKENS)[2] * sent["sites"][2]["spread"]
    np.testing.assert_allclose(scores[:5], trace.matrix("score")[:5, 2], rtol=2e-3)


def test_the_browser_gets_the_most_likely_next_tokens() -> None:
    trace = make_trace(tokens=TOKENS)
    sent = payload(trace, key="k")
    words = unpacked(sent, "likelyWords").reshape(TOKENS, 5)
    ids, shares = unpacked(sent, "likelyIds"), unpacked(sent, "likelyShares").reshape(TOKENS, 5)
    assert ids[words].tolist() == trace.tokens["top_ids"].to_list()
    texts = [[sent["likely"][word] for word in row] for row in words]
    assert texts == trace.tokens["top_texts"].to_list()
    np.testing.assert_allclose(shares, trace.tokens["top_probs"].to_numpy(), atol=5e-4)


def test_what_is_unknown_is_not_zero() -> None:
    sent = payload(make_trace(statistics=False), key="k")
    assert np.isnan(unpacked(sent, "nll")).all()
    assert sent["likely"] == []
    assert {lens["name"]: lens["known"] for lens in sent["lenses"]}["entropy"] is False


def test_ids_and_contexts_that_are_unknown_are_no_numbers() -> None:
    trace = make_trace(tokens=TOKENS)
    unknown = trace.tokens.with_columns(
        token_id=pl.when(pl.col("token") != 1).then("token_id"),
        context=pl.lit(None, dtype=pl.Int64),
    )
    sent = payload(replace(trace, tokens=unknown), key="k")
    assert unpacked(sent, "token_id")[1] == -1
    assert (unpacked(sent, "context") == -1).all()


def test_contexts_of_a_text_whose_start_was_not_recorded_are_sent() -> None:
    trace = make_trace(tokens=TOKENS)
    later = trace.tokens.with_columns(pl.col("position") + 7, pl.col("context") + 7)
    sent = payload(replace(trace, tokens=later), key="k")
    assert unpacked(sent, "context").tolist() == later["context"].to_list()


def test_a_dense_model_has_tokens_and_no_sites() -> None:
    sent = payload(make_trace(gated=()), key="k")
    assert sent["sites"] == []
    assert sent["count"] == 40
    assert margin_end(make_trace(gated=())) == MARGIN_ENDS[-1]


def test_five_thousand_tokens_and_sixty_sites_take_less_than_a_megabyte() -> None:
    trace = make_trace(tokens=5000, layers=32, gated=tuple(range(1, 31)))
    sent = payload(trace, key="k")
    texts = sum(len(text.encode()) for text in sent["texts"] + sent["likely"])
    assert len(sent["bytes"]) + texts + 3 * len(sent["texts"]) < 1_000_000


def test_a_lens_comes_by_itself_with_its_numbers_and_scales() -> None:
    trace = make_trace(tokens=TOKENS)
    cells = pl.DataFrame(
        {"token": [0, 3], "site": [1, 2], "utility": [0.5, -0.25], "later_margin": [None, None]}
    )
    sent = lens_payload(trace, utility_lens(trace, cells), key="k")
    assert (sent["key"], sent["name"], sent["lens"]["slug"]) == ("k", "lens utility", "utility")
    values = unpacked(sent, sent["lens"]["stored"]).reshape(SITES, TOKENS)
    assert (values[1, 0], values[2, 3]) == (0.5, -0.25)
    assert np.isnan(values).sum() == TOKENS * SITES - 2
    assert len(sent["bytes"]) == 2 * TOKENS * SITES, "16 bits a cell, and nothing of the trace"
    own = lens_payload(trace, counted("my own!"), key="k")
    assert own["lens"]["slug"] == "my-own"
    assert unpacked(own, own["lens"]["stored"]).tolist() == list(range(TOKENS))
    assert own["lens"]["stretched"] == pytest.approx((1.45, 27.55))


def test_own_numbers_keep_their_digits() -> None:
    numbers = [5001.0, 1000.1, 1000.2, 0.30000001]
    lens = own_lens(pl.Series("seconds", numbers))
    trace = make_trace(tokens=len(numbers))
    sent = unpacked(lens_payload(trace, lens, key="one"), "lens")
    assert sent.tolist() == numbers


def test_of_what_a_question_changed_only_that_is_sent() -> None:
    marks = np.zeros((TOKENS, SITES), dtype=np.uint8)
    marks[3, 5], marks[7, 6] = 1, 2
    sent = changed_payload(marks, key="k", name="flip", cell=(3, 5))
    assert unpacked(sent, "at").tolist() == [5 * TOKENS + 3, 6 * TOKENS + 7]
    assert unpacked(sent, "how").tolist() == [1, 2]
    assert sent["question"] == {"cell": (3, 5)}
    assert changed_payload(None, key="k", name="flip")["parts"] == {}


def test_a_lens_of_other_tokens_is_refused() -> None:
    lens = class_lens(pl.DataFrame({"kind": ["a"] * 7}))
    with pytest.raises(InputError, match="lens 'kind of token' have shape"):
        lens_payload(make_trace(tokens=TOKENS), lens, key="k")


@pytest.mark.parametrize("text", [tiny.TEXT, "🦊🦊 a\u0301 עברית <b>&amp;\r\n\t=1+1", "x"])
def test_spans_together_spell_the_text(gated: skipviz.SkipModel, text: str) -> None:
    trace = skipviz.trace(gated, text)
    firsts = span_texts(trace).group_by("span", maintain_order=True).agg(pl.col("text").first())
    assert "".join(firsts["text"]) == text
    assert "".join(payload(trace, key="k")["texts"]) == text


@pytest.mark.parametrize(
    ("scale", "end"), [(1e-5, 0.001), (0.02, 0.03), (0.2, 0.3), (2.0, 3.0), (1e6, 10.0)]
)
def test_the_score_scale_is_a_step_of_the_ladder(scale: float, end: float) -> None:
    trace = make_trace()
    same = np.full_like(trace.matrix("score"), scale)
    ran = np.ones_like(trace.matrix("exec_count"))
    scaled = with_matrices(trace, score=same, threshold=np.zeros_like(same), exec_count=ran)
    assert margin_end(scaled) == end


NOWHERE = {"trace": None, "token": None, "site": None}


def test_what_the_component_says_is_a_selection() -> None:
    sent = payload(make_trace(tokens=TOKENS), key="k", address="a1")
    found = selection_of(["k", 3, 5, 7], data=sent, address=NOWHERE)
    assert found == Selection(token=3, site=5, followed=7)
    nothing = selection_of(None, data=sent, address=NOWHERE)
    assert nothing == Selection()


def test_a_range_counts_in_its_own_text() -> None:
    sent = payload(make_trace(tokens=TOKENS), key="k", address="a1")
    for said, expected in (
        (["k", 3, 5], (3, 5)), (["j", 3, 5], None), (["k", 3, 30], None), (None, None)
    ):  # fmt: skip
        found = selection_of(["k", 3, None, 0], said, data=sent, address=NOWHERE)
        assert found == Selection(token=3, range=expected)


def test_what_was_selected_in_an_earlier_text_counts_for_nothing() -> None:
    sent = payload(make_trace(tokens=TOKENS), key="k", address="a1")
    earlier = selection_of(["j", 3, 5, 7], data=sent, address=NOWHERE)
    assert earlier == Selection()
    beyond = selection_of(["k", 30, 8, 0], data=sent, address=NOWHERE)
    assert beyond == Selection()


@pytest.mark.parametrize(
    ("address", "token", "site"),
    [
        ({"trace": "a1", "token": "3", "site": "L1.mlp"}, 3, 1),
        ({"trace": "a1", "token": "99", "site": "L9.mlp"}, None, None),
        ({"trace": "a1", "token": "-1", "site": None}, None, None),
        ({"trace": "a1", "token": "9" * 5000, "site": None}, None, None),
        ({"trace": "b2", "token": "3", "site": "L1.mlp"}, None, None),
        ({"trace": None, "token": "3", "site": None}, None, None),
    ],
)
def test_an_address_counts_if_it_names_this_trace(
    address: dict[str, str | None], token: int | None, site: int | None
) -> None:
    sent = payload(make_trace(tokens=TOKENS), key="k", address="a1")
    found = selection_of(None, data=sent, address=address)
    assert (found.token, found.site) == (token, site)
    # What the component says goes first: the address may be about to follow.
    told = selection_of(["k", None, None, 0], data=sent, address=address)
    assert told == Selection()
    other = selection_of(["j", 5, 5, 7], data=sent, address=address)
    assert other == Selection()


def test_the_browser_gets_the_colours_of_the_figures() -> None:
    sent = payload(make_trace(), key="k")["palette"]
    assert sent["units"] == palette.UNIT_COLOURS
    assert sent["ramps"]["depth"]["light"] == palette.CIVIDIS
    assert sent["ramps"]["support"]["light"] == palette.MARGINS
    grey, share = sent["skipped"]
    assert f"rgba({', '.join(map(str, grey))}, {share})" == palette.SKIPPED


def test_classes_go_in_place_of_the_next_token() -> None:
    trace = make_trace(tokens=TOKENS, sequences=2)
    sent = payload(trace, key="k")
    assert (sent["nextToken"], sent["classes"]) == (True, [])
    second = int(trace.tokens["sequence"].arg_max() or 0)
    tokens = trace.tokens.with_columns(
        class_label=pl.when(sequence=0).then(pl.lit("good")),
        class_prob=pl.when(sequence=0).then(pl.lit(0.5, dtype=pl.Float32)),
    )
    run = trace.run.with_columns(loss=pl.lit("none"))
    sent = payload(skipviz.Trace(run, trace.sites, tokens, trace.matrices), key="k")
    assert (sent["nextToken"], sent["classes"]) == (False, [[0, "good", 0.5], [second, None, None]])
    assert [lens["name"] for lens in sent["lenses"]] == [
        "layers used", "decision", "score minus threshold"
    ]  # fmt: skip
