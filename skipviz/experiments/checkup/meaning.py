"""Checks that figures mean what they are read as."""

from __future__ import annotations

import numpy as np
import polars as pl
from torch.nn import functional as F

from skipviz.analysis.findings import Answer
from skipviz.experiments.checkup.subject import TIED, Subject, moved
from skipviz.traces import Trace

LOSS_APART = 1e-3
"""Nats by which the loss of a trace may differ from that of the model's own output."""
SCORES = 1e-3
"""How far a score may move by rounding."""
NO_SITES = "The model has no gates."
READS_WHOLE = "The model reads a text as a whole and predicts no next token."
DRAWN = "Decisions are drawn: another run differs by itself."


def later_tokens_change_nothing(subject: Subject) -> Answer:
    """Exchange later tokens, and count earlier decisions that move."""
    if not subject.sites or subject.drawn:
        return Answer(outcome="not applicable", evidence=DRAWN if subject.sites else NO_SITES)
    if not subject.predicts:
        return Answer(outcome="not applicable", evidence=READS_WHOLE)
    length, wrong, of, far = subject.ids.shape[1], 0, 0, 0.0
    places = sorted({length // 2, 3 * length // 4, length - 1})
    for place in places:
        other = subject.ids.clone()
        other[:, place:] = subject.ids[:, :1] if place else subject.ids[:, -1:]
        run, before = subject.run(other), slice(place)
        differs, among = moved(subject.own, run, before)
        wrong, of = wrong + differs, of + among
        shifts = np.abs(run.score[before] - subject.own.score[before])
        far = max(far, float(np.nan_to_num(shifts).max(initial=0.0)))
    return Answer(
        outcome="issue" if wrong or far > SCORES else "passed",
        figure=f"{wrong / max(of, 1):.1%} of earlier decisions move",
        evidence=(
            f"Tokens from {', '.join(map(str, places))} on exchanged: {wrong} of {of} decisions "
            f"before them came out otherwise, ties apart; scores moved by up to {far:.2g}."
        ),
    )


def loss_is_its_own(subject: Subject) -> Answer:
    """Compare the losses of the trace with those of the model's own output."""
    if not subject.predicts:
        return Answer(outcome="not applicable", evidence=READS_WHOLE)
    logits, ids = subject.own.logits[0].float(), subject.ids[0]
    wanted = F.cross_entropy(logits[:-1], ids[1:], reduction="none").cpu().numpy()
    shown = subject.trace.tokens["nll"].to_numpy()[:-1]
    far = float(np.abs(shown - wanted).max(initial=0.0))
    known = bool(np.isfinite(shown).all())
    return Answer(
        outcome="passed" if known and far <= LOSS_APART else "issue",
        figure=f"{far:.2g} nats apart",
        evidence=(
            f"The largest difference over {len(wanted)} tokens between the trace and a whole "
            "forward of the skipping model."
        ),
    )


def scores_say_what_ran(trace: Trace) -> Answer:
    """Compare the sign of each margin with what ran."""
    ran, margin = trace.matrix("exec_count") > 0, trace.margin
    clear = (np.abs(margin) > TIED) & ~trace.matrix("forced")
    if not clear.any():
        return Answer(
            outcome="not applicable", evidence="No score stands beside a threshold in this trace."
        )
    wrong = clear & (ran != (margin > 0))
    sites = trace.sites.filter(pl.Series(wrong.any(axis=0)))["label"].to_list()
    where = f", at {', '.join(sites[:6])}" + (" and more" if len(sites) > 6 else "")
    return Answer(
        outcome="issue" if wrong.any() else "passed",
        figure=f"{wrong.sum() / clear.sum():.1%} contradict",
        evidence=(
            f"{int(wrong.sum()):,} of {int(clear.sum()):,} decisions, ties and forced ones apart, "
            f"are not those of score and threshold{where if wrong.any() else ''}."
        ),
    )


def skipped_units_add_nothing(subject: Subject) -> Answer:
    """Look at what each unit added to its tokens' states, exactly."""
    sites = [
        (number, site)
        for number, site in enumerate(subject.sites)
        if site.skip_path in (None, "identity", "zero", "frozen")
    ]
    if not sites:
        return Answer(outcome="not applicable", evidence="An adapter stands in for skipped units.")
    added = subject.added
    known = [(number, added[number]) for number, _ in sites if number in added]
    if not known:
        return Answer(
            outcome="skipped", evidence="What its layers add to the hidden states was not found."
        )
    ran = subject.own.count > 0
    wrong = [int((ran[:, number] != nonzero).sum()) for number, nonzero in known]
    turned = [int((ran[:, number] == nonzero).sum()) for number, nonzero in known]
    size = len(ran) * len(known)
    labels = [
        subject.sites[number].label for (number, _), bad in zip(known, wrong, strict=True) if bad
    ]
    shown = f", at {', '.join(labels[:6])}" if labels else ""
    flipped = sum(turned) < sum(wrong)
    return Answer(
        outcome="issue" if any(wrong) else "passed",
        figure=f"{sum(wrong) / size:.1%} contradict",
        evidence=(
            f"{sum(wrong):,} of {size:,} decisions: a unit that is said to be skipped added "
            f"something to its token, or one that ran added nothing{shown}."
            + (" Most do: the polarity is the other way round." if flipped else "")
        ),
    )
