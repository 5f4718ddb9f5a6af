"""Figures as they stand on a page, at all widths."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.tracing import expect_sample

FAULTS = """() => [...document.querySelectorAll(".js-plotly-plot")].flatMap((figure) => {
  const box = (element) => element.getBoundingClientRect(), whole = box(figure);
  const titles = [...figure.querySelectorAll(".gtitle, .gtitle-subtitle, .xtitle, .ytitle")];
  const bar = box(figure.querySelector(".modebar"));
  return titles.filter((each) => {
    const { left, right, top, bottom } = box(each);
    const covered = left < bar.right && bar.left < right && top < bar.bottom && bar.top < bottom;
    const cut = left < whole.left - 1 || right > whole.right + 1 || bottom > whole.bottom + 1;
    return covered || cut;
  }).map((each) => each.textContent);
})"""
"""Titles that the buttons of their figure cover, or that its edge cuts."""


@pytest.mark.parametrize("width", [1440, 900, 390])
def test_no_title_is_covered_or_cut(page: Page, url: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(url)
    expect_sample(page)
    figures = page.locator(".js-plotly-plot")
    expect(figures).to_have_count(3)
    expect(page.locator(".js-plotly-plot .gtitle")).to_have_count(3)
    page.wait_for_timeout(1500)  # the figures settle
    assert page.evaluate(FAULTS) == []
    for figure in figures.all():
        figure.hover()
        buttons = figure.locator(".modebar-btn").last
        expect(buttons).to_be_visible()
        buttons.hover()  # nothing lies over it
        legend = figure.locator(".legend").bounding_box()
        place = figure.locator("xpath=ancestor::*[@data-testid='stElementContainer']").last
        whole = place.bounding_box()
        assert legend is not None
        assert whole is not None
        assert legend["y"] + legend["height"] <= whole["y"] + whole["height"] + 1
