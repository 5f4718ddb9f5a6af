"""Colours that the colour-blind can tell apart, and the scales that every figure shares."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from skipviz.traces import Trace

BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PINK, SKY, YELLOW = "#CC79A7", "#56B4E9", "#F0E442"
"""The colours of Okabe and Ito but for their black: the colour-blind can tell them apart."""
OLIVE, BROWN, CRIMSON = "#999933", "#8B4513", "#D41159"
"""Further ones, for what those seven do not suffice for."""
GREY = (140, 140, 140)
"""Red, green and blue of what is neither a choice nor a colour."""

UNIT_COLOURS = {"attn": BLUE, "mlp": VERMILION, "block": GREEN}
"""What is skipped; dark enough for white and light enough for black."""

UNIT_NAMES = {"attn": "attention", "mlp": "MLP", "block": "block"}

COMPONENT_COLOURS = {
    "attention": BLUE,
    "mlp": VERMILION,
    "adapters": PINK,
    "gates": ORANGE,
    "keys and values": SKY,
    "head": "#8C8C8C",
}
"""What a forward spends FLOPs on."""

ALWAYS_RUNS_SHARE, SKIPPED_SHARE = 0.55, 0.14
"""How much grey, over the page's own colour, layers without gates and skipped units have."""

ALWAYS_RUNS = f"rgba{(*GREY, ALWAYS_RUNS_SHARE)}"
"""Layers without gates."""

SKIPPED = f"rgba{(*GREY, SKIPPED_SHARE)}"
"""A unit that did not run: barely there, on white and on black."""

INK = "#7F7F7F"
"""Text and lines where no theme says otherwise: readable on white and on black."""

CIVIDIS = (
    "#00224E", "#123570", "#3B496C", "#575D6D", "#707173", "#8A8678", "#A59C74", "#C3B369",
    "#E1CC55", "#FEE838",
)  # fmt: skip
"""Layers used, from few (dark blue) to many (yellow), at equal steps."""

CLUSTER_COLOURS = (BLUE, ORANGE, GREEN, PINK, VERMILION, SKY, YELLOW, BROWN)
"""Clusters in order."""

POLICY_COLOURS = {
    "learned": BLUE,
    "guarded": SKY,
    "static": VERMILION,
    "random": PINK,
    "confidence": GREEN,
    "entropy": ORANGE,
    "patience": OLIVE,
}
"""What decides; others are drawn in ``INK``."""

PART_COLOURS = {"all": INK, "executed": GREEN, "skipped": PINK}
"""All tokens, those that ran a layer, and those that skipped it."""

PART_NAMES = {"all": "all tokens", "executed": "ran the layer", "skipped": "skipped the layer"}

NO_CLUSTER_COLOUR = "#8C8C8C"
"""Tokens that belong to no cluster."""

LOSS = VERMILION
"""Losses: the stronger the colour, the higher the loss."""

MARGINS = ("#B35806", "#F1A340", "#FEE0B6", "#F7F7F7", "#D8DAEB", "#998EC3", "#542788")
"""Scores from far below the threshold (orange) over it (white) to far above (violet)."""

PAGE = {"light": "#FFFFFF", "dark": "#14181C"}
"""The page's own colour in both themes of the app: where a scale of one hue begins, and the centre
of one that diverges."""

RAMPS: dict[str, dict[str, tuple[str, ...]]] = {
    "depth": {"light": CIVIDIS, "dark": CIVIDIS},
    "loss": {"light": (PAGE["light"], LOSS), "dark": (PAGE["dark"], LOSS)},
    "support": {
        "light": MARGINS,
        "dark": ("#F1A340", "#875A27", PAGE["dark"], "#6A5F9E", "#B6A9F2"),
    },
    "change": {"light": (BLUE, PAGE["light"], LOSS), "dark": (SKY, PAGE["dark"], "#F0803C")},
    "depth change": {
        "light": ("#123570", PAGE["light"], "#C39B00"),
        "dark": ("#7D9FE0", PAGE["dark"], "#FEE838"),
    },
    "own": {"light": (PAGE["light"], GREEN), "dark": (PAGE["dark"], GREEN)},
}
"""Colours at equal steps of what texts and maps are painted with, by what they mean: layers used;
nats of loss; what speaks against running (orange) or for it (violet); nats better (blue) or worse;
fewer layers (blue) or more (yellow); and, in green, what has no such meaning."""

