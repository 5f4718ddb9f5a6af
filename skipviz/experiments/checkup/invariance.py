"""Checks that a run is the same however it is made."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from skipviz.analysis.findings import Answer
from skipviz.experiments.checkup.meaning import DRAWN, READS_WHOLE
from skipviz.experiments.checkup.subject import Subject, moved
from skipviz.families.hooks import after, hooked
from skipviz.families.powers import traits_of

LOGITS = 1e-3
"""How far logits of the same run, made in two ways, may lie apart."""
DECODED = 16
"""Tokens that are run one by one."""
NOT_FORCED = "The family of this model cannot be forced."


def recording_changes_nothing(subject: Subject) -> Answer:
    """Compare the logits with and without a recorder, bit by bit."""
    plain = subject.run(subject.ids, observed=False)
    same = torch.equal(plain.logits, subject.own.logits)
    far = _largest(plain.logits - subject.own.logits)
    return Answer(
        outcome="passed" if same else "issue",
        figure="0 bits differ" if same else f"logits differ by up to {far:.2g}",
        evidence="The same text with and without a recorder.",
    )


def replay_reproduces(subject: Subject) -> Answer:
    """Force the decisions that were observed, and compare."""
    if not subject.forcible:
        return Answer(outcome="not applicable", evidence=NOT_FORCED)
    if subject.own.count.max(initial=0) > 1:
        return Answer(
            outcome="not applicable", evidence="Units run more than once; a plan says once or not."
        )
    ran = subject.own.count > 0
    again = subject.run(subject.ids, plan=ran)
    obeyed = int(((again.count > 0) != ran).sum())
    wanted, words = subject.other_plan
    disobeyed = int(((subject.run(subject.ids, plan=wanted).count > 0) != wanted).sum())
    far = _largest(again.logits - subject.own.logits)
    wrong = obeyed or disobeyed or far > LOGITS
    return Answer(
        outcome="issue" if wrong else "passed",
        figure=f"logits differ by up to {far:.2g}",
        evidence=(
            f"Its own decisions forced: {obeyed} of {ran.size} came out otherwise. {words} "
            f"forced: {disobeyed} were not obeyed."
        ),
    )


def cached_decoding_agrees(subject: Subject) -> Answer:
    """Run the text in two parts, the end token by token from a cache."""
    if subject.drawn:
        return Answer(outcome="not applicable", evidence=DRAWN)
    if not subject.predicts:
        return Answer(outcome="not applicable", evidence=READS_WHOLE)
    ids, whole = subject.ids, subject.own
    first = ids.shape[1] - min(DECODED, ids.shape[1] // 2)
    try:
        runs, cache = [], None
        for start, stop in [(0, first), *((n, n + 1) for n in range(first, ids.shape[1]))]:
            run, cache = _continued(subject, start, stop, cache)
            runs.append(run)
    except Exception as error:  # whatever a model's own code does with a cache
        return Answer(
            outcome="not applicable",
            evidence=f"It does not run from a cache ({type(error).__name__}: {error!s:.120}).",
        )
    count = np.concatenate([run.count for run in runs])
    ties = whole.ties | np.concatenate([run.ties for run in runs])
    otherwise = int(((count != whole.count) & ~ties).sum())
    logits = torch.cat([run.logits for run in runs], dim=1)
    far = _largest(logits - whole.logits)
    share = otherwise / max(count.size, 1)
    return Answer(
        outcome="issue" if otherwise else "passed",
        figure=f"{share:.1%} of decisions differ",
        evidence=(
            f"{first} tokens at once, then {ids.shape[1] - first} one by one from a cache, against "
            f"one forward: {otherwise} of {count.size} decisions differ, ties apart; logits by up "
            f"to {far:.2g}."
        ),
    )


def _continued(subject: Subject, start: int, stop: int, cache: Any) -> tuple[Any, Any]:
    kept: list[Any] = []

    def keep(_: nn.Module, args: Any, output: Any) -> None:
        kept.append(output.past_key_values)

    with hooked([after(subject.model.model, keep)]):
        run = subject.run(subject.ids[:, start:stop], use_cache=True, past_key_values=cache)
    if kept[-1] is None:
        raise TypeError("the model returns no cache")
    return run, kept[-1]


def alone_as_in_a_batch(subject: Subject) -> Answer:
    """Run the text beside a longer one, padded, and compare its decisions."""
    if subject.drawn:
        return Answer(outcome="not applicable", evidence=DRAWN)
    short = subject.ids[:, : subject.ids.shape[1] // 2]
    alone = subject.run(short)
    other = subject.ids.flip(1)
    padded = torch.nn.functional.pad(short, (0, other.shape[1] - short.shape[1]))
    mask = torch.ones_like(torch.cat([padded, other]), dtype=torch.bool)
    mask[0, short.shape[1] :] = False
    try:
        both = subject.run(torch.cat([padded, other]), mask=mask)
    except Exception as error:  # whatever a model's own code does with padding
        return Answer(
            outcome="tip",
            figure="no batches",
            evidence=f"It does not run padded batches ({type(error).__name__}: {error!s:.120}).",
        )
    claimed = traits_of(subject.model.family, subject.model.model).batchable
    rows = slice(short.shape[1])
    ties = alone.ties | both.ties[rows]
    differs = int(((alone.count != both.count[rows]) & ~ties).sum())
    beside = both.logits[0, rows] if subject.predicts else both.logits[0]
    far = _largest(beside - alone.logits[0])
    return Answer(
        outcome="passed" if not differs else "issue" if claimed else "tip",
        figure=f"{differs / max(alone.count.size, 1):.1%} of decisions differ",
        evidence=(
            f"{short.shape[1]} tokens alone and beside a text of {other.shape[1]}: {differs} of "
            f"{alone.count.size} decisions differ, ties apart; logits by up to {far:.2g}."
        ),
    )


def seeds_agree(subject: Subject) -> Answer:
    """Run the text under several seeds."""
    shares = [moved(subject.own, other)[0] / max(other.count.size, 1) for other in subject.reseeded]
    largest = max(shares)
    return Answer(
        outcome="issue" if largest else "passed",
        figure=f"{np.mean(shares):.1%} of decisions change with the seed",
        evidence=f"Seeds 1, 2 and 3 against 0: {', '.join(f'{share:.1%}' for share in shares)}.",
    )


def _largest(difference: torch.Tensor) -> float:
    return float(difference.abs().max()) if difference.numel() else 0.0
