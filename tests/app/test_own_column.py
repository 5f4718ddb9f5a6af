"""A column of the user's own on the canvas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from tests.app.pages import PATIENCE


def offered(tokens: int) -> None:
    """The script of the expander, for a trace of so many tokens."""
    import streamlit as st

    import skipviz
    from skipviz.app.jobs import Request
    from skipviz.app.views.paths.own_column import offer_own_column
    from tests.synthetic import make_trace

    text = st.session_state.get("text", "text")
    request = Request(model="synthetic", documents=(skipviz.Document("mine", text),))
    offer_own_column(request, make_trace(tokens=tokens))


def with_file(content: str, *, name: str = "own.csv") -> AppTest:
    page = AppTest.from_function(offered, args=(20,)).run(timeout=PATIENCE)
    (uploader,) = page.file_uploader
    uploader.set_value((name, content.encode(), "text/csv"))
    page.run(timeout=PATIENCE)
    assert not page.exception, page.exception[0].message
    return page


def lenses(page: AppTest) -> dict[str, Any]:
    on = list(page.session_state["skipviz"].canvases.values())[-1]
    return {name: lens for name, (_, lens) in on.lenses.items()}


def test_columns_become_lenses_one_after_the_other() -> None:
    rows = "\n".join(f"{token},{token / 2},kind {token}" for token in range(19))
    page = with_file(f"token,seconds,kind\n{rows}\n")
    (numbers,) = lenses(page).values()
    np.testing.assert_array_equal(numbers.values, [*np.arange(19) / 2, np.nan])
    assert "19 of 20 tokens have a value." in page.caption[-1].value
    page.selectbox[0].set_value("kind").run(timeout=PATIENCE)
    assert list(lenses(page)) == ["kind (own)"], "the column before does not stay"
    assert "There are 19 values; the 12 most frequent" in page.caption[-1].value
    (on,) = page.session_state["skipviz"].canvases.values()
    assert on.fresh[0] == "kind (own)"


def test_a_column_of_one_text_is_not_painted_on_another() -> None:
    page = with_file("\n".join(["seconds", *map(str, range(20))]))
    assert list(lenses(page)) == ["seconds (own)"]
    page.session_state["text"] = "another text"
    page.run(timeout=PATIENCE)
    assert page.file_uploader[0].value is None
    assert len(page.session_state["skipviz"].canvases) == 1
    page.session_state["text"] = "text"
    page.run(timeout=PATIENCE)
    assert list(lenses(page)) == ["seconds (own)"], "the text keeps what it is painted with"


@pytest.mark.parametrize("after", [None, ("other.csv", b"kind\n" + b"a\n" * 20, "text/csv")])
def test_the_column_of_a_file_goes_with_it(after: Any) -> None:
    page = with_file("\n".join(["seconds", *map(str, range(20))]))
    page.file_uploader[0].set_value(after).run(timeout=PATIENCE)
    assert list(lenses(page)) == ([] if after is None else ["kind (own)"])


def test_what_is_no_number_is_no_value() -> None:
    page = with_file("\n".join(["x", "NaN", "inf", *map(str, range(18))]))
    assert "18 of 20 tokens have a value." in page.caption[-1].value


def test_numbers_keep_their_digits_and_missing_ones_are_missing() -> None:
    page = with_file(
        "\n".join(["x", "nan", "NA", *[f"{20260101 + each}.25" for each in range(18)]])
    )
    assert "18 of 20 tokens have a value." in page.caption[-1].value
    (numbers,) = lenses(page).values()
    assert numbers.scale == "sequential"
    assert numbers.values[2:].tolist() == [20260101.25 + each for each in range(18)]
    page = with_file("\n".join(["x", *[f"{2**53 + 1 + each}" for each in range(20)]]))
    assert "more than 15 digits are rounded" in page.caption[-1].value


@pytest.mark.parametrize(
    ("content", "said"),
    [("a\n1\n", "own\\.csv has 1 rows"), ("token\n1\n", "no column beside"),
     ("token,a\n20,1\n", "row of token 20")],
)  # fmt: skip
def test_a_file_that_does_not_fit_says_why(content: str, said: str) -> None:
    page = with_file(content)
    assert said.replace("\\", "") in page.error[0].value.replace("\\", "")
    assert not lenses(page)


def test_the_name_of_a_file_is_no_markdown() -> None:
    page = with_file("a\n1\n", name="**bold**.csv")
    assert r"\*\*bold\*\*" in page.error[0].value
