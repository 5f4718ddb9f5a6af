"""Runs a model over texts and returns the trace."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from skipviz.errors import InputError, ModelError
from skipviz.families import Plan
from skipviz.families.causal_lm import (
    has_logits_apart,
    is_causal,
    last_hidden_states,
    layer_list,
    logits_of,
)
from skipviz.families.hooks import after, hooked
from skipviz.families.llama import states_made
from skipviz.families.powers import Traits, force, traits_of
from skipviz.models import SkipModel
from skipviz.models.handle import check_evaluating
from skipviz.progress import Meter, Progress, check_seed, no_progress
from skipviz.recording.build import TokenColumns, build_trace
from skipviz.recording.events import GateEvents
from skipviz.recording.inputs import encoded
from skipviz.recording.statistics import HEAD_ROWS, TokenStatistics, concatenate, token_statistics
from skipviz.recording.text_class import TextClass, logits_in, text_classes
from skipviz.recording.windows import Window, plan_windows
from skipviz.schema import Site
from skipviz.text.arguments import checked
from skipviz.text.documents import Document
from skipviz.text.spans import Encoding, group_spans, span_bounds
from skipviz.traces import Trace

BATCH_TOKENS = 2048
"""Tokens of short texts, padding included, that share a forward."""


@dataclass(frozen=True)
class _Piece:
    """One window of one document."""

    document: int
    window: Window
    ids: list[int]
    target: int
    """The token after the window, or -1."""


@dataclass
class _Recorded:
    """What one forward gave, cut back to the tokens that are reported."""

    matrices: dict[str, npt.NDArray[Any]]
    statistics: TokenStatistics | None
    context: npt.NDArray[Any] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    text_class: TextClass | None = None


@checked
def trace(
    model: SkipModel,
    texts: Any,
    *,
    bos: bool | None = None,
    statistics: bool = True,
    plan: Plan | None = None,
    window: int | None = None,
    overlap: int | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> Trace:
    """Run a model over texts and return which layers each token used, and why.

    Parameters
    ----------
    model
        What ``skipviz.load`` returned.
    texts
        A text, a document, or several: each becomes one sequence of the trace. Or a conversation,
        a list of messages with ``role`` and ``content``, written as the chat template does, which
        a document can hold too; or token ids, as a list or an array, run as they are.
    bos
        Whether each text begins with the begin-of-sequence token; None: as the tokenizer does. It
        is a token of the trace without characters.
    statistics
        Whether to keep loss, entropy and the five most likely next tokens; of a model that
        predicts a class of a text, this class.
    plan
        Decisions to make instead of the gates; for a single text that fits one window.
    window
        Tokens to run at once, at most the model's context, which is the default.
    overlap
        Tokens that consecutive windows share; half a window by default.
    seed
        Seed of what routers draw from torch's generator in this run.
    progress
        Called with the share of the work done, 0 to 1.
    stop
        Set it from another thread to stop.

    Returns
    -------
    Trace
        One row per token in ``tokens``, and one per token and site in ``decisions``.

    Raises
    ------
    TextError
        If a text is blank or cannot be encoded.
    ValueError
        If the window does not fit the model, or the plan does not fit the text.
    Stopped
        If ``stop`` was set.

    Examples
    --------
    >>> trace = skipviz.trace(model, "The fox jumps.")
    >>> trace.tokens.select("text", "layers_used").head(3).rows()
    [('The', 3.0), (' fo', 4.0), ('x', 4.0)]
    >>> trace.decisions.height == len(trace) * trace.sites.height  # one row per gate and token
    True
    """
    check_seed(seed)
    check_evaluating(model)
    documents, encodings = encoded(model, texts, bos=bos)
    size = model.context if window is None else window
    if not 1 < size <= model.context:
        raise InputError(f"window={size} must lie between 2 and the context, {model.context}.")
    shared = size // 2 if overlap is None else overlap
    pieces = [
        piece
        for index, encoding in enumerate(encodings)
        for piece in _pieces(index, encoding, window=size, overlap=shared)
    ]
    if plan is not None and len(pieces) != 1:
        raise InputError(
            f"A plan decides one text in one window; there are {len(pieces)} windows here."
        )
    traits, sites = traits_of(model.family, model.model), model.family.sites(model.model)
    if traits.drafts:
        raise InputError(
            f"{model.name} is of the family {model.family.name}, which skips only in drafting: a "
            "text that is given runs every layer. Record a generation with skipviz.record, or "
            "leave family out of from_parts to trace the text."
        )
    if not sites:  # routers may look ahead, or draw
        _check_causal(model)
    meter = Meter(sum(len(piece.ids) for piece in pieces), progress, stop)
    recorded: dict[int, _Recorded] = {}
    with torch.inference_mode(), drawing_from(seed):
        for batch in _batches(pieces, alone=not traits.batchable):
            run = _run(model, [pieces[i] for i in batch], statistics, plan, traits, sites, meter)
            recorded.update(zip(batch, run, strict=True))
    windowed = len(pieces) > len(documents)
    parts = [recorded[i] for i in range(len(pieces))]
    return build_trace(
        model,
        _columns(documents, encodings, [part.context for part in parts]),
        {
            name: np.concatenate([part.matrices[name] for part in parts])
            for name in parts[0].matrices
        },
        statistics=_joined([part.statistics for part in parts]),
        classes=[part.text_class for part in parts for _ in part.context],
        policy=model.policy if plan is None else "forced",
        window=size if windowed else None,
        window_overlap=shared if windowed else None,
        seed=seed if any(site.rule == "sample" for site in sites) else None,
    )


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Let torch draw from a seed in this block, and go on afterwards where it stood."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _check_causal(model: SkipModel) -> None:
    if not is_causal(model.model):
        raise InputError(
            f"{model.name} is not a causal language model: later tokens change what "
            f"{type(model.model).__name__} predicts for earlier ones, so it has no loss on the "
            "next token. skipviz.record shows what it does while you run it."
        )


def _pieces(document: int, encoding: Encoding, *, window: int, overlap: int) -> list[_Piece]:
    ids = encoding.ids
    return [
        _Piece(
            document=document,
            window=part,
            ids=ids[part.start : part.stop],
            target=ids[part.stop] if part.stop < len(ids) else -1,
        )
        for part in plan_windows(len(ids), window=window, overlap=overlap)
    ]


def _batches(pieces: list[_Piece], *, alone: bool) -> list[list[int]]:
    """Group pieces of like length, so that little is padding; or leave each alone."""
    if alone:
        return [[index] for index in range(len(pieces))]
    batches: list[list[int]] = []
    for index in sorted(range(len(pieces)), key=lambda i: len(pieces[i].ids)):
        padded = len(pieces[index].ids)
        if batches and padded * (len(batches[-1]) + 1) <= BATCH_TOKENS:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


@contextmanager
def _watching(model: nn.Module, meter: Meter, *, tokens: int, rounds: int) -> Iterator[float]:
    """Count a forward of so many tokens layer by layer, and give the share that is left.

    Layers run in so many rounds. The head counts as one layer more. Where layers cannot be found,
    all is left.
    """
    layers = list(layer_list(model) or ())
    share = tokens / (len(layers) * rounds + 1)
    with hooked(after(layer, lambda *_: meter.advance(share)) for layer in layers):
        yield share


def _run(
    model: SkipModel,
    pieces: list[_Piece],
    statistics: bool,
    plan: Plan | None,
    traits: Traits,
    sites: list[Site],
    meter: Meter,
) -> list[_Recorded]:
    longest = max(len(piece.ids) for piece in pieces)
    ids = torch.zeros((len(pieces), longest), dtype=torch.long)
    keep = torch.zeros((len(pieces), longest), dtype=torch.bool)
    for row, piece in enumerate(pieces):
        ids[row, : len(piece.ids)] = torch.tensor(piece.ids)
        keep[row, : len(piece.ids)] = True
    # Without padding no mask is given: attention then takes its faster, causal path.
    mask = None if bool(keep.all()) else keep.long().to(model.device)
    events = GateEvents()
    tokens = sum(len(piece.ids) for piece in pieces)
    # Tried before anything is watched.
    tokens_predicted = statistics and traits.predicts
    apart = tokens_predicted and traits.in_backbone and has_logits_apart(model.model)
    states = traits.in_backbone and traits.predicts and (apart or not statistics)
    rounds = 1 + max((site.visit for site in sites), default=0)
    with (
        _watching(model.model, meter, tokens=tokens, rounds=rounds) as share,
        model.family.observe(model.model, events),
    ):
        made = _forward(model, ids, mask, plan, states=states, logits=statistics)
    kept = keep.to(model.device)
    matrices = events.matrices(len(sites), kept, silent=traits.silent)
    figures = None
    if made is not None and tokens_predicted:
        figures = _statistics(model, made[kept], _targets(pieces, longest)[keep], states=apart)
        if figures.entropy.isnan().any():
            raise _not_finite(model, ids, mask, plan, kept, states=states)
    if not (traits.silent or traits.leaves):  # whose tokens may have left
        _check_scores(model, events, sites, matrices["score"], ids[keep])
    meter.advance(share)
    classes = text_classes(model.model, made) if made is not None and not traits.predicts else None
    return _cut(pieces, matrices, figures, classes, whole=not traits.predicts)


def _forward(
    model: SkipModel,
    ids: Int[Tensor, "b t"],
    mask: Tensor | None,
    plan: Plan | None,
    *,
    states: bool,
    logits: bool = True,
) -> Tensor | None:
    """Return last hidden states, or the logits of the model's own forward, or nothing."""

    def run() -> Tensor | None:
        inputs: dict[str, Any] = {"input_ids": ids.to(model.device), "attention_mask": mask}
        if states:
            return last_hidden_states(model.model, **inputs)
        if traits_of(model.family, model.model).predicts:
            inputs["use_cache"] = False
        output = model.model(**inputs)
        return logits_in(output) if logits else None

    if plan is None:
        return run()
    if plan.execute.shape[-2] != ids.shape[1]:
        raise InputError(
            f"The plan decides {plan.execute.shape[-2]} tokens; the text has {ids.shape[1]}."
        )
    with force(model.family, model.model, plan, name=model.name):
        return run()


