from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import skipviz
from tests import tiny
from tests.app.pages import PATIENCE, page_of_text, until
from tests.folders import write_gated


def codes(page: AppTest) -> list[str]:
    return [each.value for each in page.caption if each.value.startswith("SKV")]


@pytest.mark.slow
def test_the_trace_is_checked_at_once_and_the_model_when_asked(
    tmp_path: Path, dense_folder: Path
) -> None:
    folder = write_gated(tmp_path / "gated", backbone=dense_folder)
    page = AppTest.from_function(page_of_text, args=("checkup_page", str(folder), tiny.TEXT))
    page.run(timeout=PATIENCE)
    assert not page.exception
    assert codes(page) == [
        "SKV013", "SKV007", "SKV011", "SKV014"
    ]  # fmt: skip
    found = skipviz.check(skipviz.load(folder, budget=0.8), tiny.TEXT)
    page.button(key="try checkup").click()
    until(page, lambda: "SKV001" in codes(page))
    assert set(codes(page)) == {each.code for each in found.findings}
    issues = sum(each.outcome == "issue" for each in found.findings)
    assert any(f"**{issues} issue" in each.value for each in page.markdown)
    assert "computed anyway" in " ".join(each.value for each in page.markdown)
