"""From click to coloured text, in a real browser on the real page.

``python benchmarks/page.py``. The time is held against the bare run of the model on the same text,
taken in the same process right after, so that the ratio says what the page adds.
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

import skipviz
from tests.browser.chromium import FLAGS, find_chromium

ROOT = Path(__file__).parents[1]
SENTENCE = "The keeper counted the ships again, number {}, and wrote them down. "
ROUNDS = 3


def text(number: int) -> str:
    """Return a text of some 500 tokens that the app has not seen."""
    return "".join(SENTENCE.format(f"{number}.{line}") for line in range(28))


def seconds_to_colour(page: Page, words: str) -> float:
    """Paste, press the button and wait for the coloured text."""
    box = page.get_by_label("Paste a text")
    box.fill(words)
    box.press("Control+Enter")
    page.wait_for_timeout(500)
    began = time.perf_counter()
    page.get_by_role("button", name="Trace the text").click()
    number = words.split("number ")[1].split(".")[0]
    expect(page.locator(".tokens")).to_contain_text(f"number {number}.27", timeout=120_000)
    return time.perf_counter() - began


def main() -> None:
    """Print the times."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "app.py")]
    server = subprocess.Popen(
        [*command, f"--server.port={port}", "--server.headless=true"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        while server.poll() is None:
            try:
                urllib.request.urlopen(f"{url}/_stcore/health")
                break
            except OSError:
                time.sleep(0.2)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(FLAGS))
            page = browser.new_page()
            page.goto(url)
            first = seconds_to_colour(page, text(0))
            later = [seconds_to_colour(page, text(number)) for number in range(1, ROUNDS + 1)]
            browser.close()
    finally:
        server.terminate()
    model = skipviz.load("smollm2-gated")
    runs = []
    for number in range(1, ROUNDS + 1):
        began = time.perf_counter()
        traced = skipviz.trace(model, text(number))
        runs.append(time.perf_counter() - began)
    page_time, run_time = statistics.median(later), statistics.median(runs)
    print(
        f"click to coloured text, {len(traced)} tokens: {page_time:.2f} s, "
        f"{page_time / run_time:.2f} of the bare trace on all cores; "
        f"the first text, with loading the model, {first:.2f} s"
    )


if __name__ == "__main__":
    main()