def _not_finite(
    model: SkipModel,
    ids: Int[Tensor, "b t"],
    mask: Tensor | None,
    plan: Plan | None,
    kept: Bool[Tensor, "b t"],
    *,
    states: bool,
) -> ModelError:
    """Return an error that says where a forward first gives NaN or infinite numbers."""
    found: list[str] = []

    def look(number: int) -> Callable[..., None]:
        def hook(_: Any, args: Any, result: Any) -> None:
            wrong = ~states_made(result).isfinite().all(-1) & kept
            if wrong.any() and not found:
                row, column = wrong.nonzero()[0].tolist()
                token = repr(model.tokenizer.decode([int(ids[row, column])]))
                found.append(f"from layer {number} on, first at token {column} ({token})")

        return hook

    layers = list(layer_list(model.model) or ())
    with hooked(after(layer, look(number)) for number, layer in enumerate(layers)):
        _forward(model, ids, mask, plan, states=states)
    where = found[0] if found else "behind its last layer"
    return ModelError(
        f"{model.name} gives NaN or infinite numbers {where}. Its weights may be damaged, or "
        f"{model.dtype} too short for it; try dtype='float32'."
    )


def _check_scores(
    model: SkipModel,
    events: GateEvents,
    sites: list[Site],
    score: npt.NDArray[Any],
    ids: Int[Tensor, " n"],
) -> None:
    """Raise ``ModelError`` where a gate that scores gives NaN, which is neither high nor low."""
    for site, place in enumerate(sites):
        if events.scores_all(site) and (wrong := np.flatnonzero(np.isnan(score[:, site]))).size:
            token = repr(model.tokenizer.decode([int(ids[wrong[0]])]))
            raise ModelError(
                f"The gate {place.label} of {model.name} gives NaN for {wrong.size} of "
                f"{len(score)} tokens, first for {token}. Its weights may be damaged, or "
                f"{model.dtype} too short for it; try dtype='float32'."
            )


