"""What an attribution explains, and how Captum's runs are watched and kept small."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from skipviz.errors import InputError
from skipviz.families.causal_lm import layer_list, logits_of
from skipviz.families.hooks import after, hooked
from skipviz.families.powers import CanFlip
from skipviz.models import SkipModel
from skipviz.progress import Meter, Progress, check_stop, no_progress
from skipviz.text.arguments import check_types
from skipviz.traces import Trace

TOKENS_AT_ONCE = 512
"""Tokens run at once, if nothing else is asked."""
MOST_STEPS = 10_000
FORWARD_SHARE = 1 / 3
"""Of the time of a run whose gradient is taken: the way back takes about twice as long."""

ScoredRun = Callable[[Tensor], Float[Tensor, " b"]]
"""Gives the target of each copy of the text."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is to be explained.

    Attributes
    ----------
    token
        Its place in the text.
    kind
        ``log_probability`` of the word that came next, or of ``word``; ``loss`` on it; ``contrast``
        of the logits of ``word`` and ``against``; ``score`` of the gate at ``site``.
    word, against
        Token ids; the word that came next if there is none.
    site
        Index of the site, for ``score``.

    Examples
    --------
    >>> skipviz.Target(token=5)
    Target(token=5, kind='log_probability', word=None, against=None, site=None)
    >>> skipviz.Target(token=5, kind="score", site=2).kind
    'score'
    """

    token: int
    kind: Literal["log_probability", "loss", "contrast", "score"] = "log_probability"
    word: int | None = None
    against: int | None = None
    site: int | None = None

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True, eq=False)
class Attribution:
    """Shares of a target.

    Attributes
    ----------
    table
        One row per token (``token``, ``attribution``) or per cell (``token``, ``site``,
        ``from_skipped``, ``to_all``), in the target's unit: nats, or the gate's own scale.
    value
        The target on the text as it is.
    deltas
        By how much the shares of each path miss the difference that they should add up to; empty
        for methods that promise no sum.
    due, steps
        What the shares of each path over depth should add up to, and the points that were taken;
        empty for other methods.

    Examples
    --------
    >>> target = skipviz.Target(token=5, kind="loss")
    >>> found = skipviz.attribute(model, trace, target, method="input_x_gradient")
    >>> found.table.columns
    ['token', 'attribution']
    """

    table: pl.DataFrame
    value: float
    deltas: tuple[float, ...]
    due: tuple[float, ...] = ()
    steps: tuple[int, ...] = ()

    def __repr__(self) -> str:
        kind = ", ".join(self.table.columns)
        return f"Attribution({self.table.height:,} rows of {kind}; value={self.value:.4g})"

    @property
    def delta(self) -> float | None:
        """The largest miss; None for methods that promise no sum."""
        return max(self.deltas, key=abs, default=None)


def check_steps(steps: int) -> None:
    """Check how many points, or samples, an attribution is to take.

    Raises
    ------
    InputError
        If there are none, or so many that it would never end.
    """
    if not 1 <= steps <= MOST_STEPS:
        raise InputError(f"steps={steps:,} must be from 1 to {MOST_STEPS:,}.")


def copies(rows: int, tokens: int) -> int:
    """Return how many copies of a text run at once, at least one.

    Raises
    ------
    ValueError
        If ``rows`` is below 1.
    """
    if rows < 1:
        raise InputError(f"rows={rows} must be at least 1 token.")
    return max(1, rows // tokens)


def watched(
    model: SkipModel,
    run: ScoredRun,
    *,
    total: int,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> ScoredRun:
    """Return the same function, which tells layer by layer how far it is and can be stopped.

    Parameters
    ----------
    model
        What it runs.
    run
        What is called again and again.
    total
        Copies of the text that will have run when all is done.
    progress
        Called with the share of them that have.
    stop
        Set it from another thread; the next layer, forwards or backwards, raises ``Stopped``.
    """
    meter = Meter(total, progress, stop)
    layers: Iterable[nn.Module] = layer_list(model.model) or [model.model]
    count = len(list(layers))

    def counted(inputs: Tensor) -> Float[Tensor, " b"]:
        check_stop(stop)
        share = len(inputs) / count

        def leaving(layer: nn.Module, args: Any, result: Any) -> None:
            states = result[0] if isinstance(result, tuple) else result
            if isinstance(states, Tensor) and states.requires_grad:
                meter.advance(share * FORWARD_SHARE)
                states.register_hook(lambda _: meter.advance(share * (1 - FORWARD_SHARE)))
            else:
                meter.advance(share)

        with hooked(after(layer, leaving) for layer in layers):
            return run(inputs)

    return counted


def ids_until(model: SkipModel, trace: Trace, token: int) -> Int[Tensor, "1 t"]:
    """Return the text up to a token: what follows cannot contribute."""
    ids = trace.tokens["token_id"].to_list()[: token + 1]
    return torch.tensor([ids], device=model.device)


def resolved(target: Target, trace: Trace) -> Target:
    """Return the target with the word that came next where none is named."""
    if target.word is not None or target.kind == "score":
        return target
    return replace(target, word=int(trace.tokens["token_id"][target.token + 1]))


def prediction(
    model: SkipModel, states: Float[Tensor, "b t d"], target: Target
) -> Float[Tensor, " b"]:
    """Return what a target says of the last hidden states; it is no gate's score."""
    logits = logits_of(model.model, states[:, target.token]).float()
    if target.kind == "contrast":
        return logits[:, target.word] - logits[:, target.against]
    log = logits.log_softmax(-1)[:, target.word]
    return -log if target.kind == "loss" else log


def check_one_text(trace: Trace) -> None:
    """Raise ``ValueError`` unless the trace is of one text."""
    if trace.tokens["sequence"].n_unique() != 1:
        raise InputError(
            f"The trace has {trace.tokens['sequence'].n_unique()} sequences; attribution takes one "
            "text at a time."
        )


def _looks(model: SkipModel, site: int) -> bool:
    """Return whether a gate looks at the token that it decides for."""
    units = model.family.units(model.model) if isinstance(model.family, CanFlip) else []
    return site < len(units) and units[site].looks


def check_target(model: SkipModel, trace: Trace, target: Target) -> None:
    """Raise ``ValueError`` if there is no such target, or no one text to explain it by."""
    check_one_text(trace)
    last = len(trace) - (1 if target.kind == "score" or target.word is not None else 2)
    if not 0 <= target.token <= last:
        raise InputError(f"token={target.token} cannot be explained; choose one from 0 to {last}.")
    if target.token >= model.context:
        raise InputError(
            f"token={target.token} lies beyond the {model.context} tokens that the model sees at "
            "once; trace a part of the text."
        )
    if target.kind == "contrast" and target.against is None:
        raise InputError("A contrast needs the token id to compare with: Target(against=...).")
    words = model.model.config.vocab_size
    for name, word in (("word", target.word), ("against", target.against)):
        if word is not None and not 0 <= word < words:
            raise InputError(f"{name}={word} is no token id; choose one from 0 to {words - 1}.")
    if target.kind == "score" and (
        target.site is None or not 0 <= target.site < trace.sites.height
    ):
        raise InputError(
            f"site={target.site} has no gate; choose one from 0 to {trace.sites.height - 1}."
        )
    if target.kind == "score" and not _looks(model, target.site or 0):
        raise InputError(
            f"{model.name} has no gate at site {target.site} whose score comes from the text; "
            "explain a loss or a word."
        )
