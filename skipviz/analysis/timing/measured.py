"""What a measurement of cost holds; the machine that it was made on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import polars as pl

from skipviz.schema import Columns

Phase = Literal["prefill", "decode"]
PHASES: tuple[Phase, ...] = ("prefill", "decode")
RUNTIMES = ("dense", "masked", "gathered")
"""In the order in which they are shown; those that a model has are measured."""

RUNS: Columns = {
    "round": pl.Int64,
    "phase": pl.String,
    "runtime": pl.String,
    "sequence": pl.Int64,
    "token": pl.Int64,
    "tokens": pl.Int64,
    "layers_used": pl.Float64,
    "seconds": pl.Float64,
}
"""One row for each time that was taken; ``token`` is null for a prefill."""

TIMED_PARTS = ("attention", "MLP", "gates", "adapters", "gathering", "head", "other")
"""What the time of a forward is spent on; the parts add up to the whole."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a time was measured on.

    Attributes
    ----------
    cpu
        Name of the processor.
    cores
        Cores that this process may use.
    threads
        Threads of torch.
    device, device_name
        Where the model ran, as torch calls it, and the name of that device.
    torch_version
        Version of torch.
    """

    cpu: str
    cores: int
    threads: int
    device: str
    device_name: str
    torch_version: str

    @property
    def line(self) -> str:
        """All of it in one line."""
        where = "" if self.device == "cpu" else f"{self.device_name}, "
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        return (
            f"{where}{self.cpu}, {self.cores} core{'' if self.cores == 1 else 's'}, {threads}, "
            f"torch {self.torch_version}"
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Cost:
    """What a text costs on this machine, dense, masked and gathered.

    Attributes
    ----------
    model, dtype, machine
        What ran, in which numbers, and where.
    rounds, documents, decoded
        How often each runtime ran each text, how many texts, and tokens decoded in each round.
    runs
        One row per time taken: ``round``, ``phase`` (``prefill`` or ``decode``), ``runtime``,
        ``sequence`` of the trace, ``token`` of the trace (null for a prefill), ``tokens`` that the
        time is for, their mean ``layers_used`` and ``seconds``.
    flops
        ``flops_by_part`` of the traced text; None: unknown.
    weights
        Bytes of weights that decoding reads per token, by ``part``: ``dense_bytes``, ``bytes``;
        None: unknown.
    savings, latency, parts, energy
        Of ``analysis.timing``: time saved over FLOPs saved; quantiles and how far depth predicts
        them; where the time goes; joules per text and per decoded token.
    unknown
        What is not known, and why, in sentences.

    Examples
    --------
    >>> found = skipviz.cost(model, trace, rounds=1, decoded=2)
    >>> found.runs["runtime"].unique(maintain_order=True).to_list()
    ['dense', 'masked', 'gathered']
    """

    model: str
    dtype: str
    machine: Machine
    rounds: int
    documents: int
    decoded: int
    runs: pl.DataFrame
    flops: pl.DataFrame | None
    weights: pl.DataFrame | None
    savings: pl.DataFrame
    latency: pl.DataFrame
    parts: pl.DataFrame
    energy: pl.DataFrame
    unknown: Mapping[str, str]

    def __repr__(self) -> str:
        runtimes = ", ".join(self.runs["runtime"].unique(maintain_order=True))
        return (
            f"Cost({self.model!r}, {runtimes}; {self.rounds} rounds, {self.documents} texts, "
            f"{self.dtype}, {self.machine.line})"
        )

    @property
    def figures(self) -> dict[str, Any]:
        """Everything but the single times as plain values, for JSON."""
        tables = ("savings", "latency", "parts", "energy", "flops", "weights")
        found = {name: getattr(self, name) for name in tables}
        return {
            "model": self.model,
            "dtype": self.dtype,
            "machine": asdict(self.machine),
            "rounds": self.rounds,
            "unknown": dict(self.unknown),
            **{name: None if each is None else each.to_dicts() for name, each in found.items()},
        }
