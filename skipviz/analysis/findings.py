"""What a check is, and what it found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Outcome = Literal["issue", "tip", "passed", "not applicable", "skipped", "ignored"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
SIGNS: Mapping[Outcome, str] = {"issue": "\u2716", "tip": "\u25b2", "passed": "\u2714"}
"""What stands before the word where colours tell outcomes apart; the others have none."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a check found.

    Attributes
    ----------
    outcome
        ``issue``: figures mislead or differ from what the model does. ``tip``: worth knowing when
        they are read. ``not applicable``: this model has nothing to check. ``skipped``: it could
        not be checked. ``ignored``: as was asked.
    figure
        The number that decides, with its unit; empty where there is none.
    evidence
        What was done and seen.
    """

    outcome: Outcome
    figure: str = ""
    evidence: str


@dataclass(frozen=True, kw_only=True)
class Check:
    """One question to a model or a trace.

    Attributes
    ----------
    code
        Stable name, as ``SKV003``.
    title
        What holds if it passes.
    detected
        How it is found out, and from which value on it is an issue or a tip.
    matters
        What a reader of the figures must know where it does not pass.
    advice
        What to do then.
    of_model, of_trace
        What finds it out, with the model at hand or with a trace alone; None: cannot.
    """

    code: str
    title: str
    detected: str
    matters: str
    advice: str
    of_model: Callable[[Any], Answer] | None = None
    of_trace: Callable[[Any], Answer] | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A check and what it found of one model or trace.

    Attributes
    ----------
    code, title, matters, advice
        Of the check; ``matters`` and ``advice`` are empty where it passed.
    outcome, figure, evidence
        Of the answer.

    Examples
    --------
    >>> skipviz.check(trace).findings[0]
    Finding(SKV007, passed: Score against threshold says what ran; 0.0% contradict)
    """

    code: str
    title: str
    outcome: Outcome
    figure: str
    evidence: str
    matters: str
    advice: str

    def __repr__(self) -> str:
        return f"Finding({self.code}, {self.outcome}: {self.title}; {self.figure})"

    @property
    def said(self) -> str:
        """The title, with a word where it does not hold."""
        return f"Does not hold: {self.title}" if self.outcome in ("issue", "tip") else self.title

    @classmethod
    def of(cls, check: Check, verdict: Answer) -> Finding:
        """Return what a check found, with what it means where it is no pass."""
        told = verdict.outcome in ("issue", "tip")
        return cls(
            code=check.code,
            title=check.title,
            matters=check.matters if told else "",
            advice=check.advice if told else "",
            **asdict(verdict),
        )


@dataclass(frozen=True, kw_only=True)
class CheckUp:
    """What all checks found, of a model or of a trace.

    Attributes
    ----------
    subject
        What was checked.
    findings
        In the order of their codes.

    Examples
    --------
    >>> found = skipviz.check(trace)
    >>> [finding.code for finding in found.findings]
    ['SKV007', 'SKV011', 'SKV013', 'SKV014']
    """

    subject: str
    findings: Sequence[Finding]

    def __repr__(self) -> str:
        counts = [
            f"{count} {outcome}"
            for outcome in OUTCOMES
            if (count := sum(each.outcome == outcome for each in self.findings))
        ]
        return f"CheckUp({self.subject!r}, {', '.join(counts)})"

    @property
    def ordered(self) -> list[Finding]:
        """The findings, issues first."""
        return sorted(self.findings, key=lambda each: OUTCOMES.index(each.outcome))

    @property
    def passed(self) -> bool:
        """Whether there is no issue."""
        return not any(each.outcome == "issue" for each in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return {
            "subject": self.subject,
            "passed": self.passed,
            "findings": [asdict(each) for each in self.findings],
        }
