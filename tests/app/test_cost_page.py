from __future__ import annotations

import io
from pathlib import Path

import polars as pl
import pytest
from streamlit.testing.v1 import AppTest

import skipviz
from skipviz.analysis.timing.bench_rows import write_bench
from skipviz.analysis.timing.measured import RUNS
from skipviz.analysis.timing.parts import flops_by_part
from skipviz.analysis.timing.savings import WorkSaved, savings
from tests import tiny
from tests.app.pages import PATIENCE, page_of_text, until
from tests.folders import write_gated
from tests.plots.test_timing import BENCHES, planted_cost


def said(page: AppTest) -> str:
    return " ".join(
        each.value for kind in (page.markdown, page.caption, page.info) for each in kind
    )


def cost_of(folder: Path) -> AppTest:
    """The page after a text was traced."""
    page = AppTest.from_function(page_of_text, args=("cost_page", str(folder), tiny.TEXT, None))
    return page.run(timeout=PATIENCE)


def measured(page: AppTest) -> None:
    page.button(key="try cost").click()
    until(page, lambda: "Measured on" in said(page))


@pytest.mark.slow
def test_flops_stand_at_once(tmp_path: Path, dense_folder: Path) -> None:
    folder = write_gated(tmp_path / "gated", backbone=dense_folder)
    page = cost_of(folder)
    assert not page.exception
    first = said(page)
    assert "The decisions save" in first
    assert "Nothing is measured before you ask" in first
    assert "In prefill" not in first
    table = page.dataframe[0].value
    trace = skipviz.trace(skipviz.load(folder), tiny.TEXT)
    assert f"The text: mine, {len(trace)} tokens." in first
    assert "Time unknown before the first such run here." in first
    wanted = flops_by_part(trace)["flops"].sum()
    assert table["as decided, GFLOPs"].sum() == pytest.approx(wanted / 1e9)


@pytest.mark.long
def test_times_stand_when_asked(tmp_path: Path, dense_folder: Path) -> None:
    folder = write_gated(tmp_path / "gated", backbone=dense_folder)
    page = cost_of(folder)
    measured(page)
    now = said(page)
    for words in ("In prefill, gathered, skipping", "In decode, gathered, skipping", "7 rounds",
                  "An estimate, not measured", "Layers used explain"):  # fmt: skip
        assert words in now
    labels = [each.label for each in page.metric]
    assert labels[:4] == ["Arrived, prefill", "Time over dense, prefill", "Arrived, decode",
                          "Time over dense, decode"]  # fmt: skip


@pytest.mark.slow
def test_a_dense_model_is_timed_and_the_rest_is_unknown(dense_folder: Path) -> None:
    page = cost_of(dense_folder)
    measured(page)
    assert "so there is nothing to save" in said(page)
    assert page.dataframe[-1].value["p99, ms"].isna().any()
    assert page.dataframe[-1].proto.placeholder == "unknown"
    assert "the slowest 1% from 100 on" in said(page)
    assert not page.metric


def pressed_twice(folder: str, text: str) -> None:
    import streamlit as st

    import skipviz
    from skipviz.app.jobs import Request
    from skipviz.app.views.cost_page import _begin

    request = Request(model=folder, documents=(skipviz.Document("mine", text),))
    trace = skipviz.trace(skipviz.load(folder), text)
    first, second = (_begin(request, trace) for _ in range(2))
    for job in (first, second):
        job.stop.set()
    st.markdown(f"measured anew: {first is not second}")


def test_each_press_measures_anew(dense_folder: Path) -> None:
    page = AppTest.from_function(pressed_twice, args=(str(dense_folder), tiny.TEXT))
    page.run(timeout=PATIENCE)
    assert not page.exception
    assert "measured anew: True" in said(page)


def of_an_encoder() -> None:
    import skipviz
    from skipviz.app.jobs import Request
    from skipviz.app.views.cost_page import _offer
    from tests import encoders, tiny

    model = skipviz.from_parts(encoders.pabee(), tiny.tokenizer(), name="pabee")
    request = Request(model="pabee", documents=(skipviz.Document("mine", tiny.TEXT),))
    _offer(request, skipviz.trace(model, tiny.TEXT))


def test_encoders_are_not_offered_to_be_timed() -> None:
    page = AppTest.from_function(of_an_encoder).run(timeout=PATIENCE)
    assert not page.exception
    assert "predicts no next token" in said(page)
    assert not page.button


def of_many_texts() -> None:
    import skipviz
    from skipviz.app.jobs import Request
    from skipviz.app.views.cost_page import _offer
    from tests.synthetic import make_trace

    request = Request(model="synthetic", documents=(skipviz.Document("mine", "text"),))
    _offer(request, make_trace(tokens=34, sequences=17))


def test_of_many_texts_it_is_said_which_are_run() -> None:
    page = AppTest.from_function(of_many_texts).run(timeout=PATIENCE)
    assert not page.exception
    assert "34 tokens, of which the first 16 texts are run." in said(page)


@pytest.mark.parametrize(
    ("flops", "gathered", "arrived"),
    [(0.4, 0.8, "0.50"), (0.4, 1.2, "none"), (None, 0.8, "unknown"), (0.001, 0.8, None),
     (-0.1, 0.8, None)],
)  # fmt: skip
def test_what_arrived_is_shown_where_something_is_saved(
    flops: float | None, gathered: float, arrived: str | None
) -> None:
    runs = pl.DataFrame(
        [
            {"round": 0, "phase": "prefill", "runtime": runtime, "sequence": 0, "token": None,
             "tokens": 9, "layers_used": 4.0, "seconds": seconds}
            for runtime, seconds in (("dense", 1.0), ("gathered", gathered))
        ],
        schema=RUNS,
    )  # fmt: skip
    found = savings(runs, {"prefill": WorkSaved(flops=flops)})
    page = AppTest.from_function(numbers_alone)
    page.session_state["found"] = planted_cost(savings=found)
    page.run(timeout=PATIENCE)
    assert not page.exception
    shown = {each.label: each.value for each in page.metric}
    assert shown.get("Arrived, prefill") == arrived
    assert "Time over dense, prefill" in shown


def numbers_alone() -> None:
    import streamlit as st

    from skipviz.app.views.cost_page import _numbers

    _numbers(st.session_state["found"])


def benches_alone() -> None:
    import streamlit as st

    from skipviz.app.views.cost_page import show_benches

    show_benches(st.session_state["rows"], ["bench.parquet"])


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
    # The same cells again, with other times.
    later = BENCHES.filter(pl.col("cpu") == "One").with_columns(time_over_dense=0.5 * pl.col("low"))
    again = tmp_path / "again.parquet"
    write_bench(later, again)
    (uploader,) = page.file_uploader
    uploader.set_value(
        [("good.parquet", good.read_bytes(), "application/octet-stream"),
         ("*bad*.parquet", bad.getvalue(), "application/octet-stream")]
    ).run(timeout=PATIENCE)  # fmt: skip
    assert not page.exception
    assert "Skipping is faster" in said(page)
    assert "\\*bad\\*.parquet cannot be read as a bench" in page.error[0].value
    (uploader,) = page.file_uploader
    uploader.set_value(
        [("good.parquet", good.read_bytes(), "application/octet-stream"),
         ("again.parquet", again.read_bytes(), "application/octet-stream")]
    ).run(timeout=PATIENCE)  # fmt: skip
    assert "24 rows are in both files" in said(page)
    assert "Best is 0.82" in said(page), "those of the first file"
