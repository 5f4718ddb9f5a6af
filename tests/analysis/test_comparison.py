from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from skipviz.analysis.comparison import TraceComparison, compare_traces
from skipviz.analysis.flops import token_flops
from skipviz.errors import InputError
from skipviz.traces import Trace
from tests.synthetic import make_trace


def cut(trace: Trace, words: list[list[str]], *, overlap: tuple[int, ...] = ()) -> Trace:
    """Return the trace with other texts: one list of tokens for each sequence.

    A token in ``overlap`` shares the characters of the one before it.
    """
    rows: list[dict[str, Any]] = []
    span = -1
    for sequence, tokens in enumerate(words):
        start = 0
        for position, text in enumerate(tokens):
            shared = len(rows) in overlap
            span += not shared
            start -= len(text) if shared else 0
            rows.append({
                "sequence": sequence, "position": position, "text": text, "span": span,
                "char_start": start, "char_end": start + len(text), "source": f"text {sequence}",
            })  # fmt: skip
            start += len(text)
    new = pl.DataFrame(rows).with_columns(
        surprisal=pl.when(pl.col("position") > 0).then(
            pl.Series(np.arange(len(rows)) / 8, dtype=pl.Float32)
        )
    )
    tokens = trace.tokens.with_columns(
        new[name].cast(trace.tokens[name].dtype) for name in new.columns
    )
    return Trace(trace.run, trace.sites, tokens, trace.matrices)


def naive(found: TraceComparison) -> list[tuple[str, list[int], list[int]]]:
    """Return text and tokens of each piece by walking both texts character by character."""
    pieces = []
    for sequence in found.trace.tokens["sequence"].unique(maintain_order=True):
        sides = []
        for trace in (found.trace, found.other):
            ends: dict[int, list[int]] = {}
            members: list[int] = []
            rows = trace.tokens.filter(sequence=sequence).rows(named=True)
            for place, row in enumerate(rows):
                members.append(row["token"])
                following = rows[place + 1]["span"] if place + 1 < len(rows) else None
                if following != row["span"]:
                    ends[row["char_end"]] = members
                    members = []
            sides.append(ends)
        text = "".join(
            row["text"]
            for place, row in enumerate(rows)
            if not place or rows[place - 1]["span"] != row["span"]
        )
        begin, pending = 0, ([], [])
        for place in range(1, len(text) + 1):
            for own, ends in zip(pending, sides, strict=True):
                own.extend(ends.get(place, []))
            if place in sides[0] and place in sides[1]:
                pieces.append((text[begin:place], pending[0], pending[1]))
                begin, pending = place, ([], [])
    return pieces


ONE = [["The", " qu", "ick", " fox", "!"], ["ab", "cd", "ef"]]
TWO = [["Th", "e", " quick", " f", "ox", "!"], ["a", "bc", "d", "ef"]]


def two_tokenizers() -> TraceComparison:
    return compare_traces(
        cut(make_trace(tokens=8, seed=1), ONE), cut(make_trace(tokens=10, seed=2), TWO)
    )


def test_pieces_are_cut_where_both_cut() -> None:
    found = two_tokenizers()
    assert found.match == "characters"
    assert found.pieces["text"].to_list() == ["The", " quick", " fox", "!", "abcd", "ef"]
    assert found.pieces["tokens"].to_list() == [1, 2, 1, 1, 2, 1]
    assert found.pieces["tokens_other"].to_list() == [2, 1, 2, 1, 3, 1]
    assert found.pieces["sequence"].to_list() == [0, 0, 0, 0, 1, 1]


def test_pieces_are_those_of_a_slow_walk_over_the_text() -> None:
    found = two_tokenizers()
    walked = naive(found)
    assert found.pieces["text"].to_list() == [text for text, _, _ in walked]
    for trace, suffix, side in ((found.trace, "", 1), (found.other, "_other", 2)):
        used = trace.tokens["layers_used"].to_numpy().astype(float)
        spent = token_flops(trace)["total"].to_numpy()
        surprisal = trace.tokens["surprisal"].to_list()
        for piece, row in zip(walked, found.pieces.rows(named=True), strict=True):
            members = piece[side]
            assert row[f"first_token{suffix}"] == members[0]
            assert row[f"layers_used{suffix}"] == pytest.approx(used[members].mean())
            assert row[f"flops{suffix}"] == spent[members].sum()
            values = [surprisal[token] for token in members]
            expected = None if None in values else pytest.approx(sum(values))
            assert row[f"surprisal{suffix}"] == expected


