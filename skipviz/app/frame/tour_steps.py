"""The tour of the app in sentences: five steps on the sample, each naming one thing."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from skipviz.readings.paths import shallowest_token
from skipviz.traces import Trace


@dataclass(frozen=True)
class TourStep:
    """A step of the tour.

    Attributes
    ----------
    title
        The thing that it names.
    said
        What it says of that.
    page
        The name of the page on which it is.
    token
        The token that is selected meanwhile.
    """

    title: str
    said: str
    page: str
    token: int


def tour_steps(trace: Trace) -> tuple[TourStep, ...]:
    """Return the steps of the tour.

    Parameters
    ----------
    trace
        The trace of the sample.
    """
    shallow = shallowest_token(trace)
    # The first token uses the most layers and is followed by the least expected, in any text.
    later = trace.tokens.filter(pl.col("nll").is_not_null(), pl.col("token") > 0)
    deep = int(later.sort("layers_used", descending=True, maintain_order=True)["token"][0])
    hard = int(later.sort("nll", descending=True, maintain_order=True)["token"][0])
    texts, used = trace.tokens["text"], trace.tokens["layers_used"]
    layers = trace.run["layers"].item()
    return (
        TourStep(
            "The text",
            "Every token has the colour of its layers used. Each step of the tour selects a token, "
            f"this one token {shallow}, {texts[shallow]!r}: it used {used[shallow]:g} of {layers} "
            "layers. Click another token, or step with the arrow keys.",
            "paths",
            shallow,
        ),
        TourStep(
            "The map",
            "The map has a column for each token and a row for each site, where a gate decides; "
            f"filled cells ran. This step selects token {deep}, {texts[deep]!r}: it used "
            f"{used[deep]:g} layers.",
            "paths",
            deep,
        ),
        TourStep(
            "The panel",
            "The panel shows the path of the selected token: each score beside its threshold, the "
            f"loss, and further down the next tokens that the model found likely. Token {hard}, "
            f"{texts[hard]!r}, has the highest loss on the token after it: "
            f"{trace.tokens['nll'][hard]:.1f} nats.",
            "paths",
            hard,
        ),
        TourStep(
            "The pages",
            "Each page asks one question about the same text and the token that is selected. This "
            "page asks what would be if gates had decided otherwise: click a cell of the map to "
            "have its unit run or skipped. The answer comes below, when the model has run.",
            "what_if",
            shallow,
        ),
        TourStep(
            "Your own text",
            "Enter a text in the side bar and press Trace the text. Below the canvas are then its "
            "figures, downloads and a report. The page Audit says whether the gates were right.",
            "paths",
            deep,
        ),
    )
