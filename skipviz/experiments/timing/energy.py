"""Energy: measured by ``zeus`` where the hardware counts it, estimated where it does not."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl
import torch

from skipviz.analysis.timing.measured import Machine
from skipviz.errors import InputError, MissingExtraError, ModelError
from skipviz.experiments.timing.stopwatch import TimedText, prefill
from skipviz.models import SkipModel
from skipviz.progress import Meter
from skipviz.schema import Columns

ENERGY: Columns = {
    "phase": pl.String,
    "runtime": pl.String,
    "joules": pl.Float64,
    "measured": pl.Boolean,
    "source": pl.String,
}
WATTS_PER_THREAD = 8.0
"""Taken for a busy core where nothing is measured: server processors of 200 to 350 W have 24 to 64
cores. It changes joules, and not which runtime takes fewer."""

_WINDOW = "skipviz"


def energy_meter(device: torch.device) -> Any:
    """Return a monitor of ``zeus`` that counts joules here.

    Parameters
    ----------
    device
        Where the model runs: a GPU is read by NVML, processors by RAPL.

    Raises
    ------
    MissingExtraError
        If ``zeus`` is not installed.
    ModelError
        If the hardware lets nothing be read.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it says which drivers it lacks
            from zeus.monitor import ZeusMonitor
    except ImportError as error:
        raise MissingExtraError(
            "Measuring energy needs the package zeus: pip install 'skipviz[energy]'."
        ) from error
    gpus = [device.index or 0] if device.type == "cuda" else []
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            monitor = ZeusMonitor(gpu_indices=gpus)
    except Exception as error:  # whatever drivers make of a machine without counters
        raise ModelError(
            f"No energy can be read here ({type(error).__name__}: {error!s:.120})."
        ) from error
    if not monitor.gpu_indices and not monitor.cpu_indices:
        raise ModelError(
            "No energy can be read here: there is no NVIDIA GPU in use, and RAPL counts nothing or "
            "may only be read by root."
        )
    return monitor


def joules_of(monitor: Any, work: Callable[[], object]) -> float:
    """Return the joules that GPUs, processors and their memory take while some work is done."""
    monitor.begin_window(_WINDOW, restart=True)
    try:
        work()
    finally:
        found = monitor.end_window(_WINDOW)
    counters = (found.gpu_energy, found.cpu_energy, found.dram_energy)
    return float(sum(sum(each.values()) for each in counters if each))


def measured_energy(
    monitor: Any,
    handles: Mapping[str, SkipModel],
    texts: Sequence[TimedText],
    *,
    rounds: int,
    meter: Meter,
) -> pl.DataFrame:
    """Return joules per text in prefill, as counted by the hardware.

    Counters move every few milliseconds, so all texts of all rounds are one window per runtime.

    Parameters
    ----------
    monitor
        Of ``energy_meter``.
    handles, texts, rounds, meter
        As of ``alternating``.
    """
    parts = ("GPU (NVML)", monitor.gpu_indices), ("processor (RAPL)", monitor.cpu_indices)
    source = " and ".join(name for name, indices in parts if indices)
    rows: list[dict[str, Any]] = []

    for name, handle in handles.items():

        def work(handle: SkipModel = handle) -> None:
            with torch.inference_mode():
                for _ in range(rounds):
                    for text in texts:
                        prefill(handle.model, text.ids, cache=False)
                        meter.advance()

        joules = joules_of(monitor, work) / (rounds * len(texts))
        rows.append(
            {
                "phase": "prefill",
                "runtime": name,
                "joules": joules,
                "measured": True,
                "source": f"counted by the {source}",
            }
        )
    return pl.DataFrame(rows, schema=ENERGY)


def estimated_energy(runs: pl.DataFrame, machine: Machine, *, watts: float | None) -> pl.DataFrame:
    """Return joules per text and per decoded token as power times time: an estimate.

    Parameters
    ----------
    runs
        As ``Cost.runs``.
    machine
        What they were taken on.
    watts
        Power drawn while it runs; None: 8 W for each busy thread of a processor, and unknown on
        any other device.
    """
    if watts is None and machine.device != "cpu":
        return pl.DataFrame(schema=ENERGY)
    if watts is not None and not 0 < watts < float("inf"):
        raise InputError(f"watts={watts} must be a number above 0.")
    power = WATTS_PER_THREAD * machine.threads if watts is None else watts
    threads = f"{machine.threads} busy thread{'' if machine.threads == 1 else 's'}"
    drawn = (
        f"{threads} at {WATTS_PER_THREAD:g} W each, which is assumed"
        if watts is None
        else f"{watts:g} W, as given"
    )
    rounds = runs.group_by("phase", "runtime", "round", maintain_order=True).agg(
        pl.col("seconds").mean()
    )
    middle = rounds.group_by("phase", "runtime", maintain_order=True).agg(
        pl.col("seconds").median()
    )
    return middle.select(
        "phase",
        "runtime",
        joules=pl.col("seconds") * power,
        measured=pl.lit(False),
        source=pl.format("an estimate: {} for {} s", pl.lit(drawn), pl.col("seconds").round(4)),
    )
