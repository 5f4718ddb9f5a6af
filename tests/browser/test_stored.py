from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

import skipviz
from tests.browser.conftest import Screenshot
from tests.browser.counted_runs import runs
from tests.browser.tracing import expect_titles, side_bar_upload

TEXTS = ("The lighthouse keeper counted the ships.\n", "Nobody <i>answered</i>, and 2 + 2 = 4.")


def test_a_stored_trace_opens_without_a_run(
    page: Page, counted_url: str, tmp_path: Path, screenshot: Screenshot
) -> None:
    documents = [skipviz.Document(f"{n}.txt", text) for n, text in enumerate(TEXTS)]
    trace = skipviz.trace(skipviz.load("smollm2-gated"), documents)
    trace.save(tmp_path / "trace.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"no trace")
    page.goto(counted_url)
    before = runs(page)
    page.get_by_role("radio", name="Trace", exact=True).click()
    upload = side_bar_upload(page)
    upload.set_input_files(tmp_path / "broken.parquet")
    expect(page.get_by_text("cannot be read as a trace")).to_be_visible()
    page.get_by_role("button", name="Remove broken.parquet").click()
    upload.set_input_files(tmp_path / "trace.parquet")
    expect(page.get_by_text("2 texts, traced by smollm2-gated")).to_be_visible()
    page.get_by_role("button", name="Show the trace").click()
    expect_titles(page, ["0.txt", "1.txt"])
    assert "".join(page.locator(".tokens span").all_text_contents()) == "".join(TEXTS)
    assert runs(page) == before
    screenshot(page, "stored")
    page.get_by_role("link", name="Audit").click()
    expect(page.get_by_text("Several texts were traced")).to_be_visible()
