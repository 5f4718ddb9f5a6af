"""Lenses of a comparison: where one of two runs used more layers, or predicts worse."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from skipviz.analysis.comparison import TraceComparison
from skipviz.plots.lenses.found import CHANGE_SHOWN
from skipviz.plots.lenses.lens import Lens

COMPARISON_LENSES = (
    "layers used beside the compared run",
    "surprisal beside the compared run",
    "loss beside the compared run",
)
"""The names of the lenses of a comparison."""
LAYERS_SHOWN = 8.0
"""Layers where the fixed scale of a difference in layers used ends."""


def comparison_lenses(found: TraceComparison) -> list[Lens]:
    """Return the differences of two runs of one text, for the tokens of the first.

    Tokens that the other run's tokenizer cuts otherwise share the number of their piece.

    Parameters
    ----------
    found
        What ``skipviz.compare_traces`` returned.

    Returns
    -------
    list of Lens
        Layers used and surprisal, the first run minus the second, and the loss on the next token
        where both runs have the same tokens: elsewhere it lies at other places. None where the
        texts differ.
    """
    if found.match == "none":
        return []
    pieces = found.pieces
    repeats = pieces["tokens"].to_numpy()
    layers, surprisal = (
        np.repeat(
            (pieces[name] - pieces[f"{name}_other"])
            .cast(pl.Float32)
            .fill_null(float("nan"))
            .to_numpy(),
            repeats,
        )
        for name in ("layers_used", "surprisal")
    )
    lenses = [
        Lens(
            name=COMPARISON_LENSES[0],
            unit="layers",
            note="above 0 uses more",
            values=layers,
            scale="diverging",
            ends=(-LAYERS_SHOWN, LAYERS_SHOWN),
            colours="depth change",
        ),
        _nats(COMPARISON_LENSES[1], surprisal),
    ]
    if found.match == "tokens":
        loss = (found.trace - found.other)["nll"].cast(pl.Float32).fill_null(float("nan"))
        lenses.append(_nats(COMPARISON_LENSES[2], loss.to_numpy()))
    return lenses


def _nats(name: str, values: npt.NDArray[np.float32]) -> Lens:
    return Lens(
        name=name,
        unit="nats",
        note="above 0 is worse",
        values=values,
        scale="diverging",
        ends=(-CHANGE_SHOWN, CHANGE_SHOWN),
        colours="change",
    )
