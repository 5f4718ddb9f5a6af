from __future__ import annotations

import io
import time
from pathlib import Path

import polars as pl
import pytest
from streamlit.testing.v1 import AppTest

import skipviz
from skipviz.analysis.timing.bench_rows import write_bench
from tests import tiny
from tests.folders import write_gated
from tests.plots.test_timing import BENCHES

PATIENCE = 60


def cost_of(folder: str, text: str) -> None:
    """The script of the page after a text was traced."""
    import skipviz
    from skipviz.app.components.run_button import PATHS, follow, jobs
    from skipviz.app.jobs import Request
    from skipviz.app.state import state
    from skipviz.app.views.cost_page import page

    request = Request(model=folder, documents=(skipviz.Document("mine", text),))
    if PATHS not in state().runs:
        follow(PATHS, lambda: jobs().submit(request), asked=request.key, request=request)
        state().runs[PATHS].job.future.result()
    page()


def said(page: AppTest) -> str:
    return " ".join(
        each.value for kind in (page.markdown, page.caption, page.info) for each in kind
    )


def measured(page: AppTest) -> AppTest:
    page.button(key="try cost").click()
    until = time.monotonic() + PATIENCE
    page.run(timeout=PATIENCE)
    while "Measured on" not in said(page) and time.monotonic() < until:
        page.run(timeout=PATIENCE)
        time.sleep(0.1)
    return page


@pytest.mark.slow
def test_flops_stand_at_once_and_times_when_asked(tmp_path: Path, dense_folder: Path) -> None:
    folder = write_gated(tmp_path / "gated", backbone=dense_folder)
    page = AppTest.from_function(cost_of, args=(str(folder), tiny.TEXT)).run(timeout=PATIENCE)
    assert not page.exception
    first = said(page)
    assert "The decisions save" in first
    assert "Nothing is measured before you ask" in first
    assert "In prefill" not in first
    table = page.dataframe[0].value
    trace = skipviz.trace(skipviz.load(folder), tiny.TEXT)
    wanted = skipviz.cost(skipviz.load(folder), trace, rounds=1, decoded=0).flops
    assert wanted is not None
    assert table["as decided, GFLOPs"].sum() == pytest.approx(wanted["flops"].sum() / 1e9)
    measured(page)
    assert not page.exception
    now = said(page)
    for words in ("In prefill, gathered, skipping", "In decode, gathered, skipping", "7 rounds",
                  "An estimate, not measured", "Layers used explain"):  # fmt: skip
        assert words in now
    labels = [each.label for each in page.metric]
    assert labels[:4] == ["Arrived, prefill", "Time over dense, prefill", "Arrived, decode",
                          "Time over dense, decode"]  # fmt: skip


@pytest.mark.slow
def test_a_dense_model_is_timed_and_the_rest_is_unknown(dense_folder: Path) -> None:
    page = AppTest.from_function(cost_of, args=(str(dense_folder), tiny.TEXT)).run(timeout=PATIENCE)
    measured(page)
    assert not page.exception
    assert "so there is nothing to save" in said(page)
    assert not page.metric


def benches_alone() -> None:
    import streamlit as st

    from skipviz.app.views.cost_page import show_benches

    show_benches(st.session_state["rows"])


def test_benches_of_two_machines_are_shown() -> None:
    page = AppTest.from_function(benches_alone)
    page.session_state["rows"] = BENCHES
    page.run(timeout=PATIENCE)
    assert not page.exception
    assert "Skipping is faster than the dense model" in page.markdown[0].value
    (along,) = page.segmented_control
    assert along.options == ["length", "budget"]
    along.set_value("budget").run(timeout=PATIENCE)
    assert not page.exception


def test_uploads_are_read_and_others_refused(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.parquet", io.BytesIO()
    write_bench(BENCHES.filter(pl.col("cpu") == "One"), good)
    pl.DataFrame({"a": [1]}).write_parquet(bad)

    def script() -> None:
        from skipviz.app.views.cost_page import page

        page()

    page = AppTest.from_function(script).run(timeout=PATIENCE)
    assert "first" in page.info[0].value, "nothing was traced, and benches can be shown"
    (uploader,) = page.file_uploader
    uploader.set_value(
        [("good.parquet", good.read_bytes(), "application/octet-stream"),
         ("*bad*.parquet", bad.getvalue(), "application/octet-stream")]
    ).run(timeout=PATIENCE)  # fmt: skip
    assert not page.exception
    assert "Skipping is faster" in said(page)
    assert "\\*bad\\*.parquet cannot be read as a bench" in page.error[0].value
