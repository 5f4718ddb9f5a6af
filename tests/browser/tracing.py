"""How a text is traced in the side bar, and seen on the canvas, which opens with a sample."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from tests.browser.resting import RUN_MS, rest


def trace_pasted(page: Page, url: str, text: str, *, model: str | None = None) -> None:
    """Open a page, trace a text there, and wait until it stands on the canvas."""
    page.goto(url)
    if model is not None:
        choose_model(page, model)
    ask(page, text)
    expect_text(page, text)


def ask(page: Page, text: str) -> None:
    """Paste a text and press the button."""
    paste(page, text)
    press_trace(page)


def paste(page: Page, text: str) -> None:
    """Paste a text, so that the app knows of it."""
    area = page.get_by_label("Paste a text")
    area.fill(text, timeout=RUN_MS)
    area.press("Tab")


def side_bar_upload(page: Page) -> Locator:
    """Return where a text or a trace is uploaded; pages have uploads of their own."""
    return page.get_by_test_id("stSidebar").get_by_test_id("stFileUploaderDropzoneInput")


def expect_upload(page: Page) -> None:
    """Wait until a text that was uploaded has arrived: before, there is nothing to run."""
    expect(page.get_by_text(re.compile("^About [0-9,]+ tokens"))).to_be_visible(timeout=RUN_MS)


def press_trace(page: Page) -> None:
    page.get_by_role("button", name="Trace the text").click()


def choose_model(page: Page, name: str) -> None:
    expect(page.get_by_label("Model").first).to_be_visible(timeout=RUN_MS)
    choose_option(page, "Model", name)
    rest(page)  # the budgets beside it are drawn anew, and one pressed before counts for nothing


def choose_option(page: Page, label: str, option: str) -> None:
    """Choose from a list, which a run of the page that is under way closes again."""
    for _ in range(5):
        page.get_by_label(label).first.click()
        try:
            page.get_by_role("option", name=option).click(timeout=3000)
            return
        except PlaywrightTimeout:
            page.keyboard.press("Escape")
    raise AssertionError(f"{option} could not be chosen")


def expect_text(page: Page, text: str) -> None:
    """Wait until the canvas shows a text, and nothing else."""
    shown = page.locator(".st-key-workbench .tokens")
    expect(shown).to_have_js_property("textContent", text, timeout=RUN_MS)


def expect_sample(page: Page) -> None:
    """Wait until the canvas shows the sample, which no model was run for."""
    expect(page.get_by_text("A sample, traced already.")).to_be_visible(timeout=RUN_MS)
    expect(page.locator(".st-key-workbench .tokens span.selected")).to_be_visible(timeout=RUN_MS)


def expect_no_sample(page: Page) -> None:
    """Wait until what was asked for is shown, and no longer the sample."""
    expect(page.get_by_text("A sample, traced already.")).to_have_count(0, timeout=RUN_MS)


def expect_titles(page: Page, titles: list[str]) -> None:
    """Wait until the canvas shows several texts, by their titles."""
    shown = page.locator(".st-key-workbench .tokens h4")
    expect(shown).to_have_text(titles, timeout=RUN_MS)
