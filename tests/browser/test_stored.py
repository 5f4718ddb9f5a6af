from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

import skipviz
from tests import encoders, tiny
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


def test_an_encoder_has_a_class_where_next_tokens_stand(
    page: Page, counted_url: str, tmp_path: Path, screenshot: Screenshot
) -> None:
    encoder = encoders.deebert()
    encoder.config.id2label = dict.fromkeys(range(3), "<b>good</b>")
    model = skipviz.from_parts(encoder, tiny.tokenizer(), name="deebert")
    trace = skipviz.trace(model, TEXTS[0])
    trace.save(tmp_path / "trace.parquet")
    page.goto(counted_url)
    page.get_by_role("radio", name="Trace", exact=True).click()
    side_bar_upload(page).set_input_files(tmp_path / "trace.parquet")
    page.get_by_role("button", name="Show the trace").click()
    panel = page.get_by_role("region", name="Selected token")
    said = f"“<b>good</b>”, probability {100 * trace.tokens['class_prob'][0]:.1f}%"
    expect(panel.get_by_text(said)).to_be_visible()
    page.locator(".tokens span").nth(2).click()
    expect(panel.get_by_role("heading", name="Token 2 ")).to_be_visible()
    expect(panel.get_by_text(said)).to_be_visible()
    expect(panel.get_by_text("Most likely next tokens")).to_have_count(0)
    expect(panel.get_by_text("Loss on next")).to_have_count(0)
    expect(page.get_by_role("button", name="Most wrong")).to_be_hidden()
    expect(page.get_by_text("not causal").first).to_be_visible()
    screenshot(page, "encoder")
