from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

import skipviz
from skipviz.analysis.robustness.decision_shift import shift_of_decisions
from skipviz.analysis.robustness.drift import drift
from skipviz.analysis.robustness.tails import over_dense, tails
from skipviz.experiments.robustness.surface import surface_changes
from skipviz.readings.robustness import drift_words, surface_words, tails_words
from tests.browser.conftest import PageLog, Screenshot
from tests.browser.resting import saved_rows
from tests.browser.tracing import (
    ask,
    expect_sample,
    expect_text,
    expect_titles,
    expect_upload,
    side_bar_upload,
    trace_pasted,
)

RUN_SECONDS = 240_000
STORY = (
    "The lighthouse keeper had counted the same ships for thirty years. On the last evening of "
    "November he counted one more than there should have been. It came in without lights, slowly, "
    "against the wind, and it did not answer when he called. He went down the hundred and twelve "
    "steps, took the lantern from its hook, and walked out along the stones."
)
CODE = 'def area(radius):\n    """Return the area of a circle."""\n    return 3.14 * radius ** 2\n'


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name).click()


def test_a_text_is_tried_and_the_figures_are_the_engines(
    page: Page, url: str, screenshot: Screenshot, page_log: PageLog
) -> None:
    page_log.expect_error(r"404.*/_stcore/")  # Streamlit looks beside the page first
    page.goto(f"{url}/robustness")
    expect_sample(page)
    text = f"{STORY.partition(' He went')[0]}\n\n{CODE}"
    ask(page, text)
    expect_text(page, text)
    model, document = skipviz.load("smollm2-gated"), skipviz.Document("pasted text", text)
    trace, dense = skipviz.trace(model, text), skipviz.trace(skipviz.load("smollm2-135m"), text)

    press(page, "Compare with the dense model")
    costs = over_dense(trace, dense)
    wanted = tails_words(tails(trace, costs), costs, layers=30)
    expect(page.get_by_text(wanted)).to_be_visible(timeout=RUN_SECONDS)
    rows = saved_rows(page, "Every token (CSV)")
    assert len(rows) == costs.height
    assert float(rows[7]["over_dense"]) == pytest.approx(costs["over_dense"][7], abs=1e-3)

    press(page, "Change the surface")
    words = surface_changes(model, [document], seed=0)
    expect(page.get_by_text(surface_words(shift_of_decisions(words)))).to_be_visible(
        timeout=RUN_SECONDS
    )
    found = saved_rows(page, "Every word (CSV)")
    assert [json.loads(row["after"]) for row in found] == words["after"].to_list()

    press(page, "Change the context")
    expect(page.get_by_text("With no context")).to_be_visible(timeout=RUN_SECONDS)
    press(page, "Change the batch")
    expect(page.get_by_text("in the padded batch, scores differ")).to_be_visible(
        timeout=RUN_SECONDS
    )
    press(page, "Compare 12 pairs")
    expect(page.get_by_text("In 12 pairs")).to_be_visible(timeout=RUN_SECONDS)
    page.wait_for_timeout(1500)  # the figures settle
    screenshot(page, "robustness")
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 420, "height": 900})
    page.wait_for_timeout(1500)
    screenshot(page, "robustness-dark-narrow")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


@pytest.mark.long
def test_short_texts_get_sentences_and_two_texts_drift(
    page: Page, url: str, tmp_path: Path, screenshot: Screenshot
) -> None:
    trace_pasted(page, url, "Nobody answered.")
    page.get_by_role("link", name="Robustness").click()
    press(page, "Change the context")
    expect(page.get_by_text("Give a longer text")).to_be_visible(timeout=RUN_SECONDS)
    expect(page.get_by_text("Give at least 128 tokens on each side")).to_be_visible()
    expect(page.get_by_role("button", name="Compare the two")).to_have_count(0)
    page.get_by_text("The pairs").click()
    page.get_by_label("One pair per line").fill("a | b\nno pair")
    page.get_by_label("One pair per line").press("Control+Enter")
    expect(page.get_by_text("Line 2 is not a pair")).to_be_visible()

    # A saved trace as the reference.
    saved = tmp_path / "reference.parquet"
    reference = skipviz.trace(skipviz.load("smollm2-gated"), STORY * 2)
    reference.save(saved)
    page.get_by_text("A saved trace", exact=True).click()
    page.get_by_test_id("stFileUploaderDropzoneInput").last.set_input_files(saved)
    expect(page.get_by_text("Before: reference.parquet")).to_be_visible()
    page.get_by_role("button", name="Remove reference.parquet").click()
    expect(page.get_by_text("Before: reference.parquet")).to_be_hidden()
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"no trace")
    page.get_by_test_id("stFileUploaderDropzoneInput").last.set_input_files(broken)
    expect(page.get_by_text("cannot be read as a trace")).to_be_visible()

    page.get_by_test_id("stButtonGroup").get_by_text("Upload").click()
    several = tmp_path / "two_*texts*.jsonl"
    texts = [STORY * 2, CODE * 6]
    lines = [json.dumps({"text": text}) for text in texts]
    several.write_text("\n".join(lines), encoding="utf-8")
    side_bar_upload(page).set_input_files(several)
    expect_upload(page)
    press(page, "Trace the text")
    expect_titles(page, [f"{several.name}:1", f"{several.name}:2"])
    expect(page.get_by_text("The text: two_*texts*.jsonl:1 and 1 more")).to_be_visible()
    expect(page.get_by_text("1: two_*texts*.jsonl:1")).to_be_visible()
    press(page, "Compare the two")
    model = skipviz.load("smollm2-gated")
    first, second = (skipviz.trace(model, text) for text in texts)
    table = drift(first, second, seed=0)
    assert "drifted" in table["level"].to_list()
    expect(page.get_by_text(drift_words(table))).to_be_visible(timeout=RUN_SECONDS)
    rows = saved_rows(page, "Drift (CSV)")
    assert [row["level"] for row in rows] == table["level"].to_list()
    page.wait_for_timeout(1500)  # the figures settle
    screenshot(page, "robustness-drift")
