"""Waiting until a page has come to rest, and what is then downloaded from it.

A click does not reach the page's script at once, and a run of the script takes away the files that
the run before offered, so a download that is pressed in between comes to nothing.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from playwright.sync_api import Page

RUN_MS = 240_000
"""For a run of a model, or an app that has just started, on a busy machine."""
REST_MS = 800
"""For how long no run may be under way."""

_RESTS = """([rest, longest]) => new Promise((done, fail) => {
    const began = performance.now();
    let since = began;
    const look = setInterval(() => {
        const now = performance.now();
        if (!document.querySelector("[data-test-script-state=notRunning]")) since = now;
        if (now - since < rest && now - began < longest) return;
        clearInterval(look);
        if (now - since < rest) fail(new Error("the page keeps running")); else done();
    }, 20);
})"""


def rest(page: Page) -> None:
    """Wait until the page's script has not run for a while."""
    page.evaluate(_RESTS, [REST_MS, RUN_MS])


def saved(page: Page, button: str, *, exact: bool = False) -> Path:
    """Download what a button offers and return where it lies."""
    rest(page)
    with page.expect_download() as download:
        page.get_by_role("button", name=button, exact=exact).first.click()
    return Path(download.value.path())


def saved_rows(page: Page, button: str) -> list[dict[str, str]]:
    """Download a table and return its rows."""
    return list(csv.DictReader(io.StringIO(saved(page, button).read_text("utf-8"))))
