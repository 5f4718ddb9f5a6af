from __future__ import annotations

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skipviz.plots.style.labels import provenance, token_label
from tests.synthetic import make_trace


def inner(label: str) -> str:
    assert label[0] == "\u2068"
    assert label[-1] == "\u2069"
    return label[1:-1]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" fox", "␣fox"),
        ("  ", "␣␣"),
        (" a b ", "␣a b␣"),
        ("\r\n", "␍↵"),
        ("\t", "⇥"),
        ("\x00\x7f", "␀␡"),
        ("", "(no characters)"),
        ("<b>&", "&lt;b&gt;&amp;"),
        ("$x$", "&#36;x&#36;"),
        ("x" * 30, "x" * 23 + "…"),
    ],
)
def test_what_cannot_be_seen_is_shown(text: str, shown: str) -> None:
    assert inner(token_label(text)) == shown


@pytest.mark.slow
@given(st.text(max_size=20))
def test_labels_hold_no_markup_and_keep_their_text(text: str) -> None:
    label = inner(token_label(text))
    assert not set(label) & set("<>$\n\r\t\x00")
    if text.strip() and text.isprintable():
        assert html.unescape(label).replace("␣", " ").strip() == text.replace("␣", " ").strip()


def test_provenance_names_model_policy_budget_tokens_and_numbers() -> None:
    trace = make_trace(tokens=1234)
    assert provenance(trace) == "synthetic · learned policy · budget 0.80 · 1,234 tokens · float32"
    both = provenance([trace, make_trace(tokens=10)])
    assert both == "synthetic · learned policy · budget 0.80 · 1,244 tokens · float32"
    dense = make_trace(tokens=1, budget=None, model="<i>x</i>", policy="none")
    assert provenance(dense) == "&lt;i&gt;x&lt;/i&gt; · none policy · 1 token · float32"
