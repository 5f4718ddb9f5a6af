"""The notebooks as they are committed; that they run is checked by running them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))
MOST_BYTES = 300_000
# A path of somebody's machine: from the root or a drive, two names deep. A web address is none.
ABSOLUTE = re.compile(r"(?<![\w.:/])(/[\w.-]+){2,}|\b[A-Z]:\\\\?\w|file://")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    chosen: Path = request.param
    return chosen


@pytest.fixture
def cells(path: Path) -> list[Any]:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


def test_every_cell_was_run_in_order_without_a_complaint(cells: list[Any]) -> None:
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("application/vnd.plotly.v1+json" in output.get("data", {}) for output in outputs)
    for output in outputs:
        assert output.output_type != "error"
        assert output.get("name") != "stderr"


def test_nothing_tells_of_the_machine_that_ran_it(path: Path) -> None:
    for string in _strings(nbformat.read(path, as_version=4)):
        found = ABSOLUTE.search(string)
        assert found is None, found


def test_paths_are_told_from_addresses_and_markup() -> None:
    for seen in ("/home/someone/x.py", "in '/srv/project'", r"C:\Users", "file:///tmp/x"):
        assert ABSOLUTE.search(seen), seen
    for fine in ("https://docs.pola.rs/api/x", "runs/mine/model", "</td></tr>", "1/2", "and/or/x"):
        assert not ABSOLUTE.search(fine), fine


def test_figures_are_small_and_fetch_nothing(path: Path) -> None:
    assert path.stat().st_size < MOST_BYTES
    content = path.read_text(encoding="utf-8")
    assert "<script" not in content
    assert "cdn." not in content


def _strings(value: Any) -> list[str]:
    """Return every string in a notebook, but for numbers that Plotly writes as base64."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = [each for name, each in value.items() if name != "bdata"]
    return [string for each in value for string in _strings(each)] if type(value) is list else []
