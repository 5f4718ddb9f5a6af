"""The glossary page is written from the terms that pages and help texts use."""

from __future__ import annotations

import runpy
from pathlib import Path

from skipviz.readings.glossary import GLOSSARY

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_holds_every_term_and_is_of_today() -> None:
    page = (DOCS / "glossary.md").read_text(encoding="utf-8")
    for term, meaning in GLOSSARY.items():
        assert f"- **{term}**: {meaning}\n" in page
    made = runpy.run_path(str(DOCS / "make_glossary.py"))["glossary_page"]()
    assert page == made, "run python docs/make_glossary.py"
