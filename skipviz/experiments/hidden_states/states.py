"""Hidden states between the layers, recorded in one more run of the texts of a trace."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from skipviz.arrays import Ints
from skipviz.errors import InputError
from skipviz.experiments.same_model import check_own_trace
from skipviz.families.hooks import after, before, hooked
from skipviz.families.llama import decoder_layers, states_given, states_made
from skipviz.models import SkipModel
from skipviz.progress import Meter, Progress, no_progress
from skipviz.recording.events import GateEvents
from skipviz.recording.windows import Window, plan_windows
from skipviz.traces import Trace

SAMPLED_TOKENS = 2000
"""Tokens whose states are kept, if nothing else is asked: 143 MB of a model like SmolLM2-135M."""
OTHERWISE = 0.01
"""Share of decisions that may differ from the trace, by rounding."""


@dataclass(frozen=True, eq=False)
class States:
    """Hidden states of some tokens of a trace.

    Attributes
    ----------
    token
        Which tokens, ascending, of shape [tokens].
    values
        Their states, of shape [layers + 1, tokens, width]: the embeddings, then what each layer
        gave.
    """

    token: Ints
    values: npt.NDArray[np.float32]


def record_states(
    model: SkipModel,
    trace: Trace,
    *,
    most: int = SAMPLED_TOKENS,
    seed: int = 0,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> States:
    """Run the texts of a trace once more and keep the hidden states.

    The gates decide anew, and come to the same decisions.

    Parameters
    ----------
    model
        The model that was traced, at the same budget.
    trace
        Its trace.
    most
        How many tokens to keep; of a longer trace they are drawn.
    seed
        Seed of the draw.
    progress
        Called with the share of the work done, 0 to 1.
    stop
        Set it from another thread to stop.

    Raises
    ------
    ValueError
        If the trace has no tokens, or the model decides otherwise than the trace says.
    Stopped
        If ``stop`` was set.
    """
    check_own_trace(model, trace)
    if not len(trace):
        raise InputError("The trace has 0 tokens, so there are no states to record; trace a text.")
    kept = sampled_tokens(trace, most, seed=seed)
    layers = len(decoder_layers(model.model))
    values = np.empty((layers + 1, len(kept), model.model.config.hidden_size), dtype=np.float32)
    windows = list(trace_windows(trace))
    meter, otherwise = Meter(len(windows) * layers, progress, stop), 0
    with torch.inference_mode():
        for tokens, report in windows:
            places = np.flatnonzero(np.isin(kept, tokens[report:]))
            rows = torch.from_numpy(np.searchsorted(tokens, kept[places]))
            ids = torch.from_numpy(trace.tokens["token_id"].to_numpy()[tokens])[None]
            events = GateEvents()
            with (
                model.family.observe(model.model, events),
                _listening(model, rows, meter) as heard,
            ):
                model.model.model(input_ids=ids.to(model.device), use_cache=False)
            values[:, places] = torch.stack(heard).float().cpu().numpy()
            everyone = torch.ones(ids.shape, dtype=torch.bool, device=model.device)
            ran = events.matrices(trace.sites.height, everyone)["exec_count"][report:]
            otherwise += int((ran != trace.matrix("exec_count")[tokens[report:]]).sum())
    check_decisions(trace, otherwise)
    return States(kept, values)


def sampled_tokens(trace: Trace, most: int, *, seed: int = 0) -> Ints:
    """Return so many tokens of a trace, drawn at random and in order; all of a shorter one."""
    generator = np.random.default_rng(seed)
    drawn = generator.choice(len(trace), min(most, len(trace)), replace=False)
    return np.sort(drawn)


def check_decisions(trace: Trace, otherwise: int) -> None:
    """Raise ``ValueError`` if more decisions than rounding explains came out otherwise."""
    decisions = trace.matrix("exec_count").size
    if otherwise > OTHERWISE * decisions:
        raise InputError(
            f"{otherwise / decisions:.1%} of the decisions came out otherwise than in the trace. "
            f"Give the model that was traced ({trace.run['model'].item()}), at the same budget."
        )


def trace_windows(trace: Trace) -> Iterator[tuple[Ints, int]]:
    """Yield the tokens of each window, and how many of them the window before has reported."""
    run = trace.run.row(0, named=True)
    for (_,), tokens in trace.tokens.group_by("sequence", maintain_order=True):
        numbers = tokens["token"].to_numpy()
        parts = (
            [Window(0, len(numbers), 0)]
            if run["window"] is None
            else plan_windows(len(numbers), window=run["window"], overlap=run["window_overlap"])
        )
        for part in parts:
            yield numbers[part.start : part.stop], part.report - part.start


@contextmanager
def _listening(
    model: SkipModel, rows: Int[Tensor, " n"], meter: Meter
) -> Iterator[list[Float[Tensor, "n d"]]]:
    """Keep the states of some rows, before the first layer and after each."""
    heard: list[Tensor] = []

    def keep(states: Tensor) -> None:
        heard.append(states[0, rows.to(states.device)].clone())

    def leaving(module: Any, args: Any, result: Any) -> None:
        keep(states_made(result))
        meter.advance()

    layers = decoder_layers(model.model)
    entering = before(layers[0], lambda _, *given: keep(states_given(*given)), with_kwargs=True)
    with hooked([entering, *(after(layer, leaving) for layer in layers)]):
        yield heard
