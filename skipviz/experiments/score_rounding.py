"""By how much rounding alone moves the scores of gates."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import torch

from skipviz.arrays import Floats
from skipviz.experiments.decoded_flips import CachedRun, rescored
from skipviz.families.powers import SkippableUnit
from skipviz.models import SkipModel
from skipviz.progress import check_stop
from skipviz.traces import Trace

RESCORED_TOKENS = 24
"""Tokens that are run once more; each takes about as long as a token decoded."""


def score_rounding(
    model: SkipModel,
    units: Sequence[SkippableUnit],
    trace: Trace,
    *,
    stop: threading.Event | None = None,
) -> Floats:
    """Return by how much rounding moves the scores of each site, measured on this text.

    A token's scores are the same numbers whether the text runs whole or the token runs alone after
    the keys and values of the text before it; only the order of additions differs. So what they
    differ by is rounding. A decision whose score lies nearer to its threshold than that may come
    out either way in another run, on another machine, or in a batch.

    Parameters
    ----------
    model, units
        The gated model and its units, in running order.
    trace
        Its trace of one text.
    stop
        Set it from another thread to stop.

    Returns
    -------
    ndarray
        [sites]: the largest difference over some tokens, on the scale of the scores, and no less
        than one step of the trace's own numbers.
    """
    ids = torch.tensor([trace.tokens["token_id"].to_list()], device=model.device)
    made = trace.matrix("score")
    tokens = np.unique(np.linspace(0, len(trace) - 1, RESCORED_TOKENS).astype(int))
    with torch.inference_mode():
        base = CachedRun.of(model, ids, trace.matrix("exec_count") > 0, stop=stop)
        again = []
        for token in tokens:
            check_stop(stop)
            again.append(rescored(model, units, base, int(token)).float().cpu())
    differences = np.abs(torch.stack(again).numpy() - made[tokens]).max(axis=0)
    found: Floats = np.maximum(differences, np.spacing(np.abs(made).max(axis=0)))
    return found.astype(np.float64)
