from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import skipviz.app
from skipviz.plots.style import palette
from tests.synthetic import make_trace


def luminance(rgb: np.ndarray) -> np.ndarray:
    share = rgb / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def contrast(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    high, low = np.maximum(a, b), np.minimum(a, b)
    return (high + 0.05) / (low + 0.05)


def test_text_on_every_colour_of_layers_used_is_readable() -> None:
    colours = palette.interpolate(palette.CIVIDIS, np.linspace(0, 1, 256))
    ink = np.where(palette.readable_on(colours), 0.0, 1.0)
    assert contrast(luminance(colours), ink).min() > 4.5


@pytest.mark.parametrize("page", ["#ffffff", "#14181c"])
def test_unit_colours_stand_out_on_light_and_dark_pages(page: str) -> None:
    ends = np.array([0.0])
    behind = luminance(palette.interpolate((page, page), ends))
    for colour in palette.UNIT_COLOURS.values():
        shown = luminance(palette.interpolate((colour, colour), ends))
        assert contrast(shown, behind).item() >= 3.0


def test_cividis_grows_lighter() -> None:
    colours = palette.interpolate(palette.CIVIDIS, np.linspace(0, 1, 64))
    assert (np.diff(luminance(colours)) > 0).all()


def test_interpolation_meets_its_stops_and_stays_within() -> None:
    colours = palette.interpolate(("#000000", "#ff8000"), np.array([-1.0, 0.0, 0.5, 1.0, 2.0]))
    assert colours.tolist() == [[0, 0, 0]] * 2 + [[128, 64, 0]] + [[255, 128, 0]] * 2


@pytest.mark.parametrize(
    ("kind", "ends"),
    [
        ({}, (2.0, 6.0)),
        ({"units": ("block",)}, (2.0, 6.0)),
        ({"units": ("mlp",)}, (4.0, 6.0)),
        ({"gated": ()}, (6.0, 6.0)),
        ({"units": ("block",), "visits": 2}, (2.0, 10.0)),
    ],
)
def test_scale_of_layers_used_is_that_of_the_model(
    kind: dict[str, object], ends: tuple[float, float]
) -> None:
    assert palette.layers_used_range(make_trace(**kind)) == ends  # type: ignore[arg-type]
    assert palette.layers_used_range(make_trace(**kind, rate=0.0)) == ends  # type: ignore[arg-type]


def test_scale_grows_with_more_repeats_than_the_model_has_layers() -> None:
    trace = make_trace(units=("block",), exec_count=3)
    assert palette.layers_used_range(trace) == (2.0, 14.0)


def test_places_on_a_scale() -> None:
    values = np.array([0.0, 2.0, 3.0, 9.0])
    assert palette.shares_along(values, (2.0, 4.0)).tolist() == [0.0, 0.0, 0.5, 1.0]
    assert palette.shares_along(values, (4.0, 4.0)).tolist() == [1.0] * 4


def test_ramps_begin_or_have_their_centre_in_the_page_of_their_theme() -> None:
    config = (Path(skipviz.app.__file__).parent / "assets" / "config.toml").read_text("utf-8")
    pages = re.findall(r'\nbackgroundColor = "(#\w{6})"', config)
    assert [page.upper() for page in pages] == [palette.PAGE["light"], palette.PAGE["dark"]]
    for name in ("loss", "own"):
        for theme, page in palette.PAGE.items():
            assert palette.RAMPS[name][theme][0] == page
    for name in ("support", "change", "depth change"):
        for theme, page in palette.PAGE.items():
            ramp = palette.RAMPS[name][theme]
            assert len(ramp) % 2 == 1
            centre = luminance(palette.interpolate((ramp[len(ramp) // 2],) * 2, np.zeros(1)))
            own = luminance(palette.interpolate((page, page), np.zeros(1)))
            assert abs(float(centre[0] - own[0])) < 0.08, (name, theme)


def test_pinned_tokens_can_be_told_from_the_page_and_read_on() -> None:
    for theme, page in palette.PAGE.items():
        behind = luminance(palette.interpolate((page, page), np.zeros(1)))[0]
        for colour in palette.PIN_COLOURS[theme]:
            shown = luminance(palette.interpolate((colour, colour), np.zeros(1)))[0]
            low, high = sorted((behind + 0.05, shown + 0.05))
            assert high / low >= 4.5, colour


def test_colours_are_named_in_the_palette_alone() -> None:
    """Figures and what the browser draws take theirs from one table."""
    folder = Path(palette.__file__).parent
    sources = [path for path in folder.glob("*.py") if path.name != "palette.py"]
    scripts = list((Path(skipviz.app.__file__).parent / "components" / "assets").glob("*.js"))
    assert len(scripts) > 10
    for path in sources + scripts:
        found = set(re.findall(r"#[0-9A-Fa-f]{6}\b", path.read_text("utf-8")))
        assert found <= {"#000000", "#FFFFFF"}, path.name
