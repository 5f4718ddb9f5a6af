"""Runs each runtime in turn over the same texts and takes the time of each text and token."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from skipviz.analysis.timing.measured import RUNS
from skipviz.errors import InputError
from skipviz.experiments.timing.machine import Clock
from skipviz.families.powers import traits_of
from skipviz.models import SkipModel
from skipviz.progress import Meter


@dataclass(frozen=True, eq=False, kw_only=True)
class TimedText:
    """A text to run.

    Attributes
    ----------
    sequence
        Its number in the trace.
    places
        Its tokens in the trace.
    ids
        Its tokens, those that the model sees at once.
    layers_used
        Of each token.
    start
        The first token that is decoded; those before it are the prompt. The number of tokens where
        none is decoded.
    stop
        The token after the last one that is decoded.
    """

    sequence: int
    places: Int[np.ndarray, " t"]
    ids: Int[Tensor, "1 t"]
    layers_used: Float64[np.ndarray, " t"]
    start: int
    stop: int

    @property
    def decoded(self) -> int:
        """How many tokens are decoded."""
        return self.stop - self.start


def check_one_by_one(model: SkipModel) -> None:
    """Check that a model makes tokens one by one, which is what is timed.

    Raises
    ------
    InputError
        If it predicts no next token, as encoders do.
    """
    if not traits_of(model.family, model.model).predicts:
        raise InputError(
            f"{model.name} reads a text as a whole and predicts no next token, so prefill and "
            "decode cannot be timed. Give a model that predicts the next token."
        )


def head_arguments(model: Any) -> dict[str, int]:
    """Return what has a model make the logits of the last token alone, if it can."""
    takes = "logits_to_keep" in inspect.signature(type(model).forward).parameters
    return {"logits_to_keep": 1} if takes else {}


def prefill(model: Any, ids: Int[Tensor, "b t"], *, cache: bool) -> Any:
    """Run all tokens at once, with the logits of the last; return the output."""
    return model(input_ids=ids, use_cache=cache, **head_arguments(model))


def decode_step(model: Any, ids: Int[Tensor, "b 1"], cache: Any) -> Any:
    """Run one token more from a cache; return the cache."""
    return model(input_ids=ids, past_key_values=cache, use_cache=True).past_key_values


def alternating(
    handles: Mapping[str, SkipModel],
    texts: Sequence[TimedText],
    *,
    rounds: int,
    clock: Clock,
    meter: Meter,
) -> pl.DataFrame:
    """Return the time of each text and each decoded token, in each round and runtime.

    Every round runs each text under each runtime one after the other, and begins with another
    runtime than the round before, so that whatever slows the machine slows all alike. A first run
    of each is not counted.

    Parameters
    ----------
    handles
        What to run, by the name of the runtime.
    texts
        Texts of at least one token.
    rounds
        How often.
    clock
        Takes the time.
    meter
        Is told of each run: ``runs_of`` says how many there are.

    Returns
    -------
    pl.DataFrame
        As ``Cost.runs``.
    """
    rows: list[dict[str, Any]] = []
    with torch.inference_mode():
        for name, handle in handles.items():
            _prefill_row(name, handle, texts[0], -1, clock)
            meter.advance()
        for number in range(rounds):
            for text in texts:
                for name in turned(list(handles), number):
                    handle = handles[name]
                    rows.append(_prefill_row(name, handle, text, number, clock))
                    rows += _decode_rows(name, handle, text, number, clock)
                    meter.advance()
    return pl.DataFrame(rows, schema=RUNS)


def runs_of(handles: Mapping[str, SkipModel], texts: Sequence[TimedText], *, rounds: int) -> int:
    """Return how many runs ``alternating`` makes."""
    return len(handles) * (1 + rounds * len(texts))


def turned(names: list[str], by: int) -> list[str]:
    """Return names in order, begun with another one in each round."""
    by %= len(names)
    return names[by:] + names[:by]


def _prefill_row(
    name: str, handle: SkipModel, text: TimedText, number: int, clock: Clock
) -> dict[str, Any]:
    began = clock()
    prefill(handle.model, text.ids, cache=False)
    seconds = clock() - began
    return {
        "round": number,
        "phase": "prefill",
        "runtime": name,
        "sequence": text.sequence,
        "token": None,
        "tokens": text.ids.shape[1],
        "layers_used": float(text.layers_used.mean()),
        "seconds": seconds,
    }


def _decode_rows(
    name: str, handle: SkipModel, text: TimedText, number: int, clock: Clock
) -> list[dict[str, Any]]:
    if not text.decoded:
        return []
    cache = prefill(handle.model, text.ids[:, : text.start], cache=True).past_key_values
    rows = []
    for place in range(text.start, text.stop):
        began = clock()
        cache = decode_step(handle.model, text.ids[:, place : place + 1], cache)
        seconds = clock() - began
        rows.append(
            {
                "round": number,
                "phase": "decode",
                "runtime": name,
                "sequence": text.sequence,
                "token": int(text.places[place]),
                "tokens": 1,
                "layers_used": float(text.layers_used[place]),
                "seconds": seconds,
            }
        )
    return rows
