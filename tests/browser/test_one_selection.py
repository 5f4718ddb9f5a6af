"""One text and one selection: over all pages, in the address, and in each tab for itself."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from skipviz.app.frame.inputs import sample_document
from tests.browser.resting import rest
from tests.browser.tracing import (
    ask,
    expect_sample,
    expect_text,
    paste,
    trace_pasted,
)

FIRST, SECOND = "The lighthouse keeper counted ships.", "Nobody answered, so she counted again."

DIMMED_EARLY = """() => {
    window.outOfDate = new Map();
    window.dimmed = new Set();
    new MutationObserver(changes => {
        for (const { target } of changes)
            if (target.dataset.stale === "true") window.outOfDate.set(target, performance.now());
    }).observe(document.body, { subtree: true, attributeFilter: ["data-stale"] });
    const look = () => {
        for (const [element, since] of window.outOfDate)
            if (element.offsetHeight && performance.now() - since < 450
                    && getComputedStyle(element).opacity < 1)
                window.dimmed.add(element.outerHTML.slice(0, 200));
        requestAnimationFrame(look);
    };
    look();
}"""
"""Notes what is dimmed within less than half a second after it was out of date."""


def select(page: Page, token: int) -> None:
    page.locator(f".st-key-workbench .tokens #token-{token}").click()
    expect_selected(page, token)


def expect_selected(page: Page, token: int) -> None:
    """Wait until a token is selected in text, panel and address."""
    expect(page.locator(".st-key-workbench .tokens span.selected")).to_have_id(f"token-{token}")
    expect(page.locator(".panel h3")).to_contain_text(f"Token {token} ")
    expect(page).to_have_url(re.compile(rf"[?&]token={token}\b"))


def test_the_app_opens_with_a_sample(page: Page, url: str) -> None:
    page.goto(url)
    expect_sample(page)
    expect_text(page, sample_document().text)
    expect(page.locator(".panel h3")).to_contain_text("Token 83 ")


def test_what_is_selected_is_so_on_every_page_and_back(page: Page, url: str) -> None:
    trace_pasted(page, url, FIRST)
    select(page, 2)
    select(page, 4)
    page.get_by_role("link", name="Attribution").click()
    expect(page.get_by_role("heading", level=1)).not_to_have_text(
        "Which layers did each token use?"
    )
    expect_selected(page, 4)
    expect(page.get_by_role("combobox", name="Token")).to_have_value(re.compile("^4: "))
    page.go_back()
    expect(page.get_by_role("heading", name="Which layers did each token use?")).to_be_visible()
    expect_selected(page, 4)
    page.go_back()
    expect_selected(page, 2)
    expect_text(page, FIRST)


def test_nothing_flashes_when_a_token_is_selected(page: Page, url: str) -> None:
    page.goto(url)
    expect_sample(page)
    rest(page)
    page.evaluate(DIMMED_EARLY)
    for token in (3, 5):
        select(page, token)
        rest(page)
    out_of_date, dimmed = page.evaluate("[window.outOfDate.size, [...window.dimmed]]")
    assert out_of_date > 10, "nothing was drawn again, or Streamlit marks it otherwise"
    assert dimmed == []


def test_a_reload_and_a_link_open_the_same_view(page: Page, url: str, elsewhere: Page) -> None:
    trace_pasted(page, url, FIRST)
    select(page, 3)
    page.reload()
    expect_text(page, FIRST)
    expect_selected(page, 3)
    elsewhere.goto(page.url)
    expect_text(elsewhere, FIRST)
    expect_selected(elsewhere, 3)


def test_an_address_of_an_unknown_trace_says_so_and_selects_nothing_by_it(
    page: Page, url: str
) -> None:
    page.goto(f"{url}/?trace=0123456789abcdef&token=3")
    expect(page.get_by_text("names a trace that is not known here")).to_be_visible()
    expect_sample(page)
    expect_selected(page, 83)
    expect(page).not_to_have_url(re.compile("0123456789abcdef"))


def test_two_tabs_have_a_text_and_a_selection_each(page: Page, url: str) -> None:
    trace_pasted(page, url, FIRST)
    select(page, 3)
    other = page.context.new_page()
    trace_pasted(other, url, SECOND)
    select(other, 5)
    expect_text(page, FIRST)
    page.get_by_role("link", name="Cost").click()
    expect(page.get_by_role("heading", level=1)).not_to_have_text(
        "Which layers did each token use?"
    )
    expect_text(page, FIRST)
    expect_selected(page, 3)
    expect_selected(other, 5)


def test_keys_run_a_text_and_a_click_brings_one_back(page: Page, url: str) -> None:
    trace_pasted(page, url, FIRST)
    paste(page, SECOND)
    page.get_by_label("Paste a text").press("Control+Enter")
    expect_text(page, SECOND)
    page.get_by_text("Recent runs (1)").click()
    page.get_by_role("button", name=FIRST).click()
    expect_text(page, FIRST)
    expect(page.get_by_label("Paste a text")).to_have_value(FIRST)


def test_on_a_telephone_the_side_bar_makes_room_for_what_was_run(page: Page, url: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(url)
    expect_sample(page)
    page.get_by_test_id("stExpandSidebarButton").click()
    ask(page, SECOND)
    expect_text(page, SECOND)
    expect(page.get_by_test_id("stSidebar")).to_have_attribute("data-collapsed", "true")
    expect(page.locator(".st-key-workbench .tokens")).to_be_in_viewport()
