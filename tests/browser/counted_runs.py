"""What counted_app.py says."""

from __future__ import annotations

import re

from playwright.sync_api import Page

START_MS = 120_000
"""For an app that has just started."""


def runs(page: Page) -> int:
    """Return how often a model was run since the app started."""
    said = page.get_by_text(re.compile(r"^Model runs: \d+$")).inner_text(timeout=START_MS)
    return int(said.split(": ")[1])
