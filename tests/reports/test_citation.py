from __future__ import annotations

from pathlib import Path

import yaml

from skipviz.reports.citation import bibtex

ROOT = Path(__file__).parents[2]


def test_the_entry_says_what_the_citation_file_says() -> None:
    said = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    entry = bibtex()
    assert f"{{{{{said['title']}}}}}" in entry
    assert f"{{{{{said['authors'][0]['name']}}}}}" in entry
    assert f"{{{said['license']}}}" in entry
    assert f"{{{said['version']}}}" in entry
