from __future__ import annotations

import re

import polars as pl
from playwright.sync_api import Page, expect

import skipviz
from skipviz.folders import samples_folder
from skipviz.readings.policies import frontier_reading
from tests.browser.conftest import PageLog, Screenshot
from tests.browser.tracing import expect_text, trace_pasted

RUN_SECONDS = 120_000
TEXT = "The lighthouse keeper counted the ships.\n\nNobody answered."


def test_a_point_of_the_frontier_leads_to_the_same_text_under_it(
    page: Page, url: str, screenshot: Screenshot
) -> None:
    trace_pasted(page, url, TEXT)
    page.get_by_role("link", name="Policies").click()
    expect(page.get_by_text("The text: pasted text").first).to_be_visible(timeout=RUN_SECONDS)

    # The worst point lies apart from all others, so that a click cannot hit its neighbour.
    worst = pl.read_csv(samples_folder() / "frontier.csv").sort("gap").row(-1, named=True)
    name = f"{worst['model']}, {worst['policy']}, budget {worst['budget']:.0%}"
    _click_worst_point(page, name)

    page.get_by_role("button", name="Show the text under this policy").click()
    model = skipviz.load(worst["model"], budget=worst["budget"], policy=worst["policy"])
    trace = skipviz.trace(model, TEXT)
    used = trace.tokens["layers_used"].to_numpy().mean()
    expect(page.get_by_text(f"{used:.1f} of 30", exact=True)).to_be_visible(timeout=RUN_SECONDS)
    screenshot(page, "policies")
    before = page.url
    page.get_by_role("button", name="Open it on the canvas").click()
    expect(page).not_to_have_url(before)
    expect_text(page, TEXT)


def _click_worst_point(page: Page, name: str) -> None:
    """Click the highest point until it is chosen: the figure may still be settling into place."""
    expect(page.locator(".js-plotly-plot .point").first).to_be_visible()
    chosen = page.get_by_role("combobox", name="Policy")
    page.locator(".js-plotly-plot").first.scroll_into_view_if_needed()
    for _ in range(5):
        boxes = [each.bounding_box() for each in page.locator(".js-plotly-plot .point").all()]
        highest = min((box for box in boxes if box is not None), key=lambda box: box["y"])
        page.mouse.click(highest["x"] + highest["width"] / 2, highest["y"] + highest["height"] / 2)
        try:
            expect(chosen).to_have_value(name, timeout=3000)
            return
        except AssertionError:
            continue
    expect(chosen).to_have_value(name)


def test_policies_are_chosen_from_a_list(page: Page, url: str, page_log: PageLog) -> None:
    page_log.expect_error(r"404.*/_stcore/")  # Streamlit looks beside the page first
    page.goto(f"{url}/policies")
    table = pl.read_csv(samples_folder() / "frontier.csv")
    # A page that is still drawn, or scrolled, would close the list again.
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    first = frontier_reading(table).splitlines()[2].removeprefix("1. ")
    expect(page.get_by_text(first)).to_be_visible()
    expect(page.get_by_role("button", name="Table (CSV)")).to_be_visible()  # behind the table
    page.get_by_role("heading", name="The table").scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    chosen = page.get_by_role("combobox", name="Policy")
    for row in (table.row(0, named=True), table.row(-1, named=True)):
        chosen.fill(f"{row['model']}, {row['policy']}")
        page.get_by_role("option").first.click()
        expect(chosen).to_have_value(re.compile(f"^{row['model']}, {row['policy']}"))
