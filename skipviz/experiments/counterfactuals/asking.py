"""Questions about one trace: what must be run for each, and what is kept of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from skipviz.analysis.counterfactual import WhatIf
from skipviz.errors import InputError
from skipviz.experiments.counterfactuals.compared import compared, known_statistics
from skipviz.experiments.counterfactuals.kept_run import KeptRun, makes_states
from skipviz.experiments.counterfactuals.question import AnswerKey, Question
from skipviz.experiments.same_model import check_traced
from skipviz.families.causal_lm import layer_list
from skipviz.families.powers import CanMoveThresholds
from skipviz.models import SkipModel
from skipviz.models.hashes import sampled_sha256
from skipviz.progress import Meter, Progress, part_of
from skipviz.recording.build import TokenColumns, build_trace
from skipviz.recording.statistics import concatenate
from skipviz.traces import Trace

ANSWERS_KEPT = 16
"""Of each trace; the one asked for longest ago goes first."""
RUNS_KEPT = 2
"""Texts whose hidden states are kept; the one asked about longest ago goes first."""


@dataclass(eq=False)
class _Memory:
    """What is kept of a trace: its run, and answers by what was asked."""

    weights: tuple[Any, ...]
    run: KeptRun | None = None
    answers: OrderedDict[AnswerKey, dict[str, Any]] = field(default_factory=OrderedDict)


_LOCK = threading.Lock()
_MEMORIES: WeakKeyDictionary[Trace, _Memory] = WeakKeyDictionary()
_WITH_RUNS: list[_Memory] = []
"""Those that keep a run, the latest last."""


@dataclass(frozen=True, eq=False, kw_only=True)
class _Rerun:
    """What a question changed.

    Attributes
    ----------
    matrices
        As of the new trace.
    token
        The first token that ran.
    made
        What ``Ran.made`` is, of the tokens that ran; None if nothing had to be run.
    computed_anew
        As of ``WhatIf``.
    """

    matrices: dict[str, npt.NDArray[Any]]
    token: int
    made: Float[Tensor, "n d"] | None
    computed_anew: str


class Asking:
    """Asks a model about a trace.

    Parameters
    ----------
    model
        The model that was traced.
    trace
        Of one text.
    progress, stop
        As of ``what_if``.
    """

    def __init__(
        self,
        model: SkipModel,
        trace: Trace,
        progress: Progress,
        stop: threading.Event | None,
    ) -> None:
        self._model, self._trace, self._progress, self._stop = model, trace, progress, stop
        self._memory = _memory(model, trace)
        self._layers = len(layer_list(model.model) or [model.model])
        self._latest: tuple[Question, _Rerun] | None = None

    def answer(self, question: Question, *, key: AnswerKey | None = None) -> WhatIf:
        """Return the answer, which is kept under the question's own key, or the one given."""
        known = self._memory.answers.get(question.key)
        if known is None:
            known = self._computed(question)
        return self._keep(key or question.key, known, question.words)

    def kept(self, key: AnswerKey, words: str) -> WhatIf | None:
        """Return the answer that is kept under a key, if there is one."""
        known = self._memory.answers.get(key)
        return None if known is None else self._keep(key, known, words)

    def _keep(self, key: AnswerKey, known: dict[str, Any], words: str) -> WhatIf:
        answers = self._memory.answers
        with _LOCK:
            answers[key] = known
            answers.move_to_end(key)
            while len(answers) > ANSWERS_KEPT:
                answers.popitem(last=False)
        self._progress(1.0)
        # The trace that was is not kept with its answers: they would keep each other.
        return WhatIf(question=words, before=self._trace, **known)

    def decisions(self, question: Question) -> Trace:
        """Return the trace with the decisions that would be made; its statistics stay."""
        return replace(self._trace, matrices=self._rerun(question).matrices)

    def _computed(self, question: Question) -> dict[str, Any]:
        """Return what is kept of an answer."""
        trace, model = self._trace, question.model
        rerun = self._rerun(question)
        figures, kl = known_statistics(trace), np.zeros(len(trace))
        if rerun.made is not None:
            run, first = self._run(), rerun.token
            targets = torch.cat([run.ids[0], run.ids.new_tensor([-1])])[first + 1 :]
            known = run.predictions is not None
            was = run.made if run.predictions is None else run.predictions
            new, divergence = compared(
                model, was[first:], rerun.made, targets, apart=makes_states(model), known=known
            )
            figures = concatenate([figures.rows(slice(first)), new.to(torch.device("cpu"))])
            kl[first:] = divergence.double().cpu().numpy()
        made = build_trace(
            model,
            _columns(trace),
            rerun.matrices,
            statistics=figures,
            policy=model.policy if question.plan is None else "forced",
            seed=trace.run["seed"].item(),
        )
        return {
            "trace": made,
            "asked": question.asked,
            "kl": kl,
            "computed_anew": rerun.computed_anew,
        }

    def _rerun(self, question: Question) -> _Rerun:
        """Run for a question, unless it was the last one that was run for."""
        if self._latest is None or self._latest[0] is not question:
            self._latest = (question, self._run_again(question))
        return self._latest[1]

    def _run_again(self, question: Question) -> _Rerun:
        """Run what may differ, or nothing where no decision does."""
        trace, progress = self._trace, self._progress
        if self._memory.run is None:  # which is half of the work
            progress = part_of(progress, 1, 2)
        run = self._run()
        layer = token = 0
        if run.can_resume and question.traceable:
            if not question.asked.any():
                matrices = _under(question, trace)
                return _Rerun(
                    matrices=matrices, token=len(trace), made=None, computed_anew="nothing"
                )
            tokens, sites = np.nonzero(question.asked)
            layer, token = int(trace.sites["layer"][int(sites.min())]), int(tokens.min())
        meter = Meter(self._layers - layer + 1, progress, self._stop)
        ran = run.run(
            question.model, trace, question.plan, layer=layer, token=token, each_layer=meter.advance
        )
        if not (layer or token):
            return _Rerun(matrices=ran.matrices, token=0, made=ran.made, computed_anew="")
        matrices = _under(question, trace)
        above = trace.sites["layer"].to_numpy() >= layer
        for name, matrix in matrices.items():
            matrix[token:, above] = ran.matrices[name][:, above]
        anew = f"layers {layer} to {self._layers - 1}, tokens {token} to {len(trace) - 1}"
        return _Rerun(matrices=matrices, token=token, made=ran.made, computed_anew=anew)

    def _run(self) -> KeptRun:
        """Return the run that the trace is of, made again the first time."""
        # A local: questions about other texts may let go of what is kept at any time.
        run = self._memory.run
        if run is None:
            meter = Meter(self._layers, part_of(self._progress, 0, 2), self._stop)
            run = KeptRun.of(self._model, self._trace, each_layer=meter.advance)
        with _LOCK:
            self._memory.run = run
            if self._memory in _WITH_RUNS:
                _WITH_RUNS.remove(self._memory)
            _WITH_RUNS.append(self._memory)
            while len(_WITH_RUNS) > RUNS_KEPT:
                _WITH_RUNS.pop(0).run = None
        return run


