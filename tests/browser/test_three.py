"""Three browsers at once, one of them closed while its run is under way."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, Page, expect

import skipviz
from tests.browser.tracing import RUN_MS, ask, expect_text

LONG = "A sentence that goes on for a while, with some words in it. " * 1500
SECOND, THIRD = "Three browsers ask at once.", "The third of them waits for two runs."
FOURTH = "A page that is loaded again begins anew."
STOPPED_MS = 2500
"""Two seconds for the run to stop, and half a one for a page to look."""


@pytest.fixture
def pages(browser: Browser, url: str) -> Iterator[list[Page]]:
    with ExitStack() as stack:
        opened = []
        for _ in range(3):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            stack.callback(context.close)
            opened.append(context.new_page())
            opened[-1].goto(url)
        yield opened


def test_a_browser_that_is_closed_holds_nobody_up(pages: list[Page]) -> None:
    first, second, third = pages
    ask(first, LONG)
    expect(first.get_by_text(re.compile(r"^Running smollm2-gated: [1-9]"))).to_be_visible(
        timeout=RUN_MS
    )
    ask(second, SECOND)
    expect(second.get_by_text("Waiting: 1 run before yours")).to_be_visible(timeout=RUN_MS)
    ask(third, THIRD)
    expect(third.get_by_text("Waiting: 2 runs before yours")).to_be_visible(timeout=RUN_MS)
    closed = time.monotonic()
    first.context.close()
    expect(second.get_by_text(re.compile("^Waiting"))).to_have_count(0, timeout=STOPPED_MS)
    print(f"the queue moved {time.monotonic() - closed:.2f} s after the page was closed")
    model = skipviz.load("smollm2-gated")
    for page, text in ((second, SECOND), (third, THIRD)):
        expect_text(page, text)
        traced = skipviz.trace(model, text)
        figures = page.get_by_test_id("stMetricValue")
        expect(figures.first).to_have_text(f"{len(traced):,}")
        mean, loss = traced.tokens["layers_used"].mean(), traced.tokens["nll"].mean()
        expect(figures.nth(1)).to_have_text(re.compile(f"^{mean:.1f} of"))
        expect(figures.last).to_have_text(f"{loss:.2f} nats")


def test_a_page_that_is_loaded_again_leaves_its_run(pages: list[Page]) -> None:
    first, second, _ = pages
    ask(first, LONG)
    expect(first.get_by_text(re.compile(r"^Running smollm2-gated: [1-9]"))).to_be_visible(
        timeout=RUN_MS
    )
    ask(second, FOURTH)
    expect(second.get_by_text("Waiting: 1 run before yours")).to_be_visible(timeout=RUN_MS)
    first.reload()
    expect(second.get_by_text(re.compile("^Waiting"))).to_have_count(0, timeout=STOPPED_MS)
    expect_text(second, FOURTH)


def test_a_run_that_two_asked_for_goes_on_for_the_one_that_stays(pages: list[Page]) -> None:
    first, second, third = pages
    text = LONG[: len(LONG) // 12]
    for page in (first, second):
        ask(page, text)
        expect(page.get_by_text(re.compile(r"^Running smollm2-gated: [1-9]"))).to_be_visible(
            timeout=RUN_MS
        )
    first.context.close()
    expect_text(second, text)
    ask(third, text)  # it is kept, and there at once
    expect_text(third, text)
