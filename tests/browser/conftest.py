from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.browser.chromium import FLAGS, NoChromiumError, find_chromium
from tests.serving import free_port, wait_until_healthy

ROOT = Path(__file__).parents[2]
ARTIFACTS = Path(__file__).parent / "artifacts"

EXPECT_MS = 30_000
"""How long to wait for what is expected: the processors may be busy with another worker's tests."""

Serve = Callable[..., AbstractContextManager[str]]
Screenshot = Callable[[Page, str], Path]


# Not for the session: while Playwright is up its event loop counts as running in this thread,
# and tests elsewhere may want one of their own.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    try:
        executable = find_chromium()
    except NoChromiumError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        expect.set_options(timeout=EXPECT_MS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="package")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """``with serve(app_path, env) as url:`` runs a Streamlit app with the project's settings."""

    @contextmanager
    def run(app_path: Path, env: Mapping[str, str] | None = None) -> Iterator[str]:
        port = free_port()
        log = tmp_path_factory.mktemp("streamlit") / "server.log"
        command = [sys.executable, "-m", "streamlit", "run", str(app_path)]
        options = ["--server.headless=true", f"--server.port={port}"]
        with log.open("wb") as output:  # a pipe that nobody reads would stop the server
            process = subprocess.Popen(
                [*command, *options],
                cwd=ROOT,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_healthy(process, url, log)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    return run


@dataclass
class PageLog:
    """What a page asked for and complained of."""

    urls: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def expect_error(self, pattern: str) -> None:
        """Let errors that match a regular expression pass, such as that of a refused upload."""
        self.expected.append(pattern)

    def outside(self) -> list[str]:
        """Return what was asked of other machines."""
        return [
            url
            for url in self.urls
            if urlsplit(url).scheme not in ("data", "blob", "about")
            and urlsplit(url).hostname != "127.0.0.1"
        ]

    def unexpected(self) -> list[str]:
        """Return the errors that no test said it expects."""
        return [
            error
            for error in self.errors
            if not any(re.search(pattern, error) for pattern in self.expected)
        ]

    def on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")


@pytest.fixture
def page_log() -> PageLog:
    return PageLog()


@pytest.fixture
def page(browser: Browser, page_log: PageLog) -> Iterator[Page]:
    """Open a fresh page; at the end it must have kept to this machine and without errors."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.on("request", lambda request: page_log.urls.append(request.url))
    context.on("console", page_log.on_console)
    context.on("weberror", lambda error: page_log.errors.append(str(error.error)))
    page = context.new_page()
    page.on("websocket", lambda websocket: page_log.urls.append(websocket.url))
    yield page
    context.close()
    assert page_log.outside() == [], "the page asked other machines"
    assert page_log.unexpected() == [], "the page logged errors"


@pytest.fixture
def elsewhere(browser: Browser) -> Iterator[Page]:
    """A page of another visitor."""
    context = browser.new_context()
    yield context.new_page()
    context.close()


@pytest.fixture
def screenshot() -> Screenshot:
    """``screenshot(page, name)`` saves the whole page for someone to look at."""

    def save(page: Page, name: str) -> Path:
        path = ARTIFACTS / f"{name}.png"
        size = page.viewport_size
        assert size is not None
        # Streamlit scrolls its main part, not the document; show it in a window that holds it all.
        height = page.get_by_test_id("stMain").evaluate("main => main.scrollHeight")
        page.set_viewport_size({**size, "height": max(size["height"], height)})
        page.screenshot(path=path)
        page.set_viewport_size(size)
        return path

    return save


@pytest.fixture(scope="package")
def url(serve: Serve) -> Iterator[str]:
    """The address of a running app, one for all tests of this process.

    A text that one test has traced is known to those after it.
    """
    with serve(ROOT / "app.py") as address:
        yield address


@pytest.fixture(scope="package")
def counted_url(serve: Serve) -> Iterator[str]:
    """The address of an app that says how often a model was run."""
    with serve(Path(__file__).parent / "counted_app.py") as address:
        yield address
