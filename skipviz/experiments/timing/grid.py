"""``bench``: the saving over batch size, length, budget, number format, threads and device."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Int
from torch import Tensor

from skipviz.analysis.flops import flops_known
from skipviz.analysis.timing.bench_rows import BENCH, CELL, cell_keys, read_bench, write_bench
from skipviz.analysis.timing.measured import RUNS, RUNTIMES
from skipviz.analysis.timing.parts import flops_by_part, flops_saved
from skipviz.analysis.timing.savings import WorkSaved, savings
from skipviz.arrays import Ints
from skipviz.errors import InputError
from skipviz.experiments.timing.handles import runtimes_of
from skipviz.experiments.timing.machine import Clock, clock_of, this_machine
from skipviz.experiments.timing.stopwatch import check_one_by_one, decode_step, prefill, turned
from skipviz.models import SkipModel, at_budget, load
from skipviz.models.hashes import run_setup_sha256
from skipviz.progress import Meter, Progress, no_progress
from skipviz.recording.recorder import record
from skipviz.text.arguments import checked
from skipviz.text.documents import check_text

BENCH_TEXT = (
    "The keeper of the lighthouse wrote down every ship that passed: its name, its flag, and the "
    "hour. On the third of May he wrote nothing. The fog had come in at noon, and by evening he "
    "could hear bells but see no lights. def mean(values): return sum(values) / len(values) if "
    "values else None. Water boils at 100 degrees at sea level and at about 93 in Denver, so pasta "
    "takes longer there. Dear Anna, the train was late again, and I read your letter twice. "
)
"""What is run where no text is given, again and again up to the length asked for."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Settings, each with every other.

    Attributes
    ----------
    batches, lengths
        Texts at once, and tokens of each.
    budgets
        Budgets of the model; empty for one without.
    dtypes, threads, devices
        Number formats, threads of torch, and torch devices.
    """

    batches: Sequence[int]
    lengths: Sequence[int]
    budgets: Sequence[float | None]
    dtypes: Sequence[str]
    threads: Sequence[int]
    devices: Sequence[str]

    def __post_init__(self) -> None:
        for name in ("batches", "lengths", "budgets", "threads"):
            if not getattr(self, name):
                raise InputError(f"There is no value of {name}; give at least one.")
        for name in ("batches", "lengths", "threads"):
            for value in getattr(self, name):
                if value < 1:
                    raise InputError(f"{name}: {value} must be at least 1.")


@checked
def bench(
    model: str | Path,
    *,
    out: Path | None = None,
    batches: Sequence[int] = (1,),
    lengths: Sequence[int] = (512,),
    budgets: Sequence[float] | None = None,
    dtypes: Sequence[str] = ("float32",),
    threads: Sequence[int] | None = None,
    devices: Sequence[str] = ("cpu",),
    text: str | None = None,
    rounds: int = 7,
    decoded: int = 16,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> pl.DataFrame:
    """Measure what skipping saves over a grid of settings, on this machine.

    In each cell of the grid every runtime runs in turn, ``rounds`` times: a batch of texts at once
    (prefill), then some tokens more of each, one by one (decode).

    Parameters
    ----------
    model
        A name or folder, as ``skipviz.load`` takes it.
    out
        A Parquet file that rows are added to after each cell. Cells that it has of this machine,
        with the same weights, thresholds, text, ``rounds`` and ``decoded``, are not measured again.
    batches, lengths
        Texts at once, and tokens of each; the texts of a batch begin at different places.
    budgets
        Budgets of the model; None: all that it has.
    dtypes
        As of ``skipviz.load``.
    threads
        Threads of torch; None: as many as it has now.
    devices
        As of ``skipviz.load``.
    text
        What is run, repeated up to the length; None: a few lines of prose and code.
    rounds
        How often; from 6 on there are 95% intervals.
    decoded
        Tokens decoded of each text; 0: none.
    progress
        Called with the share of the work done, 0 to 1.
    stop
        Set it from another thread to stop; cells that are done stay.

    Returns
    -------
    pl.DataFrame
        One row for each cell, phase and runtime: what names the machine and the cell; ``seconds``
        and ``dense_seconds``, medians, of a batch in prefill and of one step in decode;
        ``time_over_dense`` with its 95% interval; ``flops_saved``, the share of the dense FLOPs;
        ``over_flops``, time saved over FLOPs saved. Null where unknown. Of the file, with ``out``:
        rows of other machines stay in it.

    Raises
    ------
    InputError
        If a setting is not one, the model does not predict the next token, a length is more than it
        sees, or a cell does not fit into the device's memory.
    StoreError
        If ``out`` is a file of another kind.
    Stopped
        If ``stop`` was set.

    Examples
    --------
    >>> rows = skipviz.bench(folder, lengths=(16, 32), budgets=(0.8,), rounds=1, decoded=2)
    >>> rows.filter(phase="prefill", runtime="gathered")["length"].to_list()
    [16, 32]
    """
    if rounds < 1 or decoded < 0:
        raise InputError(f"rounds={rounds} must be at least 1, and decoded={decoded} at least 0.")
    known = pl.DataFrame(schema=BENCH)
    if out is not None and out.exists():
        known = read_bench(out)
    if text is not None:
        check_text(text)
    if not dtypes or not devices:
        raise InputError("Neither dtypes nor devices may be empty; give at least one of each.")
    first = load(model, dtype=dtypes[0], device=devices[0])
    check_one_by_one(first)
    once = np.array(
        first.tokenizer(text or BENCH_TEXT, add_special_tokens=False).input_ids, dtype=np.int64
    )
    if not len(once):
        raise InputError("The text has 0 tokens; give one with at least one.")
    grid = Grid(
        batches=batches,
        lengths=lengths,
        budgets=_budgets(first, budgets),
        dtypes=dtypes,
        threads=threads or (torch.get_num_threads(),),
        devices=devices,
    )
    _check_lengths(first, grid, decoded)
    settings = len(grid.devices) * len(grid.dtypes) * len(grid.threads) * len(grid.budgets)
    meter = Meter(settings * sum(grid.batches) * sum(grid.lengths), progress, stop)
    for device, dtype in itertools.product(grid.devices, grid.dtypes):
        loaded = first
        if (device, dtype) != (str(first.device), first.dtype):
            loaded = load(model, dtype=dtype, device=device)
        for count, budget in itertools.product(grid.threads, grid.budgets):
            with _threads(count):
                own = loaded if budget is None else at_budget(loaded, budget)
                machine_and_model = _setting(own, str(model), once)
                for length, batch in itertools.product(grid.lengths, grid.batches):
                    cell = machine_and_model | {
                        "batch": batch, "length": length, "decoded": decoded, "rounds": rounds,
                    }  # fmt: skip
                    cell = {column: cell[column] for column in CELL}
                    if tuple(cell.values()) in cell_keys(known):
                        meter.advance(batch * length)
                        continue
                    ids = _ids(own, once, batch=batch, tokens=length + decoded)
                    rows = _measured(
                        own, ids, length=length, rounds=rounds, meter=meter
                    ).with_columns(
                        **{name: pl.lit(value, dtype=CELL[name]) for name, value in cell.items()}
                    )
                    known = pl.concat([known, rows.select(list(BENCH))])
                    if out is not None:
                        write_bench(known, out)
    return known


def _budgets(model: SkipModel, asked: Sequence[float] | None) -> Sequence[float | None]:
    if model.settings is None:
        if asked:
            raise InputError(f"budgets were asked of {model.name}, which has none; leave them out.")
        return (None,)
    return list(asked or sorted(model.settings.budgets, reverse=True))


def _check_lengths(model: SkipModel, grid: Grid, decoded: int) -> None:
    longest = max(grid.lengths) + decoded
    if longest > model.context:
        raise InputError(
            f"A length of {max(grid.lengths):,} and {decoded} tokens decoded are more than the "
            f"{model.context:,} that {model.name} sees; ask for less."
        )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _setting(model: SkipModel, name: str, once: Ints) -> dict[str, Any]:
    """Return what names machine, model and text in a cell."""
    return asdict(this_machine(model.device)) | {
        "model": name,
        "weights_sha256": model.weights_sha256,
        "dtype": model.dtype,
        "policy": model.policy,
        "budget": model.budget,
        "setup_sha256": run_setup_sha256(model),
        "text_sha256": hashlib.sha256(once.tobytes()).hexdigest(),
    }


def _ids(model: SkipModel, once: Ints, *, batch: int, tokens: int) -> Int[Tensor, "b t"]:
    """Return texts of so many tokens that begin at different places of one."""
    places = np.arange(tokens) + (np.arange(batch) * len(once) // batch)[:, None]
    return torch.tensor(once[places % len(once)], device=model.device)


def _measured(
    model: SkipModel, ids: Int[Tensor, "b t"], *, length: int, rounds: int, meter: Meter
) -> pl.DataFrame:
    """Return the rows of a cell, but for what names it."""
    handles, _ = runtimes_of(model)
    clock = clock_of(model.device)
    batch = ids.shape[0]
    runs: list[dict[str, Any]] = []
    try:
        with torch.inference_mode():
            for handle in handles.values():
                _times(handle, ids, length, clock)
            for number in range(rounds):
                for name in turned(list(handles), number):
                    for phase, seconds in _times(handles[name], ids, length, clock).items():
                        run = {"round": number, "phase": phase, "runtime": name}
                        runs.append(run | {"seconds": seconds})
                    meter.advance(batch * length / (rounds * len(handles)))
            work = _work(handles, ids, length)
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"A batch of {batch} texts of {ids.shape[1]:,} tokens does not fit into the memory of "
            f"{model.device}; ask for less."
        ) from error
    return _rows(pl.DataFrame(runs, schema=RUNS), work)


def _times(
    handle: SkipModel, ids: Int[Tensor, "b t"], length: int, clock: Clock
) -> dict[str, float]:
    """Return the seconds of a prefill, and of one step of decoding."""
    began = clock()
    cache = prefill(handle.model, ids[:, :length], cache=True).past_key_values
    found = {"prefill": clock() - began}
    steps = ids.shape[1] - length
    if steps:
        began = clock()
        for place in range(length, ids.shape[1]):
            cache = decode_step(handle.model, ids[:, place : place + 1], cache)
        found["decode"] = (clock() - began) / steps
    return found


def _work(
    handles: Mapping[str, SkipModel], ids: Int[Tensor, "b t"], length: int
) -> dict[str, WorkSaved]:
    """Return the FLOPs that the decisions save, recorded in a run that is not timed."""
    skipping = handles.get("masked", handles.get("gathered"))
    if skipping is None:
        return {}
    with record(skipping, statistics=False) as recording:
        cache = prefill(skipping.model, ids[:, :length], cache=True).past_key_values
        for place in range(length, ids.shape[1]):
            cache = decode_step(skipping.model, ids[:, place : place + 1], cache)
    trace = recording.trace
    if not flops_known(trace):
        return {}
    found = {}
    decoding = (trace.tokens["phase"] == "decode").to_numpy()
    for phase, counted, heads in (
        ("prefill", ~decoding, len(ids)),
        ("decode", decoding, int(decoding.sum())),
    ):
        if counted.any():
            parts = flops_by_part(trace, counted=counted, heads=heads)
            found[phase] = WorkSaved(flops=flops_saved(parts))
    return found


def _rows(runs: pl.DataFrame, work: Mapping[str, WorkSaved]) -> pl.DataFrame:
    saved = savings(runs, work).select(
        "phase",
        "runtime",
        "dense_seconds",
        "flops_saved",
        "over_flops",
        time_over_dense=1 - pl.col("time_saved"),
        low=1 - pl.col("time_saved_high"),
        high=1 - pl.col("time_saved_low"),
    )
    order = {name: number for number, name in enumerate(RUNTIMES)}
    return (
        runs.group_by("phase", "runtime", maintain_order=True)
        .agg(pl.col("seconds").median())
        .join(saved, on=("phase", "runtime"), how="left", maintain_order="left")
        .sort(pl.col("runtime").replace_strict(order, return_dtype=pl.Int64), maintain_order=True)
    )