CATEGORY_COLOURS = (*CLUSTER_COLOURS, OLIVE, CRIMSON, "#5D3A9B", "#7FD1AE")
"""Categories in order; at most so many have a colour of their own."""

PIN_COLOURS = {
    "light": ("#A8326F", "#B35C00", "#00705A", "#3D55C5"),
    "dark": ("#F08CC0", "#F5A742", "#3FD0A4", "#8FA8FF"),
}
"""Pinned tokens in order; each can be told from the page at 4.5:1."""

MARGIN_ENDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Where the scale of scores may end."""

LOSS_RANGE = (0.0, 10.0)
"""Nats. A guess among 49,152 tokens costs 10.8; what lies beyond shows as the end of the scale."""


def cluster_colour(cluster: int | None) -> str:
    """Return the colour of a cluster, from 0; after the eighth they repeat."""
    return NO_CLUSTER_COLOUR if cluster is None else CLUSTER_COLOURS[cluster % len(CLUSTER_COLOURS)]


def layers_used_range(trace: Trace) -> tuple[float, float]:
    """Return the fewest and the most layers that a token of this model can use.

    The same for every text and every setting of the gates, so that colours can be compared.

    Parameters
    ----------
    trace
        Any trace.

    Returns
    -------
    tuple of float
        In layers. A model that repeats layers can use more than it has.
    """
    fewest, most = possible_layers(trace.sites, layers=float(trace.run["layers"][0]))
    reached = float(trace.tokens["layers_used"].max() or 0.0)  # type: ignore[arg-type]
    return fewest, max(most, reached)


def possible_layers(sites: pl.DataFrame, *, layers: float | int) -> tuple[float, float]:
    """Return the fewest and the most layers that a token can use.

    Parameters
    ----------
    sites
        The ``sites`` table of a trace.
    layers
        Of the model.
    """
    weights = np.where(sites["unit"].to_numpy() == "block", 1.0, 0.5)
    first = sites["visit"].to_numpy() == 0
    return layers - float(weights[first].sum()), layers + float(weights[~first].sum())


def margin_end(trace: Trace) -> float:
    """Return where the colour scale of scores ends, on the gate's own scale.

    Gates differ in scale by orders of magnitude, so no one end fits all. The ladder is coarse:
    texts of one model share a step.
    """
    margins = np.abs(trace.margin)
    finite = margins[np.isfinite(margins)]
    if not len(finite):
        return MARGIN_ENDS[-1]
    most = float(np.quantile(finite, 0.9))
    return next((end for end in MARGIN_ENDS if end >= most), MARGIN_ENDS[-1])


def shares_along(
    values: npt.NDArray[np.float64], ends: tuple[float, float]
) -> npt.NDArray[np.float64]:
    """Return where values lie between the ends of a scale, 0 to 1.

    Values beyond an end take its place; on a scale without extent everything is at its upper end.
    """
    low, high = ends
    if high <= low:
        return np.ones(len(values))
    return np.clip((values - low) / (high - low), 0.0, 1.0)


def interpolate(colours: tuple[str, ...], shares: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Return colours along a scale.

    Parameters
    ----------
    colours
        Hexadecimal colours at equal steps from 0 to 1.
    shares
        Places on the scale, of shape [n]; those outside 0 to 1 take the colour of the end.

    Returns
    -------
    ndarray
        Red, green and blue of shape [n, 3], 0 to 255.
    """
    stops = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in colours], dtype=float)
    at = np.linspace(0.0, 1.0, len(colours))
    channels = [np.interp(shares, at, stops[:, channel]) for channel in range(3)]
    colours_found: npt.NDArray[np.uint8] = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return colours_found


def readable_on(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Say for each background, of shape [n, 3], whether black reads better on it than white."""
    linear = (rgb / 255.0) ** 2.2
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    # Where the contrast ratios of the Web Content Accessibility Guidelines meet.
    black: npt.NDArray[np.bool_] = (luminance + 0.05) ** 2 > 0.05 * 1.05
    return black


def scale(colours: tuple[str, ...]) -> list[list[float | str]]:
    """Return colours at equal steps as a Plotly colour scale."""
    last = len(colours) - 1
    return [[index / last, colour] for index, colour in enumerate(colours)]
