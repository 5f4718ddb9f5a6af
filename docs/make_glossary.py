"""Writes docs/glossary.md from the terms that pages and help texts use: run it after a change.

python docs/make_glossary.py
"""

from __future__ import annotations

from pathlib import Path

from skipviz.readings.glossary import GLOSSARY

PAGE = Path(__file__).parent / "glossary.md"


def glossary_page() -> str:
    """Return the glossary as Markdown, terms in alphabetical order."""
    rows = (f"- **{term}**: {GLOSSARY[term]}" for term in sorted(GLOSSARY, key=str.casefold))
    return "\n".join(
        [
            "# Glossary",
            "",
            "What the words of skipviz mean, on its pages, in its output and in its documentation.",
            "Change terms in `skipviz/readings/glossary.py`, then write this page with",
            "`python docs/make_glossary.py`.",
            "",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(glossary_page(), encoding="utf-8")
