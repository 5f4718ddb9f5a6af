from __future__ import annotations

import polars as pl
from playwright.sync_api import Page, expect

import skipviz
from skipviz.models.samples import samples_folder
from tests.browser.conftest import PageLog, Screenshot

RUN_SECONDS = 120_000
TEXT = "The lighthouse keeper counted the ships.\n\nNobody answered."


def test_a_point_of_the_frontier_leads_to_the_same_text_under_it(
    page: Page, url: str, screenshot: Screenshot
) -> None:
    page.goto(url)
    page.get_by_label("Paste a text").fill(TEXT)
    page.get_by_label("Paste a text").press("Control+Enter")
    page.get_by_role("button", name="Trace the text").click()
    expect(page.locator(".tokens span").first).to_be_visible(timeout=RUN_SECONDS)
    page.get_by_role("link", name="Policies").click()
    expect(page.get_by_text("The text: pasted text")).to_be_visible()

    points = page.locator(".js-plotly-plot .point")
    expect(points.first).to_be_visible()
    points.first.click(force=True)
    table = pl.read_csv(samples_folder() / "frontier.csv")
    first = table.filter(pl.col("policy") != "dense")["model"][0]
    first = table.filter(model=first).sort("realised").row(0, named=True)
    name = f"{first['model']}, {first['policy']}, budget {first['budget']:.0%}"
    expect(page.get_by_role("combobox", name="Policy")).to_have_value(name)

    page.get_by_role("button", name="See the text under this policy").click()
    expect(page.locator(".tokens span").first).to_be_visible(timeout=RUN_SECONDS)
    assert "".join(page.locator(".tokens span").all_text_contents()) == TEXT
    trace = skipviz.trace(skipviz.load(first["model"], budget=first["budget"]), TEXT)
    used = trace.tokens["layers_used"].to_numpy().mean()
    expect(page.get_by_text(f"{used:.1f} of 30")).to_be_visible()
    screenshot(page, "policies")


def test_every_policy_of_the_table_can_be_chosen(page: Page, url: str, page_log: PageLog) -> None:
    page_log.expect_error(r"404.*/_stcore/")  # Streamlit looks beside the page first
    page.goto(f"{url}/policies")
    page.get_by_label("Policy").click()
    table = pl.read_csv(samples_folder() / "frontier.csv")
    expect(page.get_by_role("option").first).to_be_visible()
    for row in table.rows(named=True):
        skipviz.load(
            row["model"],
            budget=row["budget"],
            limit=row["limit"],
            policy=None if row["policy"] in ("dense", "guarded") else row["policy"],
        )
