from __future__ import annotations

import time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import skipviz
from tests import tiny
from tests.folders import write_gated

PATIENCE = 60


def checkup_of(folder: str, text: str) -> None:
    """The script of the check-up's page after a text was traced."""
    import skipviz
    from skipviz.app.components.run_button import PATHS, follow, jobs
    from skipviz.app.jobs import Request
    from skipviz.app.state import state
    from skipviz.app.views.checkup_page import page

    request = Request(model=folder, documents=(skipviz.Document("mine", text),), budget=0.8)
    if PATHS not in state().runs:
        follow(PATHS, lambda: jobs().submit(request), asked=request.key, request=request)
        state().runs[PATHS].job.future.result()
    page()


@pytest.mark.slow
def test_the_trace_is_checked_at_once_and_the_model_when_asked(
    tmp_path: Path, dense_folder: Path
) -> None:
    folder = write_gated(tmp_path / "gated", backbone=dense_folder)
    page = AppTest.from_function(checkup_of, args=(str(folder), tiny.TEXT)).run(timeout=PATIENCE)
    assert not page.exception
    said = [each.value for each in page.caption]
    assert [code for code in said if code.startswith("SKV")] == [
        "SKV013", "SKV007", "SKV011", "SKV014"
    ]  # fmt: skip
    found = skipviz.check(skipviz.load(folder, budget=0.8), tiny.TEXT)
    page.button(key="try checkup").click()
    until = time.monotonic() + PATIENCE
    while "SKV001" not in said and time.monotonic() < until:
        page.run(timeout=PATIENCE)
        said = [each.value for each in page.caption]
        time.sleep(0.1)
    assert not page.exception
    assert {code for code in said if code.startswith("SKV")} == {
        each.code for each in found.findings
    }
    issues = sum(each.outcome == "issue" for each in found.findings)
    assert any(f"**{issues} issue" in each.value for each in page.markdown)
    assert "computed anyway" in " ".join(each.value for each in page.markdown)
