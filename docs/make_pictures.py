"""Take the pictures of the documentation: ``python -m docs.make_pictures [NAME ...]``.

The app is served, used in a headless Chromium as a visitor would, on the sample, and looked at.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from benchmarks.page import ROOT, serving
from tests.browser.chromium import FLAGS, find_chromium
from tests.browser.tracing import expect_sample

FOLDER = ROOT / "docs" / "pictures"
COLOURS = 128
"""Of a picture: few enough to be small, and as many as ramps need to be smooth."""
PATIENCE_MS = 600_000
WINDOW = (1440, 900)
TALL = (1440, 1280)
TELEPHONE = (390, 844)


def settle(page: Page) -> None:
    """Wait until nothing runs, and figures stand still."""
    stop = page.get_by_role("button", name="Stop", exact=True)
    for _ in range(3):
        expect(page.locator("[data-test-script-state=notRunning]")).to_be_attached()
        expect(stop).to_have_count(0)
        page.wait_for_timeout(1_000)


def opened(page: Page, title: str) -> None:
    """Open a page of the app."""
    page.get_by_role("link", name=title, exact=True).click()
    settle(page)


def pressed(page: Page, title: str, button: str) -> None:
    """Open a page and start what it offers."""
    opened(page, title)
    page.get_by_role("button", name=button, exact=True).click()
    settle(page)


def take_tour(page: Page) -> None:
    """Go to the second step."""
    page.get_by_role("button", name="Take the tour: five steps").click()
    page.get_by_role("button", name="Next Shortcut").click()
    settle(page)


def ask_what_if(page: Page) -> None:
    """Have a cell decided otherwise."""
    opened(page, "What if")
    page.locator("canvas.map").click(position={"x": 150, "y": 90})
    settle(page)


def compare(page: Page) -> None:
    """Trace the sample's text at another budget, beside the sample."""
    page.get_by_test_id("stButtonGroup").get_by_text("Sample", exact=True).click()
    settle(page)
    page.get_by_role("radio", name="65%").click()
    settle(page)
    page.get_by_role("button", name="Trace the text").click()
    settle(page)
    opened(page, "Compare")


Steps = Callable[[Page], None]
PICTURES: dict[str, tuple[tuple[int, int], str, Steps]] = {
    "opening": (WINDOW, "light", settle),
    "opening-dark": (WINDOW, "dark", settle),
    "telephone": (TELEPHONE, "light", settle),
    "tour": (WINDOW, "light", take_tour),
    "what-if": (TALL, "light", ask_what_if),
    "compare": (TALL, "light", compare),
    "audit": (TALL, "light", lambda page: pressed(page, "Audit", "Audit this text")),
    "attribution": (
        TALL,
        "dark",
        lambda page: pressed(page, "Attribution", "Attribute over the text"),
    ),
    "clusters": (TALL, "light", lambda page: pressed(page, "Clusters", "Find clusters")),
    "layers": (TALL, "light", lambda page: opened(page, "Layers")),
    "policies": (TALL, "light", lambda page: opened(page, "Policies")),
    "cost": (TALL, "light", lambda page: opened(page, "Cost")),
}
"""Of each picture its window, its theme, and what is done before it is taken."""


def take(browser: Browser, url: str, name: str) -> Path:
    """Take a picture, as a visitor who has not been here."""
    (width, height), theme, steps = PICTURES[name]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if theme == "dark" else "light",
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(url)
    expect_sample(page)
    if width >= WINDOW[0]:  # else the side bar is folded away
        expect(page.get_by_role("button", name="Trace the text")).to_be_visible()
    steps(page)
    page.mouse.move(width - 2, height - 2)  # over nothing that would show a note
    page.wait_for_timeout(500)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    context.close()
    path = FOLDER / f"{name}.png"
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


def main() -> None:
    """Take the pictures that are named, or all."""
    names = sys.argv[1:] or list(PICTURES)
    if unknown := [name for name in names if name not in PICTURES]:
        sys.exit(f"There is no picture {unknown[0]!r}. Choose from {', '.join(PICTURES)}.")
    expect.set_options(timeout=PATIENCE_MS)
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright, serving(ROOT / "app.py") as url:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(FLAGS))
        for name in names:
            path = take(browser, url, name)
            print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB", flush=True)
        browser.close()


if __name__ == "__main__":
    main()
