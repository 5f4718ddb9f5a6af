from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skipviz.text.sentences import sentence_ends


def cut(text: str, *, lines: bool) -> list[str]:
    ends = [0, *sentence_ends(text, lines=lines), len(text)]
    return [text[start:stop] for start, stop in pairwise(ends)]


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two", ["One.", " Two"]),
        ("Really?! (Yes.) No", ["Really?!", " (Yes.)", " No"]),
        ("Wait\u2026 \u201cNo.\u201d Yes", ["Wait\u2026", " \u201cNo.\u201d", " Yes"]),
        ("3.14 is pi", ["3.14 is pi"]),
        ("\u597d\u3002\u201d\u5427", ["\u597d\u3002\u201d", "\u5427"]),
        ("\u597d\uff01\uff1f\u5427", ["\u597d\uff01\uff1f", "\u5427"]),
        ("Title\n \nText", ["Title", "\n \nText"]),
        ("End.\n\nText", ["End.", "\n\nText"]),
        ("\n\nText", ["\n\nText"]),
    ],
)
def test_stops_and_empty_lines_end_sentences(text: str, sentences: list[str], lines: bool) -> None:
    assert cut(text, lines=lines) == sentences


def test_a_line_ends_one_where_lines_do() -> None:
    assert cut("a list\nof items", lines=True) == ["a list", "\nof items"]
    assert cut("a line\nthat wraps", lines=False) == ["a line\nthat wraps"]


@given(st.text(alphabet="ab.!\u3002\u201d \n"), st.booleans())
def test_ends_ascend_and_stand_behind_what_is_visible(text: str, lines: bool) -> None:
    ends = sentence_ends(text, lines=lines)
    assert ends == sorted(set(ends))
    assert all(not text[end - 1].isspace() for end in ends)
