"""The report and the folder of traces, opened from disk with the network off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

import skipviz
from tests.synthetic import make_trace

TRACE = make_trace(tokens=60, seed=3)


@pytest.fixture
def offline(browser: Browser) -> Iterator[tuple[Page, list[str]]]:
    """A page without a network, and what it asked for beside files on disk."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    asked: list[str] = []
    errors: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    context.on("weberror", lambda error: errors.append(str(error.error)))
    page = context.new_page()
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    yield page, asked
    context.close()
    assert errors == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_a_report_opens_from_disk(offline: tuple[Page, list[str]], tmp_path: Path) -> None:
    page, asked = offline
    skipviz.report(TRACE, tmp_path / "report.html", analyses=["check"])
    page.goto((tmp_path / "report.html").as_uri())
    text = page.locator(".tokens")
    expect(text).to_contain_text("The fox <b>bold</b>")
    text.locator("span", has_text="fox").first.click()
    expect(page.locator(".panel")).to_contain_text("Token 1")
    assert page.url.endswith("#token=1")
    text.press("ArrowRight")
    expect(page.locator(".panel")).to_contain_text("Token 2")
    first = page.locator("figure:has(.plot)").first
    first.scroll_into_view_if_needed()
    expect(first.locator(".main-svg").first).to_be_visible()
    with page.expect_download() as kept:
        first.get_by_role("button", name="Save this figure as SVG").click()
    assert kept.value.suggested_filename == "layers-used-by-60-tokens.svg"
    assert "Layers used by 60 tokens" in Path(kept.value.path()).read_text(encoding="utf-8")
    assert {url.split("#")[0] for url in asked if url.startswith("file:")} == {
        (tmp_path / "report.html").as_uri()
    }
    page.reload()
    expect(page.locator(".panel")).to_contain_text("Token 2")


def test_a_bundle_opens_from_disk_at_a_link(
    offline: tuple[Page, list[str]], tmp_path: Path
) -> None:
    page, _ = offline
    skipviz.bundle({"fox": TRACE, "other": make_trace(tokens=8)}, tmp_path / "page")
    address = (tmp_path / "page" / "index.html").as_uri()
    page.goto(f"{address}#trace=other&token=6&site=L2.mlp")
    expect(page.locator(".panel")).to_contain_text("Token 6")
    expect(page.locator(".cell-words")).to_contain_text("L2.mlp")
    expect(page.locator(".about:visible .subject")).to_contain_text("8 tokens")
    page.get_by_label("Trace", exact=True).select_option("fox")
    expect(page.locator(".about:visible .subject")).to_contain_text("60 tokens")
    expect(page.locator(".panel")).to_contain_text("No token selected")
    assert page.url == f"{address}#trace=fox"
    page.evaluate("location.hash = 'trace=gone&token=1'")
    expect(page.get_by_role("alert")).to_contain_text("There is no trace “gone”")
    expect(page.locator(".panel")).to_contain_text("No token selected")