def test_tokens_that_share_characters_are_one_stretch() -> None:
    one = cut(make_trace(tokens=4), [["a", "🦊", "🦊", "b"]], overlap=(2,))
    two = cut(make_trace(tokens=3), [["a", "🦊", "b"]])
    found = compare_traces(one, two)
    assert found.pieces["text"].to_list() == ["a", "🦊", "b"]
    assert found.pieces["tokens"].to_list() == [1, 2, 1]
    assert found.pieces["changed"].to_list()[1] is None


def test_decisions_that_differ_are_counted_at_shared_sites() -> None:
    one = make_trace(tokens=12, exec_count=1)
    planted = np.ones((12, 8), dtype=np.uint8)
    planted[3, 2] = planted[3, 5] = planted[7, 0] = 0
    two = make_trace(tokens=12, exec_count=planted)
    found = compare_traces(one, two)
    assert found.match == "tokens"
    by_token = (one - two)["changed"].to_list()
    spans = one.tokens["span"].to_list()
    for row in found.pieces.drop_nulls("changed").rows(named=True):
        assert row["changed"] == by_token[row["first_token"]]
        assert spans.count(spans[row["first_token"]]) == 1
    shared = found.shared_sites
    assert shared["label"].to_list() == one.sites["label"].to_list()
    assert shared["rate"].to_list() == [1.0] * 8
    assert shared["rate_other"][0] == pytest.approx(11 / 12)
    assert int(shared["changed"].sum()) == int(found.pieces["changed"].sum())


def test_models_of_other_depth_share_no_site() -> None:
    found = compare_traces(make_trace(tokens=12), make_trace(tokens=12, layers=8))
    assert found.match == "tokens"
    assert found.shared_sites.is_empty()
    assert found.pieces["changed"].null_count() == found.pieces.height


def test_other_units_of_one_depth_share_those_that_are_the_same() -> None:
    one = make_trace(tokens=12, units=("attn", "mlp"))
    two = make_trace(tokens=12, units=("mlp",), gated=(2, 3))
    shared = compare_traces(one, two).shared_sites
    assert shared["label"].to_list() == ["L2.mlp", "L3.mlp"]
    assert shared["site_other"].to_list() == [0, 1]


def test_of_two_texts_only_totals_are_compared() -> None:
    one, two = cut(make_trace(tokens=3), [["a", "b", "c"]]), cut(make_trace(tokens=2), [["x", "y"]])
    found = compare_traces(one, two)
    assert (found.match, found.pieces.height, found.more_surprisal) == ("none", 0, None)
    totals = {row["figure"]: row for row in found.totals.rows(named=True)}
    assert (totals["tokens"]["trace"], totals["tokens"]["other"]) == (3.0, 2.0)
    assert totals["tokens"]["difference"] == 1.0
    assert totals["surprisal"]["trace"] == pytest.approx((1 + 2) / 8 / 2)


def test_a_planted_difference_is_found_with_its_sign() -> None:
    trace = make_trace(tokens=400)
    worse = trace.tokens.with_columns(pl.col("surprisal") + 0.5)
    found = compare_traces(Trace(trace.run, trace.sites, worse, trace.matrices), trace)
    assert found.more_surprisal is not None
    more, margin = found.more_surprisal
    # Half a nat for every token with one known, over the characters of their pieces.
    known = found.pieces.drop_nulls("surprisal")
    expected = 0.5 * known["tokens"].sum() / known["text"].str.len_chars().sum()
    assert more == pytest.approx(expected, rel=1e-5)
    assert 0 <= margin < more


def test_what_is_unknown_stays_unknown() -> None:
    trace = make_trace(tokens=12, statistics=False)
    run = trace.run.with_columns(mlp_flops=pl.lit(None, dtype=pl.Int64))
    found = compare_traces(Trace(run, trace.sites, trace.tokens, trace.matrices), trace)
    assert found.pieces["flops"].null_count() == found.pieces.height
    assert found.pieces["flops_other"].null_count() == 0
    totals = {row["figure"]: row for row in found.totals.rows(named=True)}
    assert totals["whole-model FLOPs"]["trace"] is None
    assert totals["surprisal"]["difference"] is None


def test_no_tokens_no_comparison() -> None:
    with pytest.raises(InputError, match="0 tokens"):
        compare_traces(make_trace(tokens=0), make_trace(tokens=3))
