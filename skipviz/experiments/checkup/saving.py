"""Checks of what skipping saves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from skipviz.analysis.findings import Answer, Outcome
from skipviz.analysis.flops import cost_summary
from skipviz.experiments.checkup.subject import Subject
from skipviz.traces import Trace

SAVED = 0.05
"""Share of a skipped unit's rows that may be computed all the same."""
TIMED_PAIRS = 6
"""Pairs of runs that time is measured by: their median lies between the smallest and the largest
in 97 of 100 measurements."""
ROUNDED = 0.01
"""Share of decisions that bfloat16 may flip before it is reported."""


def skipped_is_not_computed(subject: Subject) -> Answer:
    """Count the tokens that each unit's linear layers were given, and measure time."""
    ran = subject.own.count > 0
    if not subject.sites or ran.all():
        return Answer(outcome="not applicable", evidence="Nothing was skipped in this text.")
    given = subject.rows
    if not given:
        return Answer(outcome="skipped", evidence="No linear layers of its units were found.")
    skipped = computed = 0
    for number in range(len(subject.sites)):
        needed = int(subject.own.count[:, number].sum())
        skipped += len(ran) - int(ran[:, number].sum())
        computed += max(given.get(number, 0) - needed, 0)
    share = min(computed / skipped, 1.0)
    said = {site.computed_anyway for site in subject.sites}
    outcome: Outcome = "passed" if share <= SAVED else "issue" if False in said else "tip"
    return Answer(
        outcome=outcome,
        figure=f"{share:.0%} of what was skipped is computed",
        evidence=(
            f"Of {skipped:,} skipped units of tokens, {computed:,} went through the unit's linear "
            "layers all the same. "
            + ("The sites say that they do." if said == {True} else
               "The sites say that they do not." if said == {False} else
               "The sites leave it open.")
            + f" {_flops_counted(subject)}{_time_measured(subject)}"
        ),
    )  # fmt: skip


def _flops_counted(subject: Subject) -> str:
    share = cost_summary(subject.trace).flop_share
    return "" if share is None else f"Its decisions need {share:.0%} of the dense FLOPs. "


def _time_measured(subject: Subject) -> str:
    """Say how long its own decisions take, beside running every unit once."""
    if not subject.forcible or subject.own.count.max(initial=0) > 1:
        return "Time was not measured: it is not possible to run every unit once for comparison."
    own = subject.own.count > 0
    plans = (own, np.ones_like(own))
    ratios = []
    for pair in range(TIMED_PAIRS + 1):
        # In turns, so that neither always comes first.
        order = (0, 1) if pair % 2 else (1, 0)
        seconds = {each: subject.seconds(plans[each]) for each in order}
        ratios.append(seconds[0] / seconds[1])
    return time_words(ratios[1:])  # the first pair warms up


def time_words(ratios: Sequence[float]) -> str:
    """Say what pairs of runs took, own decisions over every unit run.

    Parameters
    ----------
    ratios
        At least one, above 0.
    """
    least, most = min(ratios), max(ratios)
    said = (
        f"{np.median(ratios):.2f} of what running every unit takes ({least:.2f} to {most:.2f} in "
        f"{len(ratios)} pairs of runs of this text)"
    )
    if least < 1 < most:
        return f"Time: these runs are too short to tell a difference; {said}."
    return f"Time: {said}."


def bfloat16_decides_the_same(subject: Subject) -> Answer:
    """Run the text with matrix products in bfloat16, and count decisions that flip."""
    if not subject.sites:
        return Answer(outcome="not applicable", evidence="The model has no gates.")
    kind = subject.ids.device.type
    with torch.autocast(kind, dtype=torch.bfloat16):
        rounded = subject.run(subject.ids)
    flips = int((rounded.count != subject.own.count).sum())
    share = flips / max(rounded.count.size, 1)
    return Answer(
        outcome="tip" if share > ROUNDED else "passed",
        figure=f"{share:.1%} of decisions flip",
        evidence=(
            f"{flips:,} of {rounded.count.size:,} decisions under autocast to bfloat16 differ from "
            "those in float32."
        ),
    )


def budget_is_realised(trace: Trace) -> Answer:
    """Compare the budget asked for with the one realised."""
    if trace.run["budget"].item() is None:
        return Answer(outcome="not applicable", evidence="No budget was asked for.")
    if trace.budget_missed is None:
        return Answer(outcome="passed", evidence="It lies within 0.02 of what was asked for.")
    asked, realised = trace.budget_missed
    return Answer(
        outcome="issue",
        figure=f"{realised:.3f} realised, {asked:g} asked",
        evidence=f"On {len(trace):,} tokens of this text.",
    )


def gates_choose(trace: Trace) -> Answer:
    """Look for sites that decide the same for every token."""
    if not trace.sites.height:
        return Answer(outcome="not applicable", evidence="The model has no gates.")
    rate = (trace.matrix("exec_count") > 0).mean(axis=0)
    labels = trace.sites["label"].to_numpy()
    never, always = labels[rate == 0].tolist(), labels[rate == 1].tolist()
    scores = trace.matrix("score")
    silent = labels[np.isnan(scores).all(axis=0)].tolist() if not np.isnan(scores).all() else []
    kinds = (("never run", never), ("always run", always), ("emitted no score", silent))
    parts = [
        f"{len(which)} {words} ({', '.join(which[:4])}{', ...' if len(which) > 4 else ''})"
        for words, which in kinds
        if which
    ]
    fixed = len(never) + len(always)
    return Answer(
        outcome="tip" if parts else "passed",
        figure=f"{fixed} of {len(rate)} sites decide alike for all tokens",
        evidence=f"Of {len(rate)} sites: {'; '.join(parts) or 'all choose'}.",
    )


def repeats_are_counted(subject: Subject) -> Answer:
    """Compare the tokens that went through each unit with how often it is said to have run."""
    given, length = subject.rows, subject.ids.shape[1]
    short = []
    for number, site in enumerate(subject.sites):
        rows = given.get(number, 0)
        # A unit that is computed for all tokens and masked is given each once.
        if rows > max(length, int(subject.own.count[:, number].sum())):
            short.append(f"{site.label} ({rows} tokens)")
    if not short:
        return units_run_once(subject.trace)
    return Answer(
        outcome="issue",
        figure=f"{len(short)} of {len(subject.sites)} sites count too few runs",
        evidence=f"More tokens went through than are counted: {', '.join(short[:6])}.",
    )


def units_run_once(trace: Trace) -> Answer:
    """Look for units that ran several times for a token."""
    if not trace.sites.height:
        return Answer(outcome="not applicable", evidence="The model has no gates.")
    most = int(trace.matrix("exec_count").max(initial=0))
    share = float((trace.matrix("exec_count") > 1).mean())
    return Answer(
        outcome="tip" if most > 1 else "passed",
        figure=f"{share:.1%} of units ran more than once" if most > 1 else "",
        evidence=f"A unit ran for a token at most {most} times.",
    )