def _targets(pieces: list[_Piece], longest: int) -> Int[Tensor, "b t"]:
    targets = torch.full((len(pieces), longest), -1)
    for row, piece in enumerate(pieces):
        targets[row, : len(piece.ids)] = torch.tensor([*piece.ids[1:], piece.target])
    return targets


def _statistics(
    model: SkipModel, made: Tensor, targets: Tensor, *, states: bool
) -> TokenStatistics:
    return concatenate(
        [
            token_statistics(
                logits_of(model.model, rows) if states else rows, wanted.to(model.device)
            )
            for rows, wanted in zip(made.split(HEAD_ROWS), targets.split(HEAD_ROWS), strict=True)
        ]
    )


def _cut(
    pieces: list[_Piece],
    matrices: dict[str, npt.NDArray[Any]],
    statistics: TokenStatistics | None,
    classes: list[TextClass | None] | None,
    *,
    whole: bool,
) -> list[_Recorded]:
    """Give each piece its own rows, without those that the window before has reported.

    A model that reads a text as a whole lets each token see all others.
    """
    recorded = []
    first = 0
    for place, piece in enumerate(pieces):
        rows = slice(first + piece.window.report - piece.window.start, first + len(piece.ids))
        first += len(piece.ids)
        skipped, count = piece.window.report - piece.window.start, len(piece.ids)
        seen = np.full(count, count) if whole else np.arange(count) + 1
        recorded.append(
            _Recorded(
                matrices={name: matrix[rows] for name, matrix in matrices.items()},
                statistics=None if statistics is None else statistics.rows(rows),
                context=seen[skipped:],
                text_class=None if classes is None else classes[place],
            )
        )
    return recorded


