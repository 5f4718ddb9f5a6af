"""What counted_app.py says."""

from __future__ import annotations

import re

from playwright.sync_api import Page


def runs(page: Page) -> int:
    """Return how often a model was run since the app started."""
    said = page.get_by_text(re.compile(r"^Model runs: \d+$")).inner_text()
    return int(said.split(": ")[1])
