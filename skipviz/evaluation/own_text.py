"""A threshold for a user's kind of text: set on one part of it, and looked at on the other."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skipviz.analysis.flops import is_missed, realised_budget
from skipviz.arrays import Bools
from skipviz.errors import InputError
from skipviz.evaluation.calibration import calibrate
from skipviz.models import SkipModel, at_budget, at_threshold
from skipviz.progress import Progress, no_progress
from skipviz.recording.tracing import trace
from skipviz.text.documents import Document
from skipviz.traces import Trace

FEWEST_TOKENS = 64
"""Tokens below which a text says too little about others like it."""
PARTS_OF_TEXT = 8
"""Parts of a single text, every other of which is held out; few texts are cut as well."""
ATTEMPTS = 8


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A threshold for a kind of text, and what it comes to.

    Attributes
    ----------
    budget, threshold
        The budget asked for, and the threshold of every gate that realises it.
    before
        What the held-out tokens came to under the model's own threshold for this budget, or for
        the one nearest to it.
    realised
        What the tokens came to that the threshold was set on.
    held_out
        What the others came to: what to expect of another text of this kind.
    tokens, held_out_tokens
        How many of each.
    """

    budget: float
    threshold: float
    before: float
    realised: float
    held_out: float
    tokens: int
    held_out_tokens: int

    def __str__(self) -> str:
        """Say what it comes to where it was set and where it was not."""
        said = (
            f"Budget {self.budget:g}: threshold {self.threshold:.6f} comes to "
            f"{self.held_out:.3f} on the {self.held_out_tokens:,} tokens held out, where the one "
            f"before came to {self.before:.3f}, and to {self.realised:.3f} on the "
            f"{self.tokens:,} that it was set on."
        )
        if not is_missed(self.budget, self.held_out):
            return said
        return f"{said} The parts of the text differ: give more of its kind for a nearer one."


def fit_to_text(
    model: SkipModel,
    documents: Sequence[Document],
    *,
    budget: float,
    tolerance: float = 0.004,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> Fitted:
    """Find the threshold that realises a budget on texts like a user's.

    Parameters
    ----------
    model
        Learned gates as ``skipviz.load`` returned them; they stay as they are.
    documents
        Some text of the kind, at least 64 tokens. Every other document is held out; where there
        are fewer than eight, every other part of each.
    budget
        The budget to realise, 0 to 1.
    tolerance
        How near is near enough.
    progress
        Called with the share of the work done, 0 to 1.
    stop
        Set it from another thread to stop.

    Raises
    ------
    InputError
        If the model has no budgets, the text is too short, or the budget out of reach.
    Stopped
        If ``stop`` was set.
    """
    if model.settings is None:
        raise InputError(f"{model.name} has no budgets to set thresholds for.")
    nearest = min(model.settings.budgets, key=lambda each: abs(each - budget))
    start = at_budget(model, nearest)
    seen = trace(
        start, documents, statistics=False, stop=stop, progress=lambda share: progress(0.1 * share)
    )
    if len(seen) < FEWEST_TOKENS:
        raise InputError(
            f"The text has {len(seen)} tokens, too few to set a threshold on; give at least "
            f"{FEWEST_TOKENS}, better a thousand."
        )
    first = float(seen.matrix("threshold")[0, 0])
    threshold = calibrate(
        model, documents, budget=budget, start=first, tolerance=tolerance, attempts=ATTEMPTS,
        counted=fitted_on, stop=stop, progress=lambda share: progress(0.1 + 0.8 * share),
    )  # fmt: skip
    met = trace(
        at_threshold(model, threshold), documents, statistics=False, stop=stop,
        progress=lambda share: progress(0.9 + 0.1 * share),
    )  # fmt: skip
    fitted = fitted_on(met)
    return Fitted(
        budget=budget,
        threshold=threshold,
        before=realised_budget(seen, counted=~fitted_on(seen)),
        realised=realised_budget(met, counted=fitted),
        held_out=realised_budget(met, counted=~fitted),
        tokens=int(fitted.sum()),
        held_out_tokens=int((~fitted).sum()),
    )


def fitted_on(seen: Trace) -> Bools:
    """Return which tokens a threshold is set on; the others are held out.

    Gates look back, never ahead, so what a held-out token scores depends on the text alone, and
    not on which tokens the threshold was set on.

    Parameters
    ----------
    seen
        A trace of the documents.

    Returns
    -------
    ndarray
        [tokens]: every other document, or every other eighth of each where there are few.
    """
    sequence = seen.tokens["sequence"].to_numpy()
    if len(np.unique(sequence)) >= PARTS_OF_TEXT:
        even: Bools = sequence % 2 == 0
        return even
    found = np.zeros(len(seen), dtype=bool)
    for each in np.unique(sequence):
        rows = np.flatnonzero(sequence == each)
        found[rows] = np.arange(len(rows)) * PARTS_OF_TEXT // len(rows) % 2 == 0
    return found
