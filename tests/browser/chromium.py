"""Finds a Chromium, or installs one. Run as a program it fails where none can be had."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


class NoChromiumError(Exception):
    """No Chromium runs on this machine."""


def find_chromium() -> str:
    """Return the path of a Chromium that starts.

    Raises
    ------
    NoChromiumError
        If there is none, or ``SKIPVIZ_CHROMIUM`` names something else.
    """
    named = os.environ.get("SKIPVIZ_CHROMIUM")
    if named:
        if _starts(named):
            return named
        raise NoChromiumError(
            f"SKIPVIZ_CHROMIUM names {named}, which does not start as a browser. Correct it, or "
            "unset it to have one found."
        )
    for path in _candidates():
        if _starts(path):
            return path
    raise NoChromiumError(
        "No Chromium starts on this machine, and the page is not tested without one. Install one "
        "(`make browser` tries apt and Playwright), or name one in SKIPVIZ_CHROMIUM."
    )


def install_chromium() -> None:
    """Install with apt as root, else with Playwright; what they print is the user's to see."""
    apt = shutil.which("apt-get") is not None and os.geteuid() == 0
    if apt:
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "-y", "chromium"]):
            subprocess.run(["apt-get", "-qq", *command], check=False, env=quiet)
        if any(_starts(path) for path in _candidates()):
            return
    playwright = [sys.executable, "-m", "playwright", "install", "chromium"]
    subprocess.run([*playwright, "--with-deps"] if apt else playwright, check=False)


def _candidates() -> Iterator[str]:
    for name in NAMES:
        path = shutil.which(name)
        if path:
            yield path
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    if Path(own).exists():
        yield own


def _starts(path: str) -> bool:
    """Tell a browser from a script that only says where to get one."""
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and "Chrom" in done.stdout


def main() -> None:
    """Find a Chromium, or install one and find that."""
    try:
        find_chromium()
    except NoChromiumError:
        if os.environ.get("SKIPVIZ_CHROMIUM"):
            raise
        install_chromium()
        find_chromium()


if __name__ == "__main__":
    try:
        main()
    except NoChromiumError as error:
        sys.exit(str(error))
