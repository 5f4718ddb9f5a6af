"""Lenses that every trace has: what its tokens used and lost, and what its gates decided."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from skipviz.plots.lenses.lens import Lens
from skipviz.plots.style.palette import LOSS_RANGE, layers_used_range, margin_end
from skipviz.traces import Trace

DECISION = ("skipped", "ran")
"""What a decision is."""
OF_PREDICTIONS = {
    "loss on the next token": "nll",
    "surprisal": "surprisal",
    "entropy": "entropy",
}
"""Lenses of what is predicted at each token, and the columns that hold them."""


def traced_lenses(trace: Trace) -> list[Lens]:
    """Return the lenses that are in the trace itself.

    Parameters
    ----------
    trace
        Any trace. What it does not know is NaN.

    Returns
    -------
    list of Lens
        Of tokens: layers used; loss on the next token, surprisal and entropy, if the model predicts
        one. Of cells, if the model has gates: decision, and score minus threshold, which is
        positive where the score speaks for running, whatever its polarity.
    """
    fewest, most = layers_used_range(trace)
    tokens = [
        Lens(
            name="layers used",
            unit=f"of {trace.run['layers'].item()} layers",
            values=token_column(trace, "layers_used"),
            scale="sequential",
            ends=(fewest, most) if fewest < most else (most - 1.0, most),
            colours="depth",
        ),
        *(
            Lens(
                name=name,
                unit="nats",
                values=token_column(trace, column),
                scale="sequential",
                ends=LOSS_RANGE,
                colours="loss",
            )
            for name, column in OF_PREDICTIONS.items()
            if trace.run["loss"].item() != "none"
        ),
    ]
    if not trace.sites.height:
        return tokens
    end = margin_end(trace)
    return [
        *tokens,
        Lens(
            name="decision",
            unit="",
            values=(trace.matrix("exec_count") > 0).astype(np.float32),
            scale="categories",
            ends=(0.0, 1.0),
            categories=DECISION,
        ),
        Lens(
            name="score minus threshold",
            unit="",
            note="above 0 speaks for running",
            site_scales=True,
            values=trace.margin.astype(np.float32),
            scale="diverging",
            ends=(-end, end),
            colours="support",
        ),
    ]


def token_column(trace: Trace, name: str) -> npt.NDArray[np.float32]:
    """Return a column of ``Trace.tokens`` of shape [tokens], NaN where it is null."""
    values: npt.NDArray[np.float32] = (
        trace.tokens[name].fill_null(float("nan")).to_numpy().astype(np.float32)
    )
    return values
