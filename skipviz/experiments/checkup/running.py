"""Runs the checks."""

from __future__ import annotations

import threading
from collections.abc import Collection

import torch
from jaxtyping import Int
from torch import Tensor

from skipviz.analysis.findings import Answer, Check, CheckUp, Finding
from skipviz.errors import InputError, Stopped
from skipviz.experiments.checkup.checks import CHECKS
from skipviz.experiments.checkup.subject import Subject
from skipviz.models import SkipModel
from skipviz.progress import Meter, Progress, no_progress
from skipviz.recording.inputs import encoded
from skipviz.text.arguments import checked
from skipviz.text.documents import Document, check_text
from skipviz.traces import Trace

CHECKED_TEXT = (
    "The keeper of the lighthouse wrote down every ship that passed: its name, its flag, and the "
    "hour. On the third of May he wrote nothing. The fog had come in at noon, and by evening he "
    "could hear bells but see no lights; he counted 14 of them, one after the other, each a "
    "little farther off than the last. def count(bells): return sum(1 for bell in bells)"
)
"""What is run where no text is given: prose, a number, a line of code."""
SHORTEST_TEXT = 8
CHECKED_TOKENS = 128
"""Tokens of a text that are run; each check runs them several times."""


@checked
def check(
    subject: SkipModel | Trace,
    text: str | Document | None = None,
    *,
    ignore: Collection[str] = (),
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> CheckUp:
    """Check whether what is recorded of a model is true, and whether it skips as it says.

    Parameters
    ----------
    subject
        A model, or a trace for what can be said without one.
    text
        What the model runs, its first 128 tokens; None: a short text of prose and code.
    ignore
        Codes of checks that are not made.
    progress
        Called with the share of the checks done, 0 to 1.
    stop
        Set it from another thread to stop.

    Returns
    -------
    CheckUp
        A finding for each check that applies to such a subject.

    Raises
    ------
    InputError
        If a code does not exist, or the text has fewer than 8 tokens.
    Stopped
        If ``stop`` was set.

    Examples
    --------
    >>> found = skipviz.check(model, "The fox jumps over the lazy dog.")
    >>> [finding.title for finding in found.findings if finding.code == "SKV001"]
    ['Recording changes nothing']
    """
    _check_codes(ignore)
    if isinstance(subject, Trace):
        traced, whole = subject, None
        name = str(subject.run["model"].item() or "unknown model")
    else:
        whole = _subject(subject, text)
        traced, name = whole.trace, subject.name
    meter = Meter(len(CHECKS), progress, stop)
    findings = []
    for each in CHECKS:
        if whole is not None or each.of_trace is not None:
            found = Answer(outcome="ignored", evidence="As was asked.")
            findings.append(
                Finding.of(each, found if each.code in ignore else _found(each, whole, traced))
            )
        meter.advance(1)
    return CheckUp(subject=name, findings=tuple(findings))


def _subject(model: SkipModel, text: str | Document | None) -> Subject:
    return Subject(model=model, ids=short_text(model, text))


def short_text(model: SkipModel, text: str | Document | None) -> Int[Tensor, "1 t"]:
    """Return the first tokens of a text or a conversation, or of a text of prose and code.

    Raises
    ------
    InputError
        If there are fewer than 8.
    """
    if isinstance(text, Document) and text.messages:
        ids = torch.tensor([encoded(model, text, bos=None)[1][0].ids])
    else:
        written = text.text if isinstance(text, Document) else text
        written = CHECKED_TEXT if written is None else check_text(written)
        ids = model.tokenizer(written, return_tensors="pt").input_ids
    if ids.shape[1] < SHORTEST_TEXT:
        raise InputError(
            f"The text has {ids.shape[1]} tokens; a check-up needs at least {SHORTEST_TEXT}."
        )
    return ids[:, :CHECKED_TOKENS].to(model.device)


def _found(each: Check, subject: Subject | None, traced: Trace) -> Answer:
    """Return an answer; what a model's own code makes of a check is told, and ends no other."""
    try:
        if each.of_model is not None and subject is not None:
            with torch.inference_mode():
                return each.of_model(subject)
        if each.of_trace is not None:
            return each.of_trace(traced)
    except Stopped:
        raise
    except Exception as error:
        return Answer(
            outcome="skipped",
            evidence=f"It could not be checked ({type(error).__name__}: {error!s:.200}).",
        )
    return Answer(outcome="skipped", evidence="It needs the model.")


def _check_codes(ignore: Collection[str]) -> None:
    known = [each.code for each in CHECKS]
    for code in ignore:
        if code not in known:
            raise InputError(f"There is no check {code!r}; there are {', '.join(known)}.")
