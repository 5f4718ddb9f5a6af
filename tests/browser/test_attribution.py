from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

import skipviz
from skipviz.analysis.gates.agreement import agreement, beside_flips, worth_of_cells
from skipviz.analysis.gates.score_correlation import correlate
from skipviz.experiments.attribution.over_depth import attribute_depth, flips_beside
from skipviz.experiments.attribution.over_tokens import attribute
from skipviz.experiments.attribution.target import Target
from skipviz.readings.intervals import coefficient_words, q_words
from tests.browser.conftest import PageLog, Screenshot
from tests.browser.resting import saved_rows
from tests.browser.tracing import ask, choose_option, expect_sample, expect_text, trace_pasted

RUN_SECONDS = 300_000
TEXT = "An <b>unbelievably</b> odd ship."
STEPS = 4


@pytest.mark.long
def test_a_prediction_is_explained_over_text_and_depth_as_the_engine_does(
    page: Page, url: str, screenshot: Screenshot, page_log: PageLog
) -> None:
    page_log.expect_error(r"404.*/_stcore/")  # Streamlit looks beside the page first
    page.goto(f"{url}/attribution")
    expect_sample(page)
    ask(page, TEXT)
    expect_text(page, TEXT)
    model = skipviz.load("smollm2-gated")
    trace = skipviz.trace(model, TEXT)
    token = len(trace) - 2

    page.get_by_role("button", name="Attribute over the text").click()
    expect(page.get_by_text("Sum of the shares")).to_be_visible(timeout=RUN_SECONDS)
    found = attribute(model, trace, Target(token=token), method="feature_ablation")
    metric = page.get_by_test_id("stMetric")
    expect(metric.filter(has_text="Value on this text")).to_contain_text(f"{found.value:.3f}")
    pieces = page.get_by_test_id("stHtml").locator("span[title*='token']")
    assert "".join(pieces.all_text_contents()) == TEXT
    assert page.get_by_test_id("stHtml").locator("b").count() == 0
    rows = saved_rows(page, "Tokens (CSV)")
    shares = found.table["attribution"].to_list()
    assert [float(row["attribution"]) for row in rows] == pytest.approx(shares, abs=1e-3)
    tokens = pieces.count()
    page.get_by_role("radio", name="Words", exact=True).click()
    expect(pieces.filter(has_text="unbelievably")).to_have_count(1)
    assert pieces.count() < tokens

    page.get_by_role("spinbutton").last.fill(str(STEPS))
    page.get_by_role("spinbutton").last.press("Enter")
    page.get_by_role("button", name="Attribute over depth").click()
    expect(page.get_by_text("Decisions for which shares and flips differ most")).to_be_visible(
        timeout=RUN_SECONDS
    )
    cells = worth_of_cells(trace, attribute_depth(model, trace, steps=STEPS).table)
    agreed = agreement(beside_flips(cells, flips_beside(model, trace, seed=0)))
    expect(page.get_by_text(f"Spearman {agreed.rank:.2f}")).to_be_visible()
    rows = saved_rows(page, "Shares over depth (CSV)")
    assert len(rows) == cells.height
    assert float(rows[9]["share"]) == pytest.approx(cells["share"][9], abs=1e-2)

    page.get_by_role("button", name="Audit this text").click()
    page.get_by_role("button", name="Correlate scores").click(timeout=RUN_SECONDS)
    expect(page.get_by_text("fewer than 8 blocks").first).to_be_visible(timeout=RUN_SECONDS)
    audited = skipviz.audit(model, trace)
    table = correlate(trace, audited, "utility", methods=["spearman"], seed=0)
    over_all = table.row(0, named=True)
    expect(
        page.get_by_text(f"Spearman {coefficient_words(over_all)}, {q_words(over_all['q'])}")
    ).to_be_visible()
    screenshot(page, "attribution")
    rows = saved_rows(page, "Correlations (CSV)")
    assert len(rows) == table.height
    assert float(rows[3]["r"]) == pytest.approx(table["r"][3], abs=1e-3)
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 420, "height": 900})
    screenshot(page, "attribution-dark-narrow")
    overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert overflow <= 0


def test_a_gates_score_is_explained_and_tokens_are_compared(
    page: Page, url: str, screenshot: Screenshot
) -> None:
    trace_pasted(page, url, "Two <i>words</i> & more.")
    page.get_by_role("link", name="Attribution").click()
    expect(page.get_by_text("The text: pasted text").first).to_be_visible(timeout=RUN_SECONDS)
    # A run of the page would close the list again.
    expect(page.locator("[data-test-script-state=notRunning]")).to_be_visible()
    choose_option(page, "What to explain", "one next token compared with another")
    expect(page.get_by_label("Compared with").first).to_be_visible()
    choose_option(page, "What to explain", "score of a gate")
    expect(page.get_by_text(re.compile("the gate score is .* so it"))).to_be_visible()
    page.get_by_text("Straight through", exact=True).first.click()
    page.get_by_label("Method").click()
    page.get_by_role("option", name="Integrated gradients").click()
    page.get_by_role("spinbutton").first.fill("3")
    page.get_by_role("spinbutton").first.press("Enter")
    page.get_by_role("button", name="Attribute over the text").click()
    expect(page.get_by_text("The shares should add up to")).to_be_visible(timeout=RUN_SECONDS)
    screenshot(page, "attribution-score")
