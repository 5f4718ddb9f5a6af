"""How long the page takes to open and to colour a text in a real browser; what the canvas takes.

``PYTHONPATH=. python benchmarks/page.py [canvas] [opening] [pages] [text]``; all of them if none
is named. The time to colour a text is compared with the bare run of the model on the same text,
taken right after each, so that the ratio says what the page adds. The canvas is measured alone,
with planted numbers and 60 sites, from the event to the frame that shows it.
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

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

import skipviz
from skipviz.app.main import PAGES
from tests.browser.chromium import FLAGS, find_chromium

ROOT = Path(__file__).parents[1]
SENTENCE = "The keeper counted the ships again, number {}, and wrote them down. "
ROUNDS = 5
SHADOWS = "[...document.querySelectorAll('.st-key-workbench *')].map(each => each.shadowRoot)"
"""The roots that components draw in, which a selector of the document does not see into."""
COLOURED = f"() => {SHADOWS}.some(root => root?.querySelector('.tokens span.selected'))"
CONTAINS = f"""words => {SHADOWS}.some(
    root => root?.querySelector('.tokens')?.textContent.includes(words))"""
OPENED = """before => document.querySelector("[data-test-script-state=notRunning]")
    && ![before, undefined].includes(document.querySelector("h2")?.textContent)"""
WINDOW = {"width": 1440, "height": 900}
CANVAS_SIZES = (800, 5_000, 50_000)
"""Tokens of the texts that the canvas alone is measured with."""


def text(number: int) -> str:
    """Return a text of some 500 tokens that the app has not seen."""
    return "".join(SENTENCE.format(f"{number}.{line}") for line in range(28))


def until(page: Page, script: str, arg: str = "") -> None:
    """Wait until a script is true; looked at 20 times a second, as each look takes from the run."""
    page.wait_for_function(script, arg=arg, polling=50, timeout=120_000)


def seconds_to_colour(page: Page, words: str) -> float:
    """Paste, press the button and wait for the coloured text."""
    box = page.get_by_label("Paste a text")
    box.fill(words)
    box.press("Tab")
    page.wait_for_timeout(1_000)
    began = time.perf_counter()
    page.get_by_role("button", name="Trace the text").click()
    number = words.split("number ")[1].split(".")[0]
    until(page, CONTAINS, f"number {number}.27")
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


def seconds_to_open(context: BrowserContext, url: str) -> tuple[Page, float]:
    """Open a tab; return it with the seconds until the sample is coloured."""
    page = context.new_page()
    began = time.perf_counter()
    page.goto(url, wait_until="commit")
    until(page, COLOURED)
    return page, time.perf_counter() - began


def ready(page: Page) -> None:
    """Wait until the side bar is there, which is when what models need is imported."""
    expect(page.get_by_role("button", name="Trace the text")).to_be_visible(timeout=120_000)
    expect(page.locator("[data-test-script-state=notRunning]")).to_be_attached(timeout=120_000)


def measure_opening(browser: Browser) -> None:
    """Print how long it takes until the sample is coloured."""
    with serving(ROOT / "app.py") as url:
        context = browser.new_context(viewport=WINDOW)
        page, first = seconds_to_open(context, url)
        ready(page)
        page.wait_for_timeout(8_000)  # the model is loaded in the background
        page.close()
        tabs, strangers = [], []
        for _ in range(ROUNDS):
            page, seconds = seconds_to_open(context, url)
            tabs.append(seconds)
            ready(page)
            page.close()
            stranger = browser.new_context(viewport=WINDOW)
            page, seconds = seconds_to_open(stranger, url)
            strangers.append(seconds)
            ready(page)
            stranger.close()
        context.close()
    print(
        f"address to coloured sample: first after the server started, {first:.2f} s; a new tab, "
        f"{statistics.median(tabs):.2f} s; a browser that was never here, "
        f"{statistics.median(strangers):.2f} s"
    )


def measure_pages(browser: Browser) -> None:
    """Print how long each page takes to be drawn when it is opened first on a server."""
    others = list(PAGES)[1:]
    taken: dict[str, list[float]] = {title: [] for title in others}
    for _ in range(2):
        with serving(ROOT / "app.py") as url:
            page = browser.new_page(viewport={"width": 1920, "height": 900})
            page.goto(url)
            ready(page)
            page.wait_for_timeout(8_000)
            for title in others:
                heading = page.get_by_role("heading", level=2).first.text_content()
                began = time.perf_counter()
                page.get_by_role("link", name=title, exact=True).click()
                until(page, OPENED, str(heading))
                taken[title].append(time.perf_counter() - began)
                page.wait_for_timeout(1_500)  # what it computes by itself
            page.close()
    said = ", ".join(f"{title} {statistics.median(each):.2f} s" for title, each in taken.items())
    print(f"first open of a page: {said}")


def measure_text(browser: Browser) -> None:
    """Print how long a text takes from the click, beside the bare run of the model on it."""
    model = skipviz.load("smollm2-gated")
    skipviz.trace(model, text(0))
    ratios, later = [], []
    with serving(ROOT / "app.py") as url:
        page = browser.new_page(viewport=WINDOW)
        page.goto(url)
        first = seconds_to_colour(page, text(0))
        for number in range(1, ROUNDS + 1):
            later.append(seconds_to_colour(page, text(number)))
            page.wait_for_timeout(1_500)  # figures below are drawn
            began = time.perf_counter()
            traced = skipviz.trace(model, text(number))
            ratios.append(later[-1] / (time.perf_counter() - began))
    print(
        f"click to coloured text, {len(traced)} tokens: {statistics.median(later):.2f} s, "
        f"{statistics.median(ratios):.2f} of the bare trace on all cores; "
        f"the first text, with loading the model, {first:.2f} s"
    )


def measure_canvases(browser: Browser) -> None:
    """Print what canvases of several sizes take."""
    for tokens in CANVAS_SIZES:
        measure_canvas(browser, tokens)


MEASURED = {
    "canvas": measure_canvases,
    "opening": measure_opening,
    "pages": measure_pages,
    "text": measure_text,
}


def main() -> None:
    """Print what is asked for."""
    asked = sys.argv[1:] or list(MEASURED)
    if unknown := [name for name in asked if name not in MEASURED]:
        sys.exit(f"{unknown[0]} is not measured. Choose from {', '.join(MEASURED)}.")
    expect.set_options(timeout=60_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(FLAGS))
        for name in asked:
            MEASURED[name](browser)
        browser.close()


if __name__ == "__main__":
    main()
