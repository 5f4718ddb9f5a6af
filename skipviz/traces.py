"""The result object: which layers each token used, and the gates' scores.

A trace is four tables. ``run`` has one row of provenance, ``sites`` one row per place of
decision, ``tokens`` one row per token, and ``decisions`` one row per gate event. The last is kept
as one dense array per column, tokens by sites, and is unrolled on demand.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow.parquet as pq

from skipviz.arrays import without_repeats
from skipviz.atomic import write_csv, write_table
from skipviz.errors import TraceError
from skipviz.invariants import (
    MOST_CELLS,
    MOST_TOKENS,
    check_depth,
    check_run,
    check_shapes,
    check_sites,
    check_tables,
    check_values,
)
from skipviz.parquet import check_regular_file, check_unpacked, stored_name
from skipviz.schema import CLASS_COLUMNS, DECISIONS, MATRICES, RUN, SITES, TOKENS
from skipviz.tables import csv_safe
from skipviz.text.arguments import check_types

FORMAT = 2
READABLE_FORMATS = (1, FORMAT)
METADATA_KEY = "skipviz"
SAME_TOKENS = ("sequence", "position", "token_id")


@dataclass(frozen=True, eq=False)
class Trace:
    """What a model did with some text.

    Attributes
    ----------
    run
        One row of provenance (columns of ``skipviz.schema.RUN``).
    sites
        One row per site, in the order in which sites run (``skipviz.schema.SITES``).
    tokens
        One row per token, in reading order (``skipviz.schema.TOKENS``). ``class_label`` and
        ``class_prob`` may be left out: they are of models that predict a class of a text.
    matrices
        ``score`` and ``threshold`` on the gate's own scale, ``p_execute`` 0 to 1 or NaN where
        the family defines none, ``exec_count`` (how often the unit ran) and ``forced`` (whether
        a plan decided instead of the gate), each of shape [tokens, sites].

    Raises
    ------
    TraceError
        If tables lack columns or shapes differ. ``load`` checks every value besides.

    Examples
    --------
    >>> trace.save(tmp / "fox.parquet")
    >>> len(skipviz.Trace.load(tmp / "fox.parquet"))
    40
    >>> trace.decisions.columns
    ['token', 'site', 'score', 'p_execute', 'threshold', 'exec_count', 'forced']
    >>> (trace - trace)["layers_used"].sum()  # two policies on the same tokens
    0.0
    """

    run: pl.DataFrame
    sites: pl.DataFrame
    tokens: pl.DataFrame
    matrices: Mapping[str, npt.NDArray[Any]]

    def __post_init__(self) -> None:
        check_types(self)
        object.__setattr__(self, "tokens", _with_classes(self.tokens))
        check_tables(self.run, self.sites, self.tokens)
        check_shapes(self.matrices, tokens=self.tokens.height, sites=self.sites.height)
        kept = {
            name: _read_only(without_repeats(_as_stored(self.matrices[name], name)))
            for name in MATRICES
        }
        object.__setattr__(self, "matrices", kept)

    def __len__(self) -> int:
        """Return the number of tokens."""
        return self.tokens.height

    def __repr__(self) -> str:
        run = self.run.row(0, named=True)
        missed = self.budget_missed
        budget = "" if missed is None else f"budget={missed[0]:g} but {missed[1]:.2f} realised, "
        return (
            f"Trace({self.tokens.height} tokens, {self.sites.height} sites, "
            f"model={run['model']!r}, policy={run['policy']!r}, {budget}dtype={run['dtype']!r})"
        )

    @cached_property
    def budget_missed(self) -> tuple[float, float] | None:
        """The budget asked for and the one realised here, if they differ by more than 0.02.

        None where they agree, where no budget was asked for, and where a plan decided. Thresholds
        are set on some texts; on texts of another kind, such as another language, scores lie
        elsewhere. ``skipviz calibrate MODEL --budget 0.8 --text FILE`` sets some for yours.
        """
        asked, policy = self.run.select("budget", "policy").row(0)
        if asked is None or policy == "forced" or not (len(self) and self.sites.height):
            return None
        # By name: the tables stand below what is worked out from them.
        cost = import_module("skipviz.analysis.flops")
        if not cost.flops_known(self):
            return None
        realised: float = cost.realised_budget(self)
        return (asked, realised) if cost.is_missed(asked, realised) else None

    def _repr_html_(self) -> str:
        """Show the text coloured by layers used."""
        # By name: a table does not depend on its picture, which only a notebook asks for.
        shown: str = import_module("skipviz.plots").token_html(self)
        return shown

    def matrix(self, name: str) -> npt.NDArray[Any]:
        """Return one column of ``decisions`` as a read-only array of shape [tokens, sites].

        Parameters
        ----------
        name
            ``score``, ``p_execute``, ``threshold``, ``exec_count`` or ``forced``.

        Raises
        ------
        KeyError
            If there is no such column.
        """
        if name not in list(MATRICES):
            raise KeyError(f"There is no matrix {name!r}; there are {', '.join(MATRICES)}.")
        return self.matrices[name]

    @property
    def margin(self) -> npt.NDArray[Any]:
        """By how much each score speaks for executing, [tokens, sites], on the gate's own scale.

        The score minus its threshold, with its sign turned where a high score skips; NaN where
        there was no score.
        """
        polarity = self.sites["polarity"].to_numpy().astype(np.float32)
        found: npt.NDArray[Any] = polarity * (self.matrix("score") - self.matrix("threshold"))
        found.setflags(write=False)
        return found

    @property
    def decisions(self) -> pl.DataFrame:
        """One row per token and site, that is per gate event.

        ``token``, ``site``; ``score`` and its ``threshold``; ``p_execute``, ``exec_count`` and
        ``forced``, as in the matrices, null where unknown.
        """
        tokens, sites = self.tokens.height, self.sites.height
        columns: dict[str, Any] = {
            "token": np.repeat(np.arange(tokens), sites),
            "site": np.tile(np.arange(sites), tokens),
        }
        columns |= {name: self.matrices[name].reshape(-1) for name in MATRICES}
        frame = pl.DataFrame(columns, schema=DECISIONS)
        return frame.with_columns(pl.col("p_execute", "score", "threshold").fill_nan(None))

    def to_long(self) -> pl.DataFrame:
        """Return ``decisions`` joined with what each token and each site is: one row per event.

        ``class_label`` and ``class_prob`` are there only if a class was predicted of some text.
        """
        classes = CLASS_COLUMNS if self.tokens["class_label"].count() else ()
        tokens = self.tokens.select(
            "token", "source", "sequence", "position", "token_id", "text", "phase", "nll",
            "surprisal", "layers_used", *classes,
        )  # fmt: skip
        sites = self.sites.select("site", "label", "layer", "unit", "visit", "rule", "polarity")
        return self.decisions.join(tokens, on="token", maintain_order="left").join(
            sites, on="site", maintain_order="left"
        )

    def write_csv(self, target: Path | str | io.BytesIO, *, excel: bool = False) -> None:
        """Write ``to_long()`` as CSV, texts as JSON strings.

        A JSON string starts with a quotation mark, so no cell can be read as a formula, and
        control characters survive.

        Parameters
        ----------
        target
            File or buffer.
        excel
            Whether it begins with a byte order mark: without one Excel takes letters beyond ASCII
            for others.
        """
        write_csv(csv_safe(self.to_long()), target, excel=excel)

    def save(self, target: Path | str | io.BytesIO) -> None:
        """Write the whole trace to one Parquet file: a row per token, sites as arrays."""
        payload = {
            "format": FORMAT,
            "run": self.run.row(0, named=True),
            "sites": self.sites.to_dicts(),
        }
        width = self.sites.height
        columns = [
            pl.Series(f"decision_{name}", matrix, dtype=pl.Array(MATRICES[name], width))
            for name, matrix in self.matrices.items()
            if width
        ]
        frame = self.tokens.with_columns(columns)
        write_table(frame, target, metadata={METADATA_KEY: json.dumps(payload)})

    @classmethod
    def load(cls, source: Path | str | io.BytesIO | bytes) -> Trace:
        """Read what ``save`` wrote, now or in an earlier version: a file, or its bytes.

        Raises
        ------
        TraceError
            If the file is not a trace, or one of a later format.
        """
        name = stored_name(source)
        source = io.BytesIO(source) if isinstance(source, bytes) else source
        try:
            return _loaded(source, name)
        except TraceError:
            raise
        # Every library below raises its own kinds.
        except (Exception, pl.exceptions.PanicException) as error:
            raise TraceError(
                f"{name} cannot be read as a trace ({type(error).__name__}: {error!s:.200}). "
                "Give a file that Trace.save wrote."
            ) from error

    def __sub__(self, other: Trace) -> pl.DataFrame:
        """Compare two policies on the same tokens: this trace minus the other.

        Returns
        -------
        pl.DataFrame
            One row per token: ``token`` and its ``text``; the differences in ``layers_used``
            (layers), ``nll`` and ``surprisal`` (nats); and ``changed``, the number of sites
            decided otherwise (null where the two have different sites).

        Raises
        ------
        TraceError
            If the traces are not of the same tokens.
        """
        if not isinstance(other, Trace):
            return NotImplemented
        mine, theirs = self.tokens, other.tokens
        if not mine.select(SAME_TOKENS).equals(theirs.select(SAME_TOKENS)):
            raise TraceError(
                f"Traces of different tokens cannot be subtracted ({mine.height} and "
                f"{theirs.height} tokens). Trace the same text with both."
            )
        places = ["layer", "unit", "visit"]
        changed: pl.Expr = pl.lit(None, dtype=pl.Int64)
        if self.sites.select(places).equals(other.sites.select(places)):
            differs = self.matrix("exec_count") != other.matrix("exec_count")
            changed = pl.lit(pl.Series(differs.sum(axis=1), dtype=pl.Int64))
        return mine.select(
            "token",
            "text",
            *(
                (pl.col(name) - theirs[name]).alias(name)
                for name in ("layers_used", "nll", "surprisal")
            ),
            changed.alias("changed"),
        )


def _loaded(source: Path | str | io.BytesIO, name: str) -> Trace:
    """Read a file, and nothing of it before its size is known to be sensible."""
    if not isinstance(source, io.BytesIO):
        check_regular_file(source)
    parquet = pq.ParquetFile(source)
    metadata = parquet.metadata.metadata or {}
    if METADATA_KEY.encode() not in metadata:
        raise TraceError(
            f"{name} is a Parquet file but not a trace. Give a file that Trace.save wrote."
        )
    payload = json.loads(metadata[METADATA_KEY.encode()])
    if payload["format"] not in READABLE_FORMATS:
        raise TraceError(
            f"{name} has trace format {payload['format']!r:.80}; this version of skipviz reads "
            f"formats {' and '.join(map(str, READABLE_FORMATS))}."
        )
    run = pl.DataFrame([{each: payload["run"].get(each) for each in RUN}], schema=RUN)
    sites = pl.DataFrame(
        [{each: site.get(each) for each in SITES} for site in payload["sites"]], schema=SITES
    )
    check_run(run)
    check_sites(sites, layers=run["layers"].item())
    rows = parquet.metadata.num_rows
    if rows > MOST_TOKENS or rows * max(sites.height, 1) > MOST_CELLS:
        raise TraceError(
            f"{name} says that it has {rows:,} tokens and {sites.height:,} sites, which is more "
            f"than {MOST_TOKENS:,} tokens or {MOST_CELLS:,} decisions. Trace the text in parts."
        )
    check_unpacked(source, most_values=MOST_CELLS)
    table = parquet.read()
    table.validate(full=True)
    frame = pl.DataFrame(pl.from_arrow(table))
    shape = (frame.height, sites.height)
    frame = _with_classes(frame)
    tokens = frame.select(pl.col(each).cast(dtype, strict=True) for each, dtype in TOKENS.items())
    matrices = {
        each: _matrix(frame[f"decision_{each}"], each, shape)
        if sites.height
        else np.zeros(shape, dtype=NUMPY[each])
        for each in MATRICES
    }
    layers, counts = run["layers"].item(), matrices["exec_count"]
    ran_none = pl.Series((counts == 0).all(axis=1))
    leaves = bool(tokens.filter(ran_none)["exit_depth"].count())
    used, depth = depth_columns(sites, counts, layers=layers, leaves=leaves)
    if payload["format"] == 1 and (sites["visit"] > 0).any():
        # Format 1 said which layer was the deepest, whichever visit of it was the last.
        tokens = tokens.with_columns(pl.Series("exit_depth", depth, dtype=pl.Int64))
    found = Trace(run=run, sites=sites, tokens=tokens, matrices=matrices)
    check_values(found.tokens, found.sites, found.matrices)
    check_depth(found.tokens, used, depth)
    return found


def _with_classes(tokens: pl.DataFrame) -> pl.DataFrame:
    """Return a table of tokens with the columns of classes, unknown where it lacks them."""
    missing = [name for name in CLASS_COLUMNS if name not in tokens.columns]
    return tokens.with_columns(pl.lit(None, dtype=TOKENS[name]).alias(name) for name in missing)


def _matrix(column: pl.Series, name: str, shape: tuple[int, int]) -> npt.NDArray[Any]:
    if column.null_count() or column.dtype != pl.Array(MATRICES[name], shape[1]):
        raise TraceError(
            f"decision_{name} is {column.dtype} with {column.null_count()} nulls; it must be "
            f"{pl.Array(MATRICES[name], shape[1])} without any."
        )
    flat = column.reshape((-1,))
    if flat.null_count():
        raise TraceError(f"decision_{name} has {flat.null_count()} nulls.")
    values: npt.NDArray[Any] = flat.to_numpy().reshape(shape)
    return values


NUMPY = {
    "score": np.float32,
    "p_execute": np.float32,
    "threshold": np.float32,
    "exec_count": np.uint8,
    "forced": np.bool_,
}
"""The array type of each matrix."""


def depth_columns(
    sites: pl.DataFrame, exec_count: npt.NDArray[Any], *, layers: int | None, leaves: bool = False
) -> tuple[npt.NDArray[Any], list[int | None]]:
    """Return layers used and exit depth of each token.

    Parameters
    ----------
    sites
        The ``sites`` table.
    exec_count
        How often each unit ran, of shape [tokens, sites].
    layers
        Number of layers of the backbone, gated or not; None: unknown, only sites count.
    leaves
        Whether what runs no site has left: at the layer before the first. So it is, too, where a
        token's last state stands for it at the layers that it skips (``propagated``).

    Returns
    -------
    tuple
        ``layers_used``, where attention and MLP count half each if gated apart and ungated
        layers count as run; and the layer that a token left at, otherwise the deepest gated layer
        that ran for it, or None. Where layers are visited again, it is the last of
        ``running_steps`` that ran.
    """
    layer = sites["layer"].to_numpy()
    unit = sites["unit"].to_numpy()
    first_visit = sites["visit"].to_numpy() == 0
    weight = np.where(unit == "block", 1.0, 0.5)
    executed = exec_count.astype(np.float64)
    used = executed @ weight
    if layers is not None:
        used += layers - weight[first_visit].sum()
    if not len(layer):
        return used.astype(np.float32), [None] * len(exec_count)
    step = running_steps(sites)
    leaves = leaves or bool((sites["kv"] == "propagated").any())
    none_ran = step.min() - 1 if leaves else -1
    deepest = np.where(exec_count > 0, step, none_ran).max(axis=1)
    return used.astype(np.float32), [int(d) if d >= 0 else None for d in deepest]


def layer_order(sites: pl.DataFrame, *, layers: int | None) -> list[tuple[int, int]]:
    """Return every run of a layer, as its layer and visit, in running order.

    Layers without sites run once, before a higher layer is reached.

    Parameters
    ----------
    sites
        The ``sites`` table, in running order.
    layers
        Number of layers of the backbone; None: unknown, as many as sites name.
    """
    gated = list(dict.fromkeys(sites.select("layer", "visit").rows()))
    known = max((layer for layer, _ in gated), default=-1) + 1
    free = sorted(set(range(known if layers is None else layers)) - {layer for layer, _ in gated})
    order: list[tuple[int, int]] = []
    for layer, visit in gated:
        while free and free[0] < layer:
            order.append((free.pop(0), 0))
        order.append((layer, visit))
    return order + [(layer, 0) for layer in free]


def running_steps(sites: pl.DataFrame) -> npt.NDArray[np.int64]:
    """Return at which run of a layer each site stands, counted from 0 in running order.

    That is its layer, unless layers are visited again: then the first layer of a second visit
    comes after all of the first.

    Parameters
    ----------
    sites
        The ``sites`` table, in running order.
    """
    if not (sites["visit"] > 0).any():
        return sites["layer"].to_numpy()
    place = {run: step for step, run in enumerate(layer_order(sites, layers=None))}
    return np.array([place[run] for run in sites.select("layer", "visit").rows()], dtype=np.int64)


def _as_stored(matrix: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """Return a matrix in the type that files have, so that what is loaded is what was saved."""
    with np.errstate(invalid="ignore", over="ignore"):
        found: npt.NDArray[Any] = matrix.astype(NUMPY[name], copy=False)
    if found.dtype.kind != "f" and not np.array_equal(found, matrix):
        raise TraceError(
            f"{name} must be {'True or False' if name == 'forced' else 'whole numbers, 0 to 255'}; "
            "it has others."
        )
    return found


def _read_only(matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array that cannot be written to, and leave a caller's as it is."""
    if matrix.flags.writeable:
        matrix = matrix.copy()
        matrix.setflags(write=False)
    return matrix
