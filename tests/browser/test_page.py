from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pytest
from playwright.sync_api import Page, expect

import skipviz
from tests.browser.conftest import Screenshot
from tests.browser.resting import saved, saved_rows
from tests.browser.tracing import (
    RUN_MS,
    ask,
    choose_model,
    expect_text,
    expect_titles,
    expect_upload,
    press_trace,
    side_bar_upload,
    trace_pasted,
)

TEXT = (
    "Zoë said: <script>alert(1)</script> <b>no</b> 👩\u200d🚀 café — “=1+1”.\n\n"
    "שלום עולם, <|im_start|> ok."
)


def spans(page: Page) -> list[str]:
    return page.locator(".tokens span").all_text_contents()


def backgrounds(page: Page) -> list[str]:
    return page.locator(".tokens span").evaluate_all("s => s.map(e => e.style.background)")


def test_the_whole_line(page: Page, url: str, screenshot: Screenshot) -> None:
    """Paste, see the text coloured, click a token, recolour, download, compare with the trace."""
    trace_pasted(page, url, TEXT)
    assert "".join(spans(page)) == TEXT
    assert page.locator(".tokens script, .tokens b").count() == 0
    trace = skipviz.trace(skipviz.load("smollm2-gated"), TEXT)

    page.locator(".tokens span").nth(3).click()
    expect(page.locator(".panel h3")).to_contain_text("Token 3 ")
    expect(page).to_have_url(re.compile("token=3"))
    page.locator(".tokens").press("ArrowRight")
    expect(page.locator(".panel h3")).to_contain_text("Token 4 ")
    # What the keyboard selects is named to those who do not see it.
    expect(page.locator(".tokens")).to_have_attribute("aria-activedescendant", "token-4")
    expect(page.locator(".tokens").get_by_role("option", selected=True)).to_have_id("token-4")
    expect(page.locator(".said")).to_contain_text("layers used")

    before = backgrounds(page)
    page.get_by_label("Colour the text by").select_option("decision")
    page.get_by_label("at site").select_option("20")
    after = backgrounds(page)
    assert before != after
    first_of_span = trace.tokens.group_by("span", maintain_order=True).first()["token"]
    ran = trace.matrix("exec_count")[first_of_span.to_numpy(), 20] > 0
    assert [background != "" for background in after] == ran.tolist()
    screenshot(page, "page-light")

    rows = saved_rows(page, "Decisions (CSV)")
    long = trace.to_long()
    assert len(rows) == long.height
    assert [json.loads(row["text"]) for row in rows] == long["text"].to_list()
    assert [int(row["exec_count"]) for row in rows] == long["exec_count"].to_list()
    scores = pl.Series([float(row["score"]) for row in rows])
    assert (scores - long["score"]).abs().max() < 1e-4

    kept = skipviz.Trace.load(saved(page, "Trace", exact=True))
    assert kept.tokens["text"].equals(trace.tokens["text"])


def test_a_budget_can_be_chosen(page: Page, url: str) -> None:
    page.goto(url)
    page.get_by_role("radio", name="90%").click()
    ask(page, TEXT)
    expect_text(page, TEXT)
    traced = skipviz.Trace.load(saved(page, "Trace", exact=True))
    assert traced.run["budget"].item() == 0.9
    wanted = skipviz.trace(skipviz.load("smollm2-gated", budget=0.9), TEXT)
    assert (traced.matrix("exec_count") == wanted.matrix("exec_count")).all()


def test_hovering_shows_a_tooltip_and_the_map_selects(page: Page, url: str) -> None:
    trace_pasted(page, url, TEXT)
    page.locator(".tokens span").nth(2).hover()
    expect(page.locator(".tip")).to_contain_text("layers used")
    box = page.locator("canvas.map").bounding_box()
    assert box is not None
    page.locator("canvas.map").click(position={"x": 60, "y": 40})
    expect(page.locator(".panel h3")).to_contain_text(re.compile(r"^Token \d"))


