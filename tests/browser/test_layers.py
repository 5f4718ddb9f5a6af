from __future__ import annotations

import re

import polars as pl
import pytest
from playwright.sync_api import Page, expect

import skipviz
from skipviz.analysis.layers.difficulty import depth_against_difficulty, difficulty
from skipviz.analysis.layers.specialties import specialties
from skipviz.analysis.tokens.classes import token_classes
from skipviz.experiments.hidden_states.attention_paid import attention_paid
from skipviz.experiments.hidden_states.prediction_by_depth import (
    convergence_layers,
    layer_influence,
)
from skipviz.experiments.hidden_states.states import record_states
from skipviz.readings.layers import (
    attention_reading,
    difficulty_reading,
    settling_reading,
    specialty_reading,
)
from tests.browser.conftest import PageLog, Screenshot
from tests.browser.resting import saved, saved_rows
from tests.browser.tracing import ask, expect_sample, expect_text

RUN_SECONDS = 240_000
TEXT = """The lighthouse keeper had counted the same 42 ships for thirty years. Nobody answered his
letters. In 1987 the council of Bristol sent him 3 questions about the lamp, and then no more; he
kept them all in a tin, under the stairs.

Why did he stay? Because the lamp, he said, does not ask who is looking at it. On clear evenings the
doctor's children rowed out with bread, onions and a newspaper, usually 2 or 3 days old. They never
came upstairs. “It turns by itself,” Maria told her mother, “and he only watches.” When the engine
was replaced by a motor in March, he wound the old clockwork every morning at 6:15, as before, and
nobody had the heart to mention it. The inspector wrote: “Everything in order; 1 lamp, 1 keeper.”
"""


def trace_text(page: Page, text: str) -> None:
    ask(page, text)
    expect_text(page, text)
    heading = page.get_by_role("heading", name="What do layers specialise in?")
    expect(heading).to_be_visible(timeout=RUN_SECONDS)


def choose(page: Page, view: str) -> None:
    page.get_by_role("radio", name=view, exact=True).click()


def expect_reading(page: Page, reading: str) -> None:
    main = page.get_by_test_id("stMain")
    expect(main.get_by_text(reading)).to_be_visible(timeout=RUN_SECONDS)


def test_every_view_says_what_the_engine_finds(
    page: Page, url: str, screenshot: Screenshot, page_log: PageLog
) -> None:
    page_log.expect_error(r"404.*/_stcore/")  # Streamlit looks beside the page first
    page.goto(f"{url}/layers")
    expect_sample(page)
    trace_text(page, TEXT)
    model = skipviz.load("smollm2-gated")
    trace = skipviz.trace(model, TEXT)

    table = specialties(trace, token_classes(trace), seed=0)
    expect_reading(page, specialty_reading(table))
    expect(page.get_by_text("Which tokens run which layers").last).to_be_visible()
    screenshot(page, "layers-classes")
    rows = saved_rows(page, "Classes and sites (CSV)")
    assert [row["class"] for row in rows] == table["class"].to_list()
    assert float(rows[3]["rate"]) == pytest.approx(table["rate"][3], abs=1e-6)
    page.get_by_text("Part of speech and named entities").click()
    expect(page.get_by_role("radio", name="part of speech")).to_be_visible(timeout=RUN_SECONDS)

    choose(page, "Difficulty")
    expect_reading(page, difficulty_reading(depth_against_difficulty(difficulty(trace), seed=0)))
    screenshot(page, "layers-difficulty")

    choose(page, "Predictions")
    page.get_by_role("button", name="Apply the logit lens").click()
    states = record_states(model, trace, seed=0)
    settled = convergence_layers(model, trace, states)
    reading = settling_reading(settled, layer_influence(trace, states))
    expect_reading(page, reading)
    screenshot(page, "layers-predictions")

    choose(page, "Attention")
    page.get_by_role("button", name="Measure the attention").click()
    paid = attention_paid(model, trace, seed=0)
    expect_reading(page, attention_reading(paid.layers, paid.losses))
    screenshot(page, "layers-attention")

    choose(page, "Probes")
    page.get_by_role("button", name="Probe the layers").click()
    expect(page.get_by_text("What a linear probe reads")).to_be_visible(timeout=RUN_SECONDS)
    read = pl.read_csv(saved(page, "Probes (CSV)"))
    assert set(read["part"]) == {"all", "executed", "skipped"}
    screenshot(page, "layers-probes")

    # What was found before is still there.
    choose(page, "Predictions")
    expect_reading(page, reading)


def test_tasks_beside_what_was_published_narrow_and_dark(
    page: Page, url: str, screenshot: Screenshot, page_log: PageLog
) -> None:
    page_log.expect_error(r"404.*/_stcore/")  # Streamlit looks beside the page first
    page.goto(f"{url}/layers")
    page.emulate_media(color_scheme="dark")
    trace_text(page, TEXT)
    page.set_viewport_size({"width": 420, "height": 900})
    figures = page.locator(".js-plotly-plot .main-svg")
    expect(figures.first).to_be_visible(timeout=RUN_SECONDS)
    screenshot(page, "layers-narrow-dark-classes")
    choose(page, "Difficulty")
    expect(page.get_by_text("By surprisal")).to_be_visible(timeout=RUN_SECONDS)
    screenshot(page, "layers-narrow-dark-difficulty")
    page.set_viewport_size({"width": 1280, "height": 900})
    trace_text(page, "Too short to probe.")
    page.set_viewport_size({"width": 420, "height": 900})
    choose(page, "Probes")
    expect(page.get_by_text(re.compile("probes need 160"))).to_be_visible()
    choose(page, "Tasks")
    page.get_by_role("button", name="Run the prompts").click()
    expect(page.get_by_text("Layers used by task").last).to_be_visible(timeout=RUN_SECONDS)
    expect(page.get_by_text(re.compile("14 pairs of tasks are in the same order"))).to_be_visible(
        timeout=RUN_SECONDS
    )
    expect(figures.first).to_be_visible()
    screenshot(page, "layers-narrow-dark-tasks")
    overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert overflow <= 0
