"""The page of attribution: which figures offer a click."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from skipviz.app.views.attributions import over_depth
from tests import tiny
from tests.app.pages import PATIENCE, page_of_text, until_ended
from tests.folders import write_gated


@pytest.mark.parametrize(("scope", "offered"), [("The whole text", True), ("This token", False)])
def test_a_click_is_offered_only_where_it_leaves_the_answer(
    tmp_path: Path, dense_folder: Path, monkeypatch: pytest.MonkeyPatch, scope: str, offered: bool
) -> None:
    charts: set[str] = set()
    monkeypatch.setattr(over_depth, "clicked_point", charts.add)
    monkeypatch.setattr(over_depth, "select_cell", lambda _, __, chart: charts.add(chart))
    folder = write_gated(tmp_path / "gated", backbone=dense_folder)
    args = ("attribution_page", str(folder), tiny.TEXT[:40])
    page = AppTest.from_function(page_of_text, args=args).run(timeout=PATIENCE)
    page.button_group(key="depth_scope").set_value(scope)
    page.number_input(key="depth_steps").set_value(2)
    (button,) = [each for each in page.button if each.label.startswith("Attribute over depth")]
    button.click().run(timeout=PATIENCE)
    until_ended(page)
    assert any("Decisions for which shares" in each.value for each in page.markdown)
    said = any(each.value.startswith("Click a cell or a point") for each in page.caption)
    assert said == offered
    assert charts == ({"depth_map", "share_scatter"} if offered else set())
