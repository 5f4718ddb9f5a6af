"""What the neighbours of a text do to it: words before it, and other texts in its batch."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from skipviz.analysis.robustness.decision_shift import OTHER_CONTEXT
from skipviz.analysis.tokens.words import Words
from skipviz.arrays import Bools, Ints
from skipviz.errors import InputError
from skipviz.experiments.robustness.perturbations import Surface, surface
from skipviz.experiments.robustness.surface import aligned_words, beginnings, check_gates
from skipviz.families.powers import traits_of
from skipviz.models import SkipModel
from skipviz.progress import Progress, no_progress
from skipviz.recording.tracing import BATCH_TOKENS, trace
from skipviz.text.documents import Document, check_no_conversation
from skipviz.text.sentences import sentence_ends
from skipviz.traces import Trace

SENTENCES = 16
"""Sentences that are run in other contexts, if nothing else is asked."""
PREFIX = 200
"""Characters before a sentence that make its context, about 50 tokens."""
SHORTEST, LONGEST = 4, 40
"""Words of a sentence; what is longer is cut."""
OWN, ALONE = "its own context", "no context"
TIE = 1e-5
"""So near a threshold, rounding decides."""
LENGTHS = (5, 10, 20, 40, 80)
"""Words of the texts that share a batch."""


def context_changes(
    model: SkipModel,
    documents: Sequence[Document],
    *,
    sentences: int = SENTENCES,
    seed: int = 0,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> pl.DataFrame:
    """Run sentences after the words they came with, after others, and alone.

    Parameters
    ----------
    model
        A model that skips.
    documents
        Texts; sentences with something before them are drawn from all of them.
    sentences
        How many at most.
    seed
        Seed of the draw, and of the contexts that sentences are put into.
    progress, stop
        As for ``skipviz.experiments.robustness.surface.surface_changes``.

    Returns
    -------
    pl.DataFrame
        As ``surface_changes`` has it, each sentence a unit; ``kind`` is ``no context`` or
        ``another context``, ``word`` is the place in the sentence, ``before`` its own context.
        The other context is what precedes a sentence of another text, or else of a place so far
        away that the two share nothing; a sentence without any such has no rows of that kind.

    Raises
    ------
    ValueError
        If the model has no gates, or the texts have fewer than two sentences with something
        before them.
    Stopped
        If ``stop`` was set.
    """
    check_gates(model)
    check_no_conversation(documents)
    found = [each for document in documents for each in _sentences(document)]
    if len(found) < 2:
        raise InputError(
            f"There are {len(found)} sentences of {SHORTEST} words or more with others before "
            "them; two are needed to exchange what precedes them. Give a longer text."
        )
    generator = random.Random(seed)
    chosen = generator.sample(found, min(sentences, len(found)))
    others = generator.sample(found, len(found))
    runs = [(own, _contexts(own, others)) for own in chosen]
    texts = [prefix + own.text for own, contexts in runs for prefix in contexts.values()]
    traced = trace(model, texts, progress=progress, stop=stop)
    parts = []
    number = 0
    for own, contexts in runs:
        base = surface(own.text)
        words: dict[str, Words] = {}
        for kind, prefix in contexts.items():
            words[kind] = _words(traced, number, base, len(prefix))
            number += 1
        here = words.pop(OWN)
        for kind, there in words.items():
            rows = aligned_words(
                (base, here),
                (base, there),
                [(i, i) for i in range(len(base.spans))],
                kind=kind,
                source=f"{own.document.source}, character {own.start}",
                unit=None,
            )
            parts.append(rows)
    return pl.concat(parts)


def batch_changes(
    model: SkipModel,
    documents: Sequence[Document],
    *,
    seed: int = 0,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> pl.DataFrame:
    """Run pieces of text each alone and all in one padded batch: nothing should change.

    Parameters
    ----------
    model
        A model that skips.
    documents
        Texts; pieces of several lengths are drawn from them.
    seed
        Seed of the draw.
    progress, stop
        As for ``skipviz.experiments.robustness.surface.surface_changes``.

    Returns
    -------
    pl.DataFrame
        One row per piece, the shortest first: ``piece``, its text; ``tokens``; ``padding``, tokens
        put behind it in the batch; ``decisions``; ``flips``, decisions that came out otherwise;
        ``followed``, those of the flips that stand behind another one, which moved the state they
        were made from; ``ties``, those of the rest whose score is within 1e-5 of its threshold,
        where rounding decides; ``score_difference``, the largest, on the gate's own scale;
        ``loss_difference``, the largest of a token, in nats.

    Raises
    ------
    ValueError
        If the model has no gates or runs in another type than float32, or the texts have too few
        words for two pieces.
    Stopped
        If ``stop`` was set.
    """
    check_gates(model)
    batchable = traits_of(model.family, model.model).batchable
    told = why_no_batch(model.name, batchable=batchable, dtype=model.dtype)
    if told is not None:
        raise InputError(told)
    pieces = _pieces(documents, random.Random(seed))
    done = 0.0
    alone: list[Trace] = []
    for piece in pieces:
        alone.append(trace(model, piece, stop=stop))
        done += 1
        progress(done / (len(pieces) + 1))
    order = sorted(range(len(pieces)), key=lambda i: len(alone[i]))
    limit = min(model.context, BATCH_TOKENS // len(pieces))
    order = [i for i in order if len(alone[i]) <= limit]
    if len(order) < 2:
        raise InputError("Too few pieces of the text fit one batch; give a text with more words.")
    together = trace(model, [pieces[i] for i in order], stop=stop)
    longest = len(alone[order[-1]])
    rows = [
        {
            "piece": pieces[i],
            "tokens": len(alone[i]),
            "padding": longest - len(alone[i]),
            **_differences(alone[i], together, place),
        }
        for place, i in enumerate(order)
    ]
    progress(1.0)
    return pl.DataFrame(rows)


def why_no_batch(name: str, *, batchable: bool, dtype: str) -> str | None:
    """Return why no texts of a model can be compared with themselves in a batch; None if some can.

    Parameters
    ----------
    name
        Of the model.
    batchable
        As of ``skipviz.families.powers.Traits``.
    dtype
        That it runs in.
    """
    if not batchable:
        return (
            f"Texts are run one by one in {name}, whose decisions may depend on the batch, "
            "so there is no batch to compare with. The check-up tries one (SKV005)."
        )
    if dtype != "float32":
        return (
            f"In {dtype} rounding alone turns many decisions over. Load the model with "
            'dtype="float32" to see whether its neighbours reach a text.'
        )
    return None


@dataclass(frozen=True)
class _Sentence:
    """A sentence, white space first, and what precedes it.

    Attributes
    ----------
    document
        The text that it is of.
    begin, start
        The characters at which it and its first word begin.
    text
        From ``begin`` on.
    prefix
        What ends at ``begin``.
    """

    document: Document
    begin: int
    start: int
    text: str
    prefix: str


def _sentences(document: Document) -> list[_Sentence]:
    """Return the sentences of a text that have something before them, with that."""
    text = document.text
    found = []
    for start, stop in pairwise([*sentence_ends(text, lines=True), len(text)]):
        spans = surface(text[start:stop]).spans[:LONGEST]
        if len(spans) < SHORTEST:
            continue
        prefix = text[max(0, start - PREFIX) : start]
        # Not from the middle of a word.
        cut = prefix.find(" ") + 1 if start > PREFIX else 0
        found.append(
            _Sentence(
                document=document,
                begin=start,
                start=start + spans[0][0],
                text=text[start : start + spans[-1][1]],
                prefix=prefix[cut:],
            )
        )
    return found


def _contexts(own: _Sentence, others: Sequence[_Sentence]) -> dict[str, str]:
    """Return what a sentence is run after; no other context if all there are overlap its own."""
    contexts = {OWN: own.prefix, ALONE: ""}
    strangers = [other for other in others if _strange(own, other)]
    # Those of other texts first; the order among them stays as it is.
    strangers.sort(key=lambda other: other.document.text == own.document.text)
    if strangers:
        contexts[OTHER_CONTEXT] = strangers[0].prefix
    return contexts


def _strange(own: _Sentence, other: _Sentence) -> bool:
    """Return whether what precedes another sentence has nothing of this one and its context."""
    # A sentence may stand in a text twice, and a text may be given twice.
    if own.text.strip() in other.prefix:
        return False
    if own.document.text != other.document.text:
        return True
    behind = other.begin - len(other.prefix) >= own.begin + len(own.text)
    return behind or other.begin <= own.begin - len(own.prefix)


def _words(traced: Trace, sequence: int, base: Surface, start: int) -> Words:
    """Return the words of a sentence that begins at a character of a text."""
    # What stands before it is one word more, which is left out again.
    before = [(0, start)] if start else []
    spans = [(start + first, start + last) for first, last in base.spans]
    found = Words.of(traced, sequence, [*before, *spans])
    kept = slice(len(before), None)
    return Words(found.tokens[kept], found.rates[kept], found.layers_used[kept], found.loss[kept])


def _pieces(documents: Sequence[Document], generator: random.Random) -> list[str]:
    """Return stretches of texts, of as many words as there are, up to each length."""
    taken = beginnings(documents)
    pieces: list[str] = []
    for length in LENGTHS:
        whole = surface(generator.choice(taken).text)
        count = len(whole.spans)
        first = generator.randrange(max(1, count - length + 1))
        last = min(count, first + length) - 1
        pieces.append(whole.text[whole.spans[first][0] : whole.spans[last][1]])
    pieces = list(dict.fromkeys(pieces))
    if len(pieces) < 2:
        raise InputError(
            f"The text has too few words for pieces of different lengths; give {LENGTHS[1]} or "
            "more."
        )
    return pieces


def _differences(alone: Trace, together: Trace, sequence: int) -> dict[str, Any]:
    rows = (together.tokens["sequence"] == sequence).to_numpy()
    flipped = alone.matrix("exec_count") != together.matrix("exec_count")[rows]
    followed = flipped & _behind(flipped, alone.sites["layer"].to_numpy())
    near = np.abs(alone.margin) <= TIE
    scores = np.abs(alone.matrix("score") - together.matrix("score")[rows])
    losses = (alone.tokens["nll"] - together.tokens.filter(rows)["nll"]).abs().max()
    return {
        "decisions": flipped.size,
        "flips": int(flipped.sum()),
        "followed": int(followed.sum()),
        "ties": int((flipped & near & ~followed).sum()),
        "score_difference": float(np.nanmax(scores, initial=0.0)),
        "loss_difference": float(losses or 0.0),  # type: ignore[arg-type]
    }


def _behind(flipped: Bools, layer: Ints) -> Bools:
    """Return which decisions, [tokens, sites], another flip stands before that can reach them.

    It is one of the same token at an earlier site, or one of an earlier token in an earlier layer:
    keys and values of a layer are made before anything in it is decided.
    """
    own = np.logical_or.accumulate(flipped, axis=1)
    of_others = np.zeros_like(flipped)
    of_others[1:] = np.logical_or.accumulate(own, axis=0)[:-1]
    behind = np.zeros_like(flipped)
    behind[:, 1:] = own[:, :-1]
    below = np.searchsorted(layer, layer) - 1  # the last site of the layers below
    known = below >= 0
    behind[:, known] |= of_others[:, below[known]]
    return behind
