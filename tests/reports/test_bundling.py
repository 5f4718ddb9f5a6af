from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import skipviz
from skipviz.errors import InputError
from skipviz.reports.viewer import CANVAS_SCRIPTS, viewer_script
from tests.cli.runner import run, sentence
from tests.reports.test_reporting import HOSTILE, Parsed
from tests.synthetic import make_trace

ROOT = Path(__file__).parents[2]


def test_each_trace_is_a_script_and_a_file(tmp_path: Path) -> None:
    trace = make_trace(tokens=12)
    skipviz.bundle({"fox": trace, "Fox!": make_trace(tokens=3)}, tmp_path / "page")
    found = sorted(path.name for path in (tmp_path / "page" / "traces").iterdir())
    assert found == ["Fox-2.js", "Fox-2.parquet", "fox.js", "fox.parquet"]
    script = (tmp_path / "page" / "traces" / "fox.js").read_text(encoding="utf-8")
    given = re.fullmatch(r'skipvizTrace\("fox", (.*)\);\n', script, flags=re.DOTALL)
    assert given is not None
    data = json.loads(given[1])
    kind, start, count = data["parts"]["used"]
    raw = base64.b64decode(data["bytes"])
    used = np.frombuffer(raw, dtype=kind, count=count, offset=start)
    assert used.tolist() == trace.tokens["layers_used"].to_list()
    saved = skipviz.Trace.load(tmp_path / "page" / "traces" / "fox.parquet")
    assert saved.decisions.equals(trace.decisions)


def test_names_and_texts_are_data(tmp_path: Path) -> None:
    skipviz.bundle({HOSTILE: make_trace(tokens=6, model=HOSTILE)}, tmp_path / "page")
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    found = Parsed(page)
    assert [each for tag, each in found.tags if tag == "script"] == [{"src": "viewer.js"}]
    assert HOSTILE in found.text
    assert "b" not in [tag for tag, _ in found.tags]


def test_the_canvas_is_the_one_of_the_app() -> None:
    """Its scripts are named in the same order where Streamlit gets them."""
    app = (ROOT / "skipviz/app/components/canvas.py").read_text(encoding="utf-8")
    listed = re.search(r"scripts=\(([^)]*)\)", app)
    assert listed is not None
    assert ("text", *re.findall(r'"(\w+)"', listed[1])) == CANVAS_SCRIPTS
    script = viewer_script()
    assert script.count("function canvasComponent(component)") == 1
    assert "export default" not in script
    assert "</script" not in script


@pytest.mark.parametrize(
    ("traces", "said"),
    [
        ({}, "no traces"),
        ({"a": make_trace(tokens=0)}, "'a' has 0 tokens"),
        ({"a": "fox.parquet"}, r"bundle takes Mapping\[str, Trace\] there"),
        ({1: make_trace(tokens=3)}, r"bundle takes Mapping\[str, Trace\] there"),
    ],
)
def test_nothing_to_show_is_refused(tmp_path: Path, traces: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        skipviz.bundle(traces, tmp_path / "page")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not an empty folder"):
        skipviz.bundle({"a": make_trace(tokens=3)}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_command_takes_saved_traces(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_trace(tokens=5).save(tmp_path / f"{name}.parquet")
    (tmp_path / "more").mkdir()
    make_trace(tokens=5).save(tmp_path / "more" / "one.parquet")
    out = tmp_path / "page"
    outcome = run("bundle", tmp_path / "one.parquet", tmp_path / "two.parquet", "--out", out)
    assert outcome.exit_code == 0, outcome.output
    assert (out / "index.html").exists()
    twice = run("bundle", tmp_path / "one.parquet", tmp_path / "more" / "one.parquet", "--out", out)
    assert "Two traces are called one" in sentence(twice)
