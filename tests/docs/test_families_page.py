"""The table of families in docs/families.md says what holds today."""

from __future__ import annotations

import pytest

from docs.make_families import MODELS, PAGE, row


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_the_table_of_families_is_of_today(name: str) -> None:
    if name == "HRM-Text":
        pytest.importorskip("transformers.models.hrm_text")
    assert row(name) in PAGE.read_text(encoding="utf-8"), "run python -m docs.make_families"


def test_the_table_has_no_other_rows() -> None:
    written = PAGE.read_text(encoding="utf-8").partition("docs.make_families -->")[2]
    rows = [line for line in written.partition("<!-- end -->")[0].splitlines() if line[:1] == "|"]
    assert [line.split(" | ")[0].removeprefix("| ") for line in rows[2:]] == list(MODELS)
