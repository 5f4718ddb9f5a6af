"""From click to coloured text, in a real browser on the real page; and what the canvas takes.

``python benchmarks/page.py``. The time is held against the bare run of the model on the same text,
taken in the same process right after, so that the ratio says what the page adds. The canvas is
measured alone, with planted numbers and 60 sites, from the event to the frame that shows it.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

import skipviz
from tests.browser.chromium import FLAGS, find_chromium

ROOT = Path(__file__).parents[1]
SENTENCE = "The keeper counted the ships again, number {}, and wrote them down. "
ROUNDS = 3
CANVAS_SIZES = (800, 5_000, 50_000)
"""Tokens of the texts that the canvas alone is measured with."""


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


@contextmanager
def serving(app: Path, **settings: str) -> Iterator[str]:
    """Serve an app, and give its address once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(app)]
    server = subprocess.Popen(
        [*command, f"--server.port={port}", "--server.headless=true"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while server.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health")
                break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()


def drawn_after(page: Page, event: str) -> float:
    """Return milliseconds from a change in the canvas to the frame that shows it."""
    took: float = page.locator(".tokens").evaluate(
        """async (tokens, event) => {
            const view = tokens.closest(".view"), began = performance.now();
            if (event.startsWith("Arrow"))
                tokens.dispatchEvent(new KeyboardEvent("keydown", { key: event, bubbles: true }));
            else {
                const lens = view.querySelector(".lens");
                lens.value = event;
                lens.dispatchEvent(new Event("change"));
            }
            await new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)));
            return performance.now() - began;
        }""",
        event,
    )
    return took


def measure_canvas(browser: Browser, tokens: int) -> None:
    """Print how much the canvas of a text is sent, and how fast it selects and recolours."""
    with serving(ROOT / "benchmarks" / "canvas_app.py", CANVAS_TOKENS=str(tokens)) as url:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        sizes: list[int] = []
        page.on(
            "websocket",
            lambda socket: socket.on("framereceived", lambda frame: sizes.append(len(frame))),
        )
        page.goto(url)
        expect(page.locator(".tokens span").first).to_be_visible(timeout=120_000)
        selected = [drawn_after(page, "ArrowRight") for _ in range(3 * ROUNDS)]
        lenses = ("surprisal", "score-minus-threshold", "layers-used")
        recoloured = [drawn_after(page, lens) for _ in range(ROUNDS) for lens in lenses]
        page.close()
    print(
        f"canvas of {tokens:,} tokens and 60 sites: {max(sizes):,} bytes; a key until the token "
        f"is drawn as selected, {statistics.median(selected):.0f} ms; another lens, "
        f"{statistics.median(recoloured):.0f} ms"
    )


def main() -> None:
    """Print the times."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(FLAGS))
        for tokens in CANVAS_SIZES:
            measure_canvas(browser, tokens)
        with serving(ROOT / "app.py") as url:
            page = browser.new_page()
            page.goto(url)
            first = seconds_to_colour(page, text(0))
            later = [seconds_to_colour(page, text(number)) for number in range(1, ROUNDS + 1)]
        browser.close()
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