def test_upload_jsonl(page: Page, url: str, tmp_path: Path) -> None:
    file = tmp_path / "two.jsonl"
    file.write_text('{"text": "One text."}\n{"text": "Another text."}\n', encoding="utf-8")
    page.goto(url)
    page.get_by_test_id("stButtonGroup").get_by_text("Upload").click()
    side_bar_upload(page).set_input_files(file)
    expect_upload(page)
    press_trace(page)
    expect_titles(page, ["two.jsonl:1", "two.jsonl:2"])
    assert "".join(spans(page)) == "One text.Another text."


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("broken.jsonl", b'{"text": "fine"}\n{"text": \n', "line 2"),
        ("picture.txt", b"\x89PNG\r\n\x1a\n\x00\x00", "PNG"),
        ("blank.md", b" \n\n", "blank|empty|no text"),
    ],
)
def test_bad_uploads_get_a_sentence(
    page: Page, url: str, tmp_path: Path, name: str, data: bytes, sentence: str
) -> None:
    file = tmp_path / name
    file.write_bytes(data)
    page.goto(url)
    page.get_by_test_id("stButtonGroup").get_by_text("Upload").click()
    side_bar_upload(page).set_input_files(file)
    expect(page.get_by_test_id("stAlert")).to_contain_text(re.compile(sentence))
    # The page keeps working.
    page.get_by_test_id("stButtonGroup").get_by_text("Paste").click()
    ask(page, "It still works.")
    expect_text(page, "It still works.")


def test_blank_text_and_a_missing_folder_get_a_sentence(page: Page, url: str) -> None:
    page.goto(url)
    press_trace(page)
    expect(page.get_by_test_id("stAlert")).to_be_visible()
    choose_model(page, "A folder on this machine")
    page.get_by_label("Folder", exact=True).fill("/no/such/folder")
    page.get_by_label("Folder", exact=True).press("Enter")
    ask(page, "A text.")
    expect(page.get_by_test_id("stAlert")).to_contain_text("/no/such/folder", timeout=RUN_MS)


def test_a_long_run_can_be_stopped(page: Page, url: str) -> None:
    trace_pasted(page, url, TEXT)
    ask(page, "A sentence that goes on for a while. " * 700)
    page.get_by_role("button", name="Stop").click(timeout=RUN_MS)
    expect(page.get_by_text("Stopped. Press")).to_be_visible(timeout=RUN_MS)
    expect(page.get_by_text("Below is what was traced before.")).to_be_visible()
    expect_text(page, TEXT)


def test_dark_and_narrow(page: Page, url: str, screenshot: Screenshot) -> None:
    page.emulate_media(color_scheme="dark")
    trace_pasted(page, url, TEXT * 6)
    page.set_viewport_size({"width": 800, "height": 900})
    figures = page.get_by_test_id("stMetricValue")
    whole = "all => all.every(e => [e, ...e.children].every(x => x.scrollWidth <= x.clientWidth))"
    expect(figures).to_have_count(5)
    assert figures.evaluate_all(whole), "no figure is cut short"
    page.set_viewport_size({"width": 420, "height": 900})
    page.locator(".tokens span").nth(3).click()
    expect(page.locator(".panel h3")).to_contain_text("Token 3 ")
    screenshot(page, "page-dark-narrow")
    overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert overflow <= 0


def test_a_dense_model_says_there_is_nothing_to_skip(page: Page, url: str) -> None:
    trace_pasted(page, url, "A dense model.", model="smollm2-135m")
    expect(page.locator(".map-head")).to_contain_text("no gates")


def test_recolouring_never_reaches_python(page: Page, url: str) -> None:
    sent: list[object] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(frame)))
    trace_pasted(page, url, TEXT)
    page.wait_for_timeout(1500)  # what the page sends by itself after a run
    assert sent, "the page talks to Python over a socket that is watched here"
    sent.clear()
    for colouring in ("loss-on-the-next-token", "score-minus-threshold", "layers-used"):
        page.get_by_label("Colour the text by").select_option(colouring)
    page.wait_for_timeout(300)
    assert not sent
