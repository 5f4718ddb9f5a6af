"""Figures as files for print."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import plotly.graph_objects as go

from skipviz.atomic import atomic_write
from skipviz.errors import InputError, MissingExtraError

PRINTED = ("svg", "pdf", "png")
"""Kinds of file that a figure is saved as."""
PIXELS_PER_MM = 96 / 25.4
"""Of CSS, by which sizes of SVG and PDF are told."""
FIGURE_HEIGHT = 450
"""In pixels, of a figure that has no height of its own."""


def save_figure(
    figure: go.Figure, path: Path | str, *, width_mm: float = 180.0, dpi: int = 300
) -> None:
    """Save a figure at the size at which it is printed, black on white.

    Needs the extra ``print`` (kaleido), which draws in a Chrome or Chromium of this machine,
    without any network. Reports save their figures in the reader's browser and need neither.

    Parameters
    ----------
    figure
        A figure of ``skipviz.plots``; it stays as it is.
    path
        The file to write; its ending says the kind: ``.svg``, ``.pdf`` or ``.png``.
    width_mm
        Its width in millimetres, above 0. Its height is that of the figure on a page, at 96 pixels
        to the inch.
    dpi
        Dots per inch of a PNG, above 0.

    Raises
    ------
    InputError
        If there is no such kind of file, or a size is not above 0.
    MissingExtraError
        If kaleido, or a Chrome for it, is not there; says how to get it.
    """
    target = Path(path)
    kind = target.suffix.removeprefix(".").lower()
    if kind not in PRINTED:
        raise InputError(f"{target.name} does not end in one of .{', .'.join(PRINTED)}.")
    if not (width_mm > 0 and dpi > 0):
        raise InputError(f"width_mm={width_mm} and dpi={dpi} are not both above 0.")
    options = {
        "format": kind,
        "width": round(width_mm * PIXELS_PER_MM),
        "height": figure.layout.height or FIGURE_HEIGHT,
        "scale": dpi / 96 if kind == "png" else 1,
    }
    with atomic_write(target) as partial:
        partial.write_bytes(_drawn(printable(figure), options))


def printable(figure: go.Figure) -> go.Figure:
    """Return a figure in black on white."""
    copy = go.Figure(figure)
    return copy.update_layout(font_color="#000000", paper_bgcolor="#FFFFFF", plot_bgcolor="#FFFFFF")


def _drawn(figure: go.Figure, options: dict[str, object]) -> bytes:
    try:
        kaleido = import_module("kaleido")
    except ImportError as error:
        raise MissingExtraError(
            "Saving a figure as an image needs kaleido: pip install 'skipviz[print]'."
        ) from error
    try:
        # MathJax would be fetched from a network, and no figure here has formulas.
        data: bytes = kaleido.calc_fig_sync(figure, opts=options, kopts={"mathjax": False})
    except Exception as error:
        if "chrome" not in f"{type(error).__name__} {error}".lower():
            raise
        raise MissingExtraError(
            "kaleido draws in a Chrome or Chromium, and found none. Install one, or name one in "
            "the environment variable BROWSER_PATH."
        ) from error
    return data
