"""The guides to adding an analysis, a figure, a page and a command, run."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from streamlit.testing.v1 import AppTest
from typer.testing import CliRunner

from skipviz.traces import Trace
from tests.synthetic import make_trace

GUIDE = Path(__file__).parents[2] / "docs" / "contributing"
TOYS = sorted(path.stem for path in GUIDE.glob("toy_*.py"))


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(GUIDE))
    yield
    for name in TOYS:
        sys.modules.pop(name, None)


def toy(name: str) -> Any:
    return importlib.import_module(f"toy_{name}")


@pytest.fixture
def trace() -> Trace:
    """Two texts of five tokens; site 0 is skipped by the last two of one and all of the other."""
    ran = np.ones((10, 8), dtype=np.uint8)
    ran[3:, 0] = 0
    ran[[1, 3, 5], 1] = 0
    return make_trace(tokens=10, sequences=2, exec_count=ran)


def test_the_analysis_counts_within_a_text(trace: Trace) -> None:
    found = toy("analysis").skip_runs(trace)
    assert found["tokens"].to_list() == [5, 1, *[0] * 6]
    assert found["site"].to_list() == list(range(8))


def test_the_figure_draws_what_was_counted(trace: Trace) -> None:
    runs = toy("analysis").skip_runs(trace)
    attention, mlp = toy("figure").skip_run_bars(trace, runs).data
    assert (list(attention.x), list(attention.y)) == ([1, 2, 3, 4], [5, 0, 0, 0])
    assert (list(mlp.x), list(mlp.y)) == ([1, 2, 3, 4], [1, 0, 0, 0])


def test_the_reading_answers_in_a_sentence(trace: Trace) -> None:
    read = toy("reading").skip_run_reading
    runs = toy("analysis").skip_runs(trace)
    assert read(runs) == "Layer 1 (attn) is skipped by 5 tokens in a row."
    assert read(runs.with_columns(tokens=0)) == "Every token runs every unit."


def _script() -> None:
    import toy_page

    toy_page.page()


def test_the_page_shows_figure_sentence_and_table(
    trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = AppTest.from_function(_script, default_timeout=60).run()
    assert not app.exception
    assert "first" in app.info[0].value, "nothing has been traced yet"
    monkeypatch.setattr(toy("page"), "traced_text", lambda **_: (None, trace))
    app.run()
    assert not app.exception
    assert [each.value for each in app.markdown] == [
        "Layer 1 (attn) is skipped by 5 tokens in a row."
    ]
    assert len(app.get("plotly_chart")) == len(app.get("download_button")) == 1


def test_the_command_prints_them(trace: Trace, tmp_path: Path) -> None:
    trace.save(tmp_path / "trace.parquet")
    app = typer.Typer()
    app.command()(toy("command").runs)
    outcome = CliRunner().invoke(app, [str(tmp_path / "trace.parquet"), "--sites", "2"])
    assert outcome.exit_code == 0
    assert outcome.stdout.splitlines() == [
        "layer 1 attn: 5 tokens in a row",
        "layer 1 mlp: 1 tokens in a row",
    ]


def test_every_toy_has_a_guide_that_names_it() -> None:
    guides = "".join(path.read_text(encoding="utf-8") for path in GUIDE.glob("*.md"))
    assert len(TOYS) >= 6
    for name in TOYS:
        assert f"{name}.py" in guides
