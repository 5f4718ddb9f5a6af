from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import plotly.graph_objects as go
import pytest

from skipviz.errors import InputError, MissingExtraError
from skipviz.plots.style.saving import printable, save_figure
from skipviz.plots.whole_text import layers_used_histogram
from tests.synthetic import make_trace

FIGURE = layers_used_histogram(make_trace(tokens=12))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What kaleido is asked to draw; it needs a browser and is not part of the tests."""
    asked: list[Any] = []

    def calc_fig_sync(figure: go.Figure, *, opts: Any, kopts: Any) -> bytes:
        asked.append((figure, opts, kopts))
        return b"image"

    monkeypatch.setitem(sys.modules, "kaleido", SimpleNamespace(calc_fig_sync=calc_fig_sync))
    return asked


def test_a_png_has_the_dots_of_its_size_in_print(tmp_path: Path, drawn: list[Any]) -> None:
    save_figure(FIGURE, tmp_path / "a.png", width_mm=254.0, dpi=300)
    (figure, options, more), *_ = drawn
    assert options["width"] * options["scale"] == pytest.approx(3000)  # ten inches
    assert options["height"] == FIGURE.layout.height
    assert more == {"mathjax": False}
    assert figure.layout.paper_bgcolor == "#FFFFFF"
    assert (tmp_path / "a.png").read_bytes() == b"image"


def test_the_figure_stays_as_it_is() -> None:
    before = FIGURE.to_json()
    assert printable(FIGURE).layout.font.color == "#000000"
    assert FIGURE.to_json() == before


def test_without_kaleido_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'skipviz\[print\]'"):
        save_figure(FIGURE, tmp_path / "a.svg")
    assert list(tmp_path.iterdir()) == []


def test_without_a_browser_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class ChromeNotFoundError(RuntimeError):
        pass

    def none(*_: Any, **__: Any) -> bytes:
        raise ChromeNotFoundError

    monkeypatch.setitem(sys.modules, "kaleido", SimpleNamespace(calc_fig_sync=none))
    with pytest.raises(MissingExtraError, match="BROWSER_PATH"):
        save_figure(FIGURE, tmp_path / "a.svg")


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.gif", {}), ("a", {}), ("a.svg", {"width_mm": 0.0}), ("a.png", {"dpi": 0})],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path, drawn: list[Any], name: str, options: dict[str, Any]
) -> None:
    with pytest.raises(InputError):
        save_figure(FIGURE, tmp_path / name, **options)
    assert drawn == []