def check_trace(model: SkipModel, trace: Trace) -> None:
    """Raise ``InputError`` unless a trace is one that questions can be asked about."""
    if trace.run["loss"].item() == "none":
        raise InputError(
            "The model reads a text as a whole and predicts no next token, so there is no loss "
            "that other decisions could change. Trace the text with a model that predicts one."
        )
    sequences = trace.tokens["sequence"].n_unique()
    if sequences != 1 or trace.tokens["context"].to_list() != list(range(1, len(trace) + 1)):
        raise InputError(
            f"The trace has {len(trace):,} tokens of {sequences} texts, run in several windows or "
            "together; a question is about one text that fits one window. Trace a part of it."
        )
    if trace.sites.is_empty():
        raise InputError("The trace has no sites; trace the text with a model that skips.")
    if trace.tokens["entropy"].null_count():
        raise InputError(
            "The trace has no losses; trace the text with statistics=True, by a model that "
            "predicts the next token."
        )
    check_traced(model, trace)


def _memory(model: SkipModel, trace: Trace) -> _Memory:
    """Return what is kept of a trace, as long as the weights are the same numbers.

    A version counts what is changed in place, but not through ``.data``; hence a sample of the
    numbers themselves.
    """
    weights = (
        model.runtime,
        sampled_sha256(model),
        *((each.data_ptr(), 0 if each.is_inference() else each._version)
          for each in model.model.parameters()),
    )  # fmt: skip
    with _LOCK:
        known = _MEMORIES.get(trace)
        if known is None or known.weights != weights:
            known = _MEMORIES[trace] = _Memory(weights)
        return known


def _under(question: Question, trace: Trace) -> dict[str, npt.NDArray[Any]]:
    """Return the matrices of a trace, to be changed, with a question's thresholds and plan."""
    matrices = {name: np.array(matrix) for name, matrix in trace.matrices.items()}
    family, plan = question.model.family, question.plan
    if isinstance(family, CanMoveThresholds):
        matrices["threshold"][:] = family.thresholds(question.model.model)
    matrices["forced"][:] = False if plan is None or plan.forced is None else plan.forced
    return matrices


def _columns(trace: Trace) -> TokenColumns:
    """Return what is known of a trace's tokens beside their statistics."""
    tokens = trace.tokens
    return TokenColumns(
        source=tokens["source"].to_list(),
        text=tokens["text"].to_list(),
        decode=(tokens["phase"] == "decode").to_numpy(),
        **{
            name: tokens[name].fill_null(-1).to_numpy()
            for name in (
                "sequence", "position", "token_id", "char_start", "char_end", "span", "context"
            )
        },
    )  # fmt: skip
