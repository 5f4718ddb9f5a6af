"""The page of layers on texts that are not English, and too short for intervals."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from tests.app.pages import PATIENCE, until_ended


def layers_of(language: str) -> None:
    """The script of the page, of a text in a language."""
    import skipviz
    from skipviz.app.components.run_button import jobs
    from skipviz.app.frame.opening import show_request
    from skipviz.app.jobs import Request
    from skipviz.app.views.layers_page import page
    from tests.analysis.tokens.test_word_lists import TEXTS, traced

    document = skipviz.Document("mine", TEXTS[language])
    request = Request(model="synthetic", documents=(document,))
    jobs().keep(request, traced(TEXTS[language]))
    show_request(request)
    page()


def shown(language: str, view: str) -> AppTest:
    page = AppTest.from_function(layers_of, args=(language,))
    page.session_state["layers_view"] = view
    page.run(timeout=PATIENCE)
    until_ended(page)
    return page


@pytest.mark.parametrize("view", ["Token classes", "Difficulty"])
def test_that_english_lists_were_not_used_is_said(view: str) -> None:
    for language in ("English", "German"):
        page = shown(language, view)
        told = any("lists are English and were not used" in each.value for each in page.caption)
        assert told == (language == "German")


def test_a_text_too_short_for_intervals_says_so_once_and_shows_no_empty_ones() -> None:
    page = shown("English", "Difficulty")
    columns = page.dataframe[0].value.columns
    assert "no interval for" in columns
    assert "95% from" not in columns
    assert sum(each.value.count("fewer than 8 blocks") for each in page.markdown) <= 1
    assert page.dataframe[0].value["Spearman"].notna().all()
