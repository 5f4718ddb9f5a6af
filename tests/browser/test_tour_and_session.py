"""The tour of a new visitor, and a session that is saved and opened again."""

from __future__ import annotations

from importlib.resources import files

from playwright.sync_api import Browser, Page, expect

import skipviz
from skipviz.app.frame.opening import SAMPLE_TRACE
from skipviz.app.frame.tour_steps import tour_steps
from tests.browser.resting import rest, saved
from tests.browser.tracing import ask, expect_sample, expect_text, side_bar_upload, trace_pasted

TEXT, OTHER = "The lighthouse keeper counted ships.", "Nobody answered, so she counted again."
FIVE = "Take the tour: five steps"


def test_the_tour_names_five_things_and_is_not_offered_again_once_left(
    page: Page, url: str
) -> None:
    page.goto(url)
    expect_sample(page)
    expect(page.get_by_role("button", name="Save the session")).to_be_visible()  # the last drawn
    rest(page)
    page.get_by_role("button", name=FIVE).click()
    sample = files("skipviz.app") / "samples" / SAMPLE_TRACE
    steps = tour_steps(skipviz.Trace.load(sample.read_bytes()))
    assert len({step.token for step in steps}) == 3
    for number, step in enumerate(steps, start=1):
        expect(page.get_by_text(f"{number} of 5:")).to_be_visible()
        wanted = "if the gates" if number == 4 else "Which layers did each token use?"
        expect(page.get_by_role("heading", level=2).first).to_contain_text(wanted)
        selected = page.locator(".st-key-workbench .tokens span.selected")
        expect(selected).to_have_id(f"token-{step.token}")
        if number < 5:
            if number != 4:
                rest(page)  # somebody reads the step; at the fourth, a page that is just opened
            page.keyboard.press("Alt+n")
    page.get_by_role("button", name="End the tour").click()
    expect(page.get_by_role("button", name="Take the tour again")).to_be_visible()
    page.reload()
    expect_sample(page)
    expect(page.get_by_role("button", name="Take the tour again")).to_be_visible()
    expect(page.get_by_role("button", name=FIVE)).to_have_count(0)


def test_a_session_is_saved_and_opened_by_somebody_else(
    page: Page, url: str, browser: Browser
) -> None:
    trace_pasted(page, url, OTHER)
    ask(page, TEXT)
    expect_text(page, TEXT)
    page.locator(".st-key-workbench .tokens #token-3").click()
    expect(page.locator(".panel h3")).to_contain_text("Token 3 ")
    expect(page.get_by_text("Recent runs (1)")).to_be_visible()
    session = {
        "name": "session.zip",
        "mimeType": "application/zip",
        "buffer": saved(page, "Save the session").read_bytes(),
    }
    context = browser.new_context()
    elsewhere = context.new_page()
    elsewhere.goto(url)
    expect_sample(elsewhere)
    elsewhere.get_by_role("radio", name="Trace", exact=True).click()
    upload = side_bar_upload(elsewhere)
    upload.set_input_files(
        {"name": "bad.zip", "mimeType": "application/zip", "buffer": b"PK\x03\x04 no"}
    )
    expect(elsewhere.get_by_text("cannot be read as a session")).to_be_visible()
    elsewhere.get_by_role("button", name="Remove bad.zip").click()
    upload.set_input_files(session)
    expect(elsewhere.get_by_text("A session: 2 traces")).to_be_visible()
    elsewhere.get_by_role("button", name="Open the session").click()
    expect_text(elsewhere, TEXT)
    expect(elsewhere.locator(".panel h3")).to_contain_text("Token 3 ")
    expect(elsewhere.get_by_label("Paste a text")).to_have_value(TEXT)
    expect(elsewhere.get_by_text("Recent runs (1)")).to_be_visible()
    context.close()
