"""What axe-core finds on each page: nothing serious or critical."""

from __future__ import annotations

import re
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from skipviz.app.main import PAGES
from tests.browser.resting import rest
from tests.browser.tracing import expect_sample

GRAVE = ("serious", "critical")


def grave_findings(page: Page) -> list[str]:
    """Return what axe-core finds serious or critical, a line each."""
    rest(page)  # while a run is under way, what is old is faint
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [
        f"{violation['id']}: {node['target']} {node['html'][:200]}"
        for violation in found
        if violation["impact"] in GRAVE
        for node in violation["nodes"]
    ]


def test_no_page_has_a_grave_finding(page: Page, url: str) -> None:
    page.goto(url)
    expect_sample(page)
    expect(page.get_by_role("button", name="Trace the text")).to_be_visible()
    found = {}
    first, *others = PAGES
    for title in (*others, first):
        page.get_by_role("link", name=title, exact=True).click()
        name = "" if title == first else PAGES[title]
        expect(page).to_have_url(re.compile(rf"{re.escape(url)}/{name}(\?|$)"))
        page.wait_for_timeout(500)  # figures settle
        if findings := grave_findings(page):
            found[title] = findings
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(500)
    if findings := grave_findings(page):
        found["dark"] = findings
    assert found == {}
