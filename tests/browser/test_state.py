"""What stays, and what must not stay, from one page or text to the next."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.browser.tracing import (
    ask,
    choose_model,
    expect_text,
    expect_titles,
    press_trace,
    side_bar_upload,
    trace_pasted,
)

FIRST, SECOND = "The lighthouse keeper counted ships.", "Nobody answered, so she counted again."


def test_what_was_chosen_is_there_after_a_visit_elsewhere(page: Page, url: str) -> None:
    page.goto(url)
    choose_model(page, "smollm2-static-greedy")
    page.get_by_role("radio", name="90%").click()
    expect(page.get_by_role("radio", name="90%")).to_be_checked()
    ask(page, FIRST)
    expect_text(page, FIRST)
    expect(page.get_by_text(re.compile("^pasted text: smollm2-static-greedy"))).to_be_visible()
    page.get_by_role("link", name="Layers").click()
    expect(page.get_by_role("heading", name="What do layers specialise in?")).to_be_visible()
    page.get_by_role("link", name="Skip paths").click()
    expect(page.get_by_label("Paste a text")).to_have_value(FIRST)
    expect(page.get_by_role("combobox", name="Model")).to_have_value("smollm2-static-greedy")
    expect(page.get_by_role("radio", name="90%")).to_be_checked()
    expect(page.get_by_test_id("stAlert")).to_have_count(0)


def test_a_token_selected_in_one_text_is_not_selected_in_the_next(page: Page, url: str) -> None:
    trace_pasted(page, url, FIRST)
    ask(page, SECOND)
    expect_text(page, SECOND)
    page.locator(".tokens span").nth(3).click()
    expect(page.locator(".panel h3")).to_contain_text("Token 3 ")
    ask(page, FIRST)
    expect_text(page, FIRST)
    # Its own: the one with the fewest layers, which is selected until another is.
    expect(page.locator(".panel h3")).to_contain_text("Token 4 ")
    expect(page.locator(".tokens span.selected")).to_have_id("token-4")
    ask(page, SECOND)
    expect_text(page, SECOND)
    # Back in the other text it is selected as it was, in both halves of the page.
    expect(page.locator(".panel h3")).to_contain_text("Token 3 ")
    expect(page.locator(".tokens span.selected")).to_have_id("token-3")


def test_what_is_selected_of_a_new_text_is_in_view(page: Page, url: str) -> None:
    trace_pasted(page, url, FIRST)
    text = "Der alte Mann sah aus dem Fenster und wartete auf den Zug, der nie kam. " * 6
    ask(page, text)
    expect_text(page, text)
    expect(page.locator(".panel h3")).to_contain_text("Token 155 ")
    expect(page.locator(".tokens span.selected")).to_be_in_viewport(ratio=0.9)


def test_texts_of_one_name_are_two_texts(page: Page, url: str) -> None:
    page.goto(url)
    page.get_by_test_id("stButtonGroup").get_by_text("Upload").click()
    expect(page.get_by_test_id("stAlert")).to_contain_text("No file has been uploaded yet")
    side_bar_upload(page).set_input_files(
        [
            {"name": "notes.txt", "mimeType": "text/plain", "buffer": text.encode()}
            for text in (FIRST, SECOND)
        ]
    )
    expect(page.get_by_text("You can stop at any time.")).to_be_visible()  # both are there
    press_trace(page)
    expect_titles(page, ["notes.txt", "notes.txt"])
