"""``cost``: what a text costs here, dense, masked and gathered."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch

from skipviz.analysis.flops import flops_known
from skipviz.analysis.timing.latency import latencies
from skipviz.analysis.timing.lost import PROFILE, parts_of_time
from skipviz.analysis.timing.measured import Cost, Machine
from skipviz.analysis.timing.parts import MODEL_PARTS, flops_by_part, flops_saved
from skipviz.analysis.timing.savings import WorkSaved, savings
from skipviz.arrays import Bools
from skipviz.errors import InputError, MissingExtraError, ModelError
from skipviz.experiments.same_model import check_traced
from skipviz.experiments.timing.energy import energy_meter, estimated_energy, measured_energy
from skipviz.experiments.timing.handles import runtimes_of
from skipviz.experiments.timing.machine import clock_of, this_machine
from skipviz.experiments.timing.profile import can_profile, profiled
from skipviz.experiments.timing.stopwatch import TimedText, alternating, check_one_by_one, runs_of
from skipviz.experiments.timing.weights_read import bytes_saved, weights_read
from skipviz.models import SkipModel
from skipviz.progress import Meter, Progress, no_progress
from skipviz.text.arguments import checked
from skipviz.traces import Trace

PROFILED_ROUNDS = 2
"""How often each text is run to split its time into parts."""
MOST_TEXTS = 16
"""Texts that are run; more take longer and tell little more."""

_NO_FLOPS = (
    "FLOPs are unknown: skipviz counts them for models in the Llama layout. So what skipping could "
    "save is unknown too."
)


@checked
def cost(
    model: SkipModel,
    trace: Trace,
    *,
    rounds: int = 7,
    decoded: int = 32,
    watts: float | None = None,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> Cost:
    """Measure what the texts of a trace cost here, dense, masked and gathered.

    Every runtime runs every text in turn, ``rounds`` times: all its tokens at once (prefill), and
    its first half followed by some tokens one by one (decode).

    Parameters
    ----------
    model
        The model that the trace is of. Which threads and device it runs on is what is measured.
    trace
        A trace of it; of many texts the first 16 are run, of each as much as the model sees at
        once.
    rounds
        How often; from 6 on there are 95% intervals.
    decoded
        Tokens of each text that are decoded, at most; 0: none.
    watts
        Power that the device draws while it runs, for an estimate where energy is not measured;
        None: for a processor, 8 W per thread.
    progress
        Called with the share of the runs done, 0 to 1.
    stop
        Set it from another thread to stop.

    Returns
    -------
    Cost
        Times, what they save, and what is unknown.

    Raises
    ------
    InputError
        If the trace has no tokens, is of another model, policy, budget or thresholds, or was forced
        by a plan; or the model does not predict the next token.
    Stopped
        If ``stop`` was set.

    Examples
    --------
    >>> found = skipviz.cost(model, trace, rounds=1, decoded=2)
    >>> found.savings.select("phase", "runtime").rows()
    [('prefill', 'masked'), ('prefill', 'gathered'), ('decode', 'masked'), ('decode', 'gathered')]
    """
    _check(model, trace, rounds=rounds, decoded=decoded)
    handles, unknown = runtimes_of(model)
    texts = texts_of(model, trace, decoded=decoded)
    splits = all(can_profile(each) for each in handles.values())
    monitor = _monitor(model.device, unknown)
    runs_ahead = runs_of(handles, texts, rounds=rounds)
    runs_ahead += len(handles) * len(texts) * PROFILED_ROUNDS * splits
    runs_ahead += len(handles) * len(texts) * rounds * (monitor is not None)
    meter = Meter(runs_ahead, progress, stop)
    clock, machine = clock_of(model.device), this_machine(model.device)
    runs = alternating(handles, texts, rounds=rounds, clock=clock, meter=meter)
    split = pl.DataFrame(schema=PROFILE)
    if splits:
        split = profiled(handles, texts, rounds=PROFILED_ROUNDS, clock=clock, meter=meter)
    else:
        unknown["parts"] = (
            f"Where the time goes is unknown: what the parts of {model.name} are is known for "
            "gates on attention and MLPs of models in the Llama layout."
        )
    work, ran, weights = _work(model, trace, texts, unknown)
    saving = savings(runs, work)
    return Cost(
        model=model.name,
        dtype=model.dtype,
        machine=machine,
        rounds=rounds,
        documents=len(texts),
        decoded=sum(text.decoded for text in texts),
        runs=runs,
        flops=flops_by_part(trace) if flops_known(trace) else None,
        weights=weights,
        savings=saving,
        latency=latencies(runs),
        parts=parts_of_time(split, runs, saving, ran=ran),
        energy=_energy(monitor, handles, texts, runs, machine, watts, rounds, meter),
        unknown=unknown,
    )


def texts_of(model: SkipModel, trace: Trace, *, decoded: int) -> list[TimedText]:
    """Return the texts of a trace as they are timed.

    Parameters
    ----------
    model
        Says how many tokens can be seen at once, and where they must be.
    trace
        Whose texts.
    decoded
        Tokens to decode after half of each, at most.
    """
    found = []
    sequence = trace.tokens["sequence"].to_numpy()
    # What follows the first window was decided on another beginning than a run would have.
    most = min(model.context, trace.run["window"].item() or model.context)
    for number in np.unique(sequence)[:MOST_TEXTS]:
        tokens = np.flatnonzero(sequence == number)[:most]
        rows = trace.tokens[tokens]
        start = max(len(tokens) // 2, 1)
        found.append(
            TimedText(
                sequence=int(number),
                places=tokens,
                ids=torch.tensor(rows["token_id"].to_numpy(), device=model.device)[None],
                layers_used=rows["layers_used"].cast(pl.Float64).fill_null(np.nan).to_numpy(),
                start=start,
                stop=min(start + decoded, len(tokens)),
            )
        )
    return found


def _check(model: SkipModel, trace: Trace, *, rounds: int, decoded: int) -> None:
    if not len(trace):
        raise InputError("The trace has 0 tokens; trace a text with at least one.")
    if rounds < 1 or decoded < 0:
        raise InputError(f"rounds={rounds} must be at least 1, and decoded={decoded} at least 0.")
    check_one_by_one(model)
    if unknown := trace.tokens["token_id"].null_count():
        raise InputError(
            f"{unknown:,} tokens of the trace are of unknown id; trace the text with this model."
        )
    if trace.matrix("forced").any():
        raise InputError(
            "The trace was forced by a plan, and the model is timed under its own decisions; trace "
            "the text without a plan."
        )
    check_traced(model, trace)
    for name in ("policy", "budget", "limit"):
        if trace.run[name].item() != getattr(model, name):
            raise InputError(
                f"The trace is under {name}={trace.run[name].item()} and the model under "
                f"{name}={getattr(model, name)}; trace the text with this model."
            )


def _monitor(device: torch.device, unknown: dict[str, str]) -> Any:
    try:
        return energy_meter(device)
    except (MissingExtraError, ModelError) as error:
        unknown["energy"] = str(error)
        return None


def _energy(
    monitor: Any,
    handles: Mapping[str, SkipModel],
    texts: Sequence[TimedText],
    runs: pl.DataFrame,
    machine: Machine,
    watts: float | None,
    rounds: int,
    meter: Meter,
) -> pl.DataFrame:
    if monitor is None:
        return estimated_energy(runs, machine, watts=watts)
    return measured_energy(monitor, handles, texts, rounds=rounds, meter=meter)


def _work(
    model: SkipModel, trace: Trace, texts: Sequence[TimedText], unknown: dict[str, str]
) -> tuple[dict[str, WorkSaved], dict[str, dict[str, float]], pl.DataFrame | None]:
    """Return what decisions save in each phase, how much of each part runs, and bytes read."""
    nothing = WorkSaved(flops=None)
    if not flops_known(trace):
        unknown["flops"] = _NO_FLOPS
        return {"prefill": nothing, "decode": nothing}, {}, None
    prefilled = _counted(trace, texts, decoding=False)
    whole = flops_by_part(trace, counted=prefilled, heads=len(texts))
    work = {"prefill": WorkSaved(flops=flops_saved(whole)), "decode": nothing}
    ran = {"prefill": _shares(whole, "flops")}
    decoding = _counted(trace, texts, decoding=True)
    if not decoding.any():
        return work, ran, None
    steps = flops_by_part(trace, counted=decoding)
    rates = (trace.matrix("exec_count")[decoding] > 0).mean(axis=0)
    weights = weights_read(model, rates)
    if weights is None:
        unknown["weights"] = (
            f"Which weights a decoded token reads is unknown for the family {model.family.name}."
        )
        return work | {"decode": WorkSaved(flops=flops_saved(steps))}, ran, None
    work["decode"] = WorkSaved(flops=flops_saved(steps), weights=bytes_saved(weights))
    return work, ran | {"decode": _shares(weights, "bytes")}, weights


def _counted(trace: Trace, texts: Sequence[TimedText], *, decoding: bool) -> Bools:
    counted = np.zeros(len(trace), dtype=np.bool_)
    for text in texts:
        first, last = (text.start, text.stop) if decoding else (0, text.ids.shape[1])
        counted[text.places[first:last]] = True
    return counted


def _shares(parts: pl.DataFrame, what: str) -> dict[str, float]:
    """Return how much of the dense work of attention, MLP and head is done."""
    groups = {"attention": MODEL_PARTS[:3], "MLP": ("MLP",), "head": ("head",)}
    found = {}
    for name, group in groups.items():
        own = parts.filter(pl.col("part").is_in(group))
        found[name] = float(own[what].sum()) / float(own[f"dense_{what}"].sum())
    return found
