"""A stored trace of 5,000 tokens on the pages of layers and robustness: no model is run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

import skipviz
from skipviz.analysis.layers.difficulty import depth_against_difficulty, difficulty
from skipviz.analysis.layers.specialties import specialties
from skipviz.analysis.robustness.drift import drift
from skipviz.analysis.robustness.two_corpora import select_tokens
from skipviz.analysis.tokens.classes import token_classes
from skipviz.readings.layers import difficulty_reading, specialty_reading
from skipviz.readings.robustness import drift_words
from tests.browser.conftest import PageLog, Screenshot
from tests.browser.counted_runs import runs
from tests.browser.long_texts import TOKENS, long_texts
from tests.browser.resting import saved_rows
from tests.browser.tracing import expect_no_sample, side_bar_upload

pytestmark = pytest.mark.long

RUN_SECONDS = 600_000


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[skipviz.Trace, Path]:
    """A trace of three texts, and the file it was saved to."""
    folder = tmp_path_factory.mktemp("stored")
    documents = [
        skipviz.Document(path.name, path.read_text("utf-8")) for path in long_texts(folder)
    ]
    trace = skipviz.trace(skipviz.load("smollm2-gated"), documents)
    assert len(trace) == pytest.approx(TOKENS, rel=0.2)
    trace.save(folder / "long.parquet")
    return trace, folder / "long.parquet"


def open_stored(page: Page, url: str, path: Path) -> int:
    """Show a stored trace; return how often a model was run, which is as often as before."""
    page.goto(url)
    before = runs(page)
    page.get_by_role("radio", name="Trace", exact=True).click()
    side_bar_upload(page).set_input_files(path)
    page.get_by_role("button", name="Show the trace").click()
    expect_no_sample(page)
    assert runs(page) == before
    return before


def expect_reading(page: Page, reading: str) -> None:
    shown = page.get_by_test_id("stMain").get_by_text(reading)
    expect(shown).to_be_visible(timeout=RUN_SECONDS)


def test_layers_of_five_thousand_stored_tokens(
    page: Page,
    counted_url: str,
    stored: tuple[skipviz.Trace, Path],
    screenshot: Screenshot,
    page_log: PageLog,
) -> None:
    page_log.expect_error(r"404.*/_stcore/")  # Streamlit looks beside the page first
    trace, path = stored
    before = open_stored(page, counted_url, path)
    page.get_by_role("link", name="Layers").click()
    table = specialties(trace, token_classes(trace), seed=0)
    expect_reading(page, specialty_reading(table))
    rows = saved_rows(page, "Classes and sites (CSV)")
    assert [row["class"] for row in rows] == table["class"].to_list()
    assert [float(row["rate"]) for row in rows] == pytest.approx(table["rate"].to_list(), abs=1e-6)
    screenshot(page, "layers-long-classes")
    page.get_by_role("radio", name="Difficulty", exact=True).click()
    found = depth_against_difficulty(difficulty(trace), seed=0)
    expect_reading(page, difficulty_reading(found))
    screenshot(page, "layers-long-difficulty")
    assert runs(page) == before


def test_drift_of_five_thousand_stored_tokens(
    page: Page,
    counted_url: str,
    stored: tuple[skipviz.Trace, Path],
    screenshot: Screenshot,
    page_log: PageLog,
) -> None:
    page_log.expect_error(r"404.*/_stcore/")  # Streamlit looks beside the page first
    trace, path = stored
    before = open_stored(page, counted_url, path)
    page.get_by_role("link", name="Robustness").click()
    page.get_by_role("button", name="Compare the two").click()
    # The first of three texts is before, the others are after.
    first = (trace.tokens["sequence"] == 0).to_numpy()
    table = drift(select_tokens(trace, first), select_tokens(trace, np.logical_not(first)), seed=0)
    expect_reading(page, drift_words(table))
    rows = saved_rows(page, "Drift (CSV)")
    assert [row["level"] for row in rows] == table["level"].to_list()
    page.wait_for_timeout(1500)  # the figures settle
    screenshot(page, "robustness-long")
    assert runs(page) == before