def _joined(parts: list[TokenStatistics | None]) -> TokenStatistics | None:
    present = [part for part in parts if part is not None]
    return concatenate(present) if present else None


def _columns(
    documents: list[Document], encodings: list[Encoding], contexts: list[npt.NDArray[Any]]
) -> TokenColumns:
    sizes = [len(encoding.ids) for encoding in encodings]
    starts, ends, spans, texts = [], [], [], []
    first_span = 0
    for document, encoding in zip(documents, encodings, strict=True):
        span = group_spans(encoding.char_start, encoding.char_end)
        start, end = _whole_characters(document.text, encoding, span)
        starts.append(start)
        ends.append(end)
        spans.append(span + first_span)
        first_span += int(span[-1]) + 1
        texts += [document.text[a:b] for a, b in zip(start, end, strict=True)]
    return TokenColumns(
        source=[d.source for d, size in zip(documents, sizes, strict=True) for _ in range(size)],
        sequence=np.repeat(np.arange(len(sizes)), sizes),
        position=np.concatenate([np.arange(size) for size in sizes]),
        token_id=np.concatenate([np.array(e.ids, dtype=np.int64) for e in encodings]),
        text=texts,
        char_start=np.concatenate(starts),
        char_end=np.concatenate(ends),
        span=np.concatenate(spans),
        context=np.concatenate(contexts),
        decode=np.zeros(sum(sizes), dtype=np.bool_),
    )


def _whole_characters(
    text: str, encoding: Encoding, span: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return each token's characters, those that the tokenizer dropped given to a neighbour."""
    start, end = encoding.char_start.copy(), encoding.char_end.copy()
    bounds = span_bounds(start, end, length=len(text))
    first = np.flatnonzero(np.diff(span, prepend=-1))
    last = np.append(first[1:], len(span)) - 1
    start[first] = np.minimum(start[first], bounds[:, 0])
    end[last] = np.maximum(end[last], bounds[:, 1])
    return start, end
