from __future__ import annotations

import re

import polars as pl
import pytest
from playwright.sync_api import Page, expect

import skipviz
from skipviz.analysis.gates.quality import implied_price, judged, quality
from skipviz.analysis.tokens.classes import token_classes
from tests.browser.conftest import PageLog, Screenshot
from tests.browser.resting import saved_rows
from tests.browser.tracing import ask, expect_sample, expect_text

RUN_SECONDS = 180_000
TEXT = "The lighthouse keeper had counted the same ships for thirty years. Nobody answered."


def test_a_traced_text_is_audited_and_the_figures_are_the_engines(
    page: Page, url: str, screenshot: Screenshot, page_log: PageLog
) -> None:
    page_log.expect_error(r"404.*/_stcore/")  # Streamlit looks beside the page first
    page.goto(f"{url}/audit")
    expect_sample(page)
    ask(page, TEXT)
    expect_text(page, TEXT)
    page.get_by_role("button", name="Audit this text").click()
    expect(page.get_by_text("The most costly wrong decisions")).to_be_visible(timeout=RUN_SECONDS)

    model = skipviz.load("smollm2-gated")
    trace = skipviz.trace(model, TEXT)
    cells = skipviz.audit(model, trace)
    found = quality(judged(trace, cells, price=implied_price(trace, cells)))
    metric = page.get_by_test_id("stMetric")
    expect(metric.filter(has_text="AUROC of the score")).to_contain_text(f"{found.auroc:.3f}")
    expect(metric.filter(has_text="Right decisions")).to_contain_text(f"{found.right:.1%}")

    wrong = judged(trace, cells, price=implied_price(trace, cells))
    # The first token's decisions, which fill the top, are listed apart.
    later = wrong.filter(pl.col("token") > 0).sort("regret", descending=True)
    worst = later.row(0, named=True)
    table = page.get_by_test_id("stDataFrame").filter(has_text="regret, nats").first
    table.click(position={"x": 15, "y": 52})  # the box beside the first row
    expect(page.get_by_text(f"Token {worst['token']} at {worst['label']}")).to_be_visible()
    expect(page.get_by_text(f"⟦{trace.tokens['text'][worst['token']]}⟧")).to_be_visible()
    expect(page.locator(".panel h3")).to_contain_text(f"Token {worst['token']} ")
    expect(page.locator(".panel .cell-words")).to_contain_text(f"{worst['label']}: ")
    screenshot(page, "audit")

    # A click on the map selects, and the canvas says what the audit found of it.
    area = page.locator(".st-key-utility .nsewdrag").first
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator(".st-key-utility .hoverlayer")).to_contain_text("token")
    page.mouse.down()
    page.mouse.up()
    middle = (len(trace) - 1) // 2
    expect(page.locator(".panel h3")).to_contain_text(re.compile(f"Token ({middle}|{middle + 1}) "))
    expect(page.locator(".panel .flip")).to_contain_text(re.compile("Audit: .* nats"))

    page.get_by_text("Free", exact=True).click()
    free = quality(judged(trace, cells))
    expect(metric.filter(has_text="Right decisions")).to_contain_text(f"{free.right:.1%}")
    page.get_by_text("Wrong decisions", exact=True).click()
    expect(page.get_by_test_id("stPlotlyChart").filter(has_text="Wrong decisions")).to_be_visible()

    rows = saved_rows(page, "Every decision (CSV)")
    assert len(rows) == cells.height
    assert float(rows[5]["utility"]) == pytest.approx(cells["utility"][5], abs=1e-4)

    rows = saved_rows(page, "By token class (CSV)")
    kinds = token_classes(trace).head(len(trace) - 1)["kind"]  # the last one predicts nothing
    assert {row["kind"]: int(row["tokens"]) for row in rows} == dict(kinds.value_counts().rows())

    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 420, "height": 900})
    screenshot(page, "audit-dark-narrow")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
