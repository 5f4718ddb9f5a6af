from __future__ import annotations

import numpy as np
from playwright.sync_api import Page, expect

import skipviz
from skipviz.readings.counterfactual import what_if_reading
from tests.browser.conftest import PageLog, Screenshot
from tests.browser.tracing import ask, expect_sample, expect_text

RUN_SECONDS = 180_000
TEXT = "The lighthouse keeper had counted the same ships for thirty years."
LEFT, TOP, ROW = 46, 4, 4
"""Where the map begins, and how high a layer is, in pixels."""


def test_a_click_on_the_map_forces_a_cell_and_a_second_one_takes_it_back(
    page: Page, url: str, screenshot: Screenshot, page_log: PageLog
) -> None:
    page_log.expect_error(r"404.*/_stcore/")  # Streamlit looks beside the page first
    page.goto(f"{url}/what_if")
    expect_sample(page)
    ask(page, TEXT)
    expect_text(page, TEXT)
    canvas = page.locator("canvas.map")
    expect(canvas).to_be_visible(timeout=RUN_SECONDS)

    model = skipviz.load("smollm2-gated")
    trace = skipviz.trace(model, TEXT)
    token, layer = 5, 15
    site = trace.sites["label"].to_list().index(f"L{layer}.attn")
    width = canvas.bounding_box()["width"]  # type: ignore[index]
    cell = min(14, (width - LEFT - 4) / len(trace))
    layers = trace.run["layers"].item()
    place = {"x": LEFT + (token + 0.5) * cell, "y": TOP + (layers - layer - 0.5) * ROW}
    canvas.click(position=place)  # type: ignore[arg-type]
    ran = bool(trace.matrix("exec_count")[token, site])
    answer = skipviz.what_if(model, trace, sites={(token, f"L{layer}.attn"): not ran})
    said = what_if_reading(answer).replace("**", "")
    expect(page.get_by_text(said[:60])).to_be_visible(timeout=RUN_SECONDS)
    expect(page.locator(".map-head")).to_contain_text("diamond: changes with it")
    assert np.count_nonzero(answer.asked) == 1
    screenshot(page, "what-if")
    canvas.click(position=place)  # type: ignore[arg-type]
    expect(page.get_by_text(said[:60])).to_have_count(0)
