"""The offer of thresholds for a kind of text, as Streamlit runs it without a browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import skipviz
from skipviz.models import read_settings
from tests import tiny
from tests.app.pages import PATIENCE, until_ended
from tests.folders import write_gated


def offered(folder: str, text: str) -> None:
    """The script of a page with the offer alone."""
    import skipviz
    from skipviz.app.components.run_button import jobs
    from skipviz.app.jobs import Request
    from skipviz.app.views.own_thresholds_offer import offer_thresholds

    request = Request(model=folder, documents=(skipviz.Document("mine", text),), budget=0.8)
    offer_thresholds(jobs().submit(request).future.result(), request)


@pytest.mark.slow
def test_a_missed_budget_offers_thresholds_for_the_text(tmp_path: Path, dense_folder: Path) -> None:
    folder = write_gated(tmp_path / "gated", backbone=dense_folder)
    text = tiny.TEXT * 3
    realised = skipviz.trace(skipviz.load(folder), text).budget_missed
    assert realised is not None
    page = AppTest.from_function(offered, args=(str(folder), text))
    page.run(timeout=PATIENCE)
    assert page.code[0].value == f"skipviz calibrate {folder} --budget 0.8 --text FILE"
    page.text_input(key="own_name").set_value("german")
    page.button(key="try own thresholds").click().run(timeout=PATIENCE)
    until_ended(page)
    assert not page.error, page.error[0].value
    settings = read_settings(folder)
    assert settings.policies == ["learned", "german"]
    kept = settings.own["german"]
    said = " ".join(each.value for each in page.markdown)
    assert f"threshold {kept.thresholds[0.8]:.6f} comes to {kept.realised[0.8]:.3f}" in said
    page.button(key="own_trace").click()
    page.run(timeout=PATIENCE)
    assert not page.exception
    again = page.session_state["skipviz"].runs["paths"]
    assert (again.request.policy, again.request.budget) == ("german", 0.8)
    traced = again.job.future.result(timeout=PATIENCE)
    assert traced.run["policy"].item() == "german"
    assert (traced.matrix("threshold") == kept.thresholds[0.8]).mean() == 1


@pytest.mark.slow
def test_a_name_that_is_a_policy_is_refused_in_a_sentence(
    tmp_path: Path, dense_folder: Path
) -> None:
    folder = write_gated(tmp_path / "gated", backbone=dense_folder)
    page = AppTest.from_function(offered, args=(str(folder), tiny.TEXT * 3))
    page.run(timeout=PATIENCE)
    page.text_input(key="own_name").set_value("learned")
    page.button(key="try own thresholds").click().run(timeout=PATIENCE)
    until_ended(page)
    assert "choose another" in page.error[0].value
    assert read_settings(folder).policies == ["learned"]
