"""The utility of every decision, exactly: flip it, hold all others, and see what the loss does.

A flip changes its token's hidden state from its layer upward, and through keys and values that of
later tokens; nothing before it and nothing below it. So one run gives the hidden states and keys
of the unflipped text, and each flip only runs its own token (and, with a longer horizon, the next
few) through the layers above. Flips share forwards: a row is a flip, and a layer runs all rows
that have begun.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from skipviz.atomic import write_table
from skipviz.errors import InputError
from skipviz.families import Plan
from skipviz.families.hooks import after, before, hooked
from skipviz.families.llama import attend_after, decoder_layers
from skipviz.families.powers import CanFlip, SkippableUnit, force
from skipviz.models import SkipModel
from skipviz.progress import Meter, Progress, check_stop, no_progress
from skipviz.recording.statistics import next_token_losses
from skipviz.traces import Trace

Downstream = Literal["held", "react"]
FLIPPED_TOKENS_AT_ONCE = 4096
"""Tokens run at once, if nothing else is asked."""

UTILITY = {
    "token": pl.Int64,
    "site": pl.Int64,
    "executed": pl.Boolean,
    "nll": pl.Float64,
    "flipped_nll": pl.Float64,
    "utility": pl.Float64,
}


def audit(
    model: SkipModel,
    trace: Trace,
    *,
    horizon: int | None = 1,
    downstream: Downstream = "held",
    cells: Sequence[tuple[int, int]] | None = None,
    rows: int = FLIPPED_TOKENS_AT_ONCE,
    store: Path | None = None,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> pl.DataFrame:
    """Return what each decision was worth.

    Parameters
    ----------
    model
        The gated model that was traced.
    trace
        Its trace of one text, which fits one window.
    horizon
        How many next-token predictions count, the flipped token's own first; None counts all that
        follow. 1 misses what keys and values do for later tokens.
    downstream
        ``held`` keeps every other decision as it was; ``react`` lets the gates above decide anew.
    cells
        (token, site) pairs to flip; every one if there are none.
    rows
        Tokens to run at once; memory grows with it.
    store
        A Parquet file of cells done before, which are not run again; new ones are added as they
        are done. It belongs to one trace and one set of options.
    progress
        Called with the share of the work done, 0 to 1.
    stop
        Set it from another thread to stop; what is in ``store`` stays.

    Returns
    -------
    pl.DataFrame
        One row per cell, in order of token and site: ``token``, ``site``; ``executed``, the
        decision that was flipped; ``nll`` and ``flipped_nll``, the loss in nats over the horizon
        before and after; ``utility``, the loss with the unit skipped minus that with it executed,
        in nats: positive where executing helps. Cells of the last token, which predicts nothing,
        are left out.

    Raises
    ------
    ValueError
        If the model has no gated units, the trace is of several sequences, of other sites, or
        longer than the context, or a cell does not exist.
    Stopped
        If ``stop`` was set.

    Examples
    --------
    >>> cells = skipviz.audit(model, trace, cells=[(0, 1), (3, 1)])
    >>> cells.select("token", "site", "executed").rows()
    [(0, 1, True), (3, 1, True)]
    >>> (cells["utility"] > 0).to_list()  # where executing helps
    [False, False]
    """
    units = _units(model, trace)
    length = len(trace) - 1
    reach = length if horizon is None else horizon
    if reach < 1:
        raise InputError(f"horizon={horizon} must be at least 1, or None for all that follow.")
    wanted = _cells(cells, length, trace.sites.height)
    known = _read(store)
    with torch.inference_mode():
        base = _Base.of(model, trace, stop)
        groups = _groups([cell for cell in wanted if cell not in known], length, reach, rows)
        layers = len(decoder_layers(model.model))
        work = sum(_rows_run(group, units, layers, length, reach) for group in groups)
        meter = Meter(max(1, work), progress, stop)
        for group in groups:
            losses = _Sweep(model.model, units, base, group, reach, downstream).run(meter)
            known |= dict(zip(group, losses.tolist(), strict=True))
            _write(store, known)
    progress(1.0)
    token, site = np.array(wanted, dtype=np.int64).reshape(-1, 2).T
    executed = trace.matrix("exec_count")[token, site] > 0
    totals = np.concatenate([[0.0], np.cumsum(base.nll.double().cpu().numpy())])
    before = totals[np.minimum(token + reach, length)] - totals[token]
    after = np.array([known[cell] for cell in wanted], dtype=np.float64)
    columns = (token, site, executed, before, after, np.where(executed, 1, -1) * (after - before))
    return pl.DataFrame(dict(zip(UTILITY, columns, strict=True)), schema=UTILITY)


@dataclass(frozen=True, eq=False)
class _Base:
    """The unflipped run: what every layer was given, its keys and values, decisions and losses."""

    entered: list[Float[Tensor, "t d"]]
    """Hidden states before each layer."""
    between: list[Float[Tensor, "t d"]]
    """Hidden states between attention and MLP."""
    keys: list[Float[Tensor, "h t c"]]
    values: list[Float[Tensor, "h t c"]]
    executed: Bool[Tensor, "t s"]
    rotary: tuple[Float[Tensor, "t c"], Float[Tensor, "t c"]]
    targets: Int[Tensor, " n"]
    nll: Float[Tensor, " n"]

    @classmethod
    def of(cls, model: SkipModel, trace: Trace, stop: threading.Event | None) -> _Base:
        ids = torch.tensor(trace.tokens["token_id"].to_list(), device=model.device)[None]
        decided = trace.matrix("exec_count") > 0
        layers: Any = decoder_layers(model.model)
        entered: list[Tensor] = []
        between: list[Tensor] = []
        hooks = [after(layer, lambda *_: check_stop(stop)) for layer in layers]
        hooks += [
            before(norm, lambda _, args, kept=kept: kept.append(args[0][0]))
            for layer in layers
            for norm, kept in (
                (layer.input_layernorm, entered),
                (layer.post_attention_layernorm, between),
            )
        ]
        with force(model.family, model.model, Plan(decided), name=model.name), hooked(hooks):
            result = model.model.model(ids, use_cache=True)
        positions = torch.arange(ids.shape[1], device=model.device)[None]
        cosine, sine = model.model.model.rotary_emb(entered[0][None], positions)
        cache = result.past_key_values
        targets = ids[0, 1:]
        return cls(
            entered=entered,
            between=between,
            keys=[layer.keys[0] for layer in cache.layers],
            values=[layer.values[0] for layer in cache.layers],
            executed=torch.from_numpy(decided).to(model.device),
            rotary=(cosine[0], sine[0]),
            targets=targets,
            nll=next_token_losses(model.model, result.last_hidden_state[0, :-1], targets),
        )


class _Sweep:
    """Runs some flips through the layers, from the lowest one upward.

    Parameters
    ----------
    model
        A causal LM of the Llama layout.
    units
        Its gated units, in running order.
    base
        The unflipped run.
    cells
        (token, site) of each flip, in order of site.
    reach
        Tokens that each flip runs, its own first.
    downstream
        Whether gates above may decide anew.
    """

    def __init__(
        self,
        model: Any,
        units: Sequence[SkippableUnit],
        base: _Base,
        cells: Sequence[tuple[int, int]],
        reach: int,
        downstream: Downstream,
    ) -> None:
        self._model = model
        self._gated: dict[tuple[int, str], tuple[int, SkippableUnit]] = {
            (each.layer, each.kind): (site, each) for site, each in enumerate(units)
        }
        self._base = base
        self._react = downstream == "react"
        device = base.executed.device
        self._site = torch.tensor([site for _, site in cells])
        first = torch.tensor([token for token, _ in cells], device=device)
        length = len(base.targets)
        reach = min(reach, length - int(first.min()))
        self._first = first
        # Rows near the end of the text run a token twice; the second is not counted.
        self._token = (first[:, None] + torch.arange(reach, device=device)).clamp(max=length - 1)
        self._counts = first[:, None] + torch.arange(reach, device=device) < length
        self._state = base.entered[0].new_empty(len(cells), reach, base.entered[0].shape[-1])

    def run(self, meter: Meter) -> Float[Tensor, " r"]:
        """Return the loss of each flip over its horizon, in nats; each unit is counted as done."""
        base, begun = self._base, 0
        layers: Any = decoder_layers(self._model)
        for number, layer in enumerate(layers):
            for kind, module, norm, entering in (
                ("attn", layer.self_attn, layer.input_layernorm, base.entered),
                ("mlp", layer.mlp, layer.post_attention_layernorm, base.between),
            ):
                site, gated = self._gated.get((number, kind), (-1, None))
                starts = int((self._site == site).sum())
                flips = slice(begun, begun + starts)
                self._state[flips] = entering[number][self._token[flips]]
                begun += starts
                if not begun:
                    continue
                normed = norm(self._state[:begun])
                execute = self._decided(site, gated, normed, flips)
                unit = gated.dense if gated else module
                output = torch.empty_like(normed)
                if kind == "mlp":
                    output[execute] = unit(normed[execute])
                elif execute.any():
                    output[execute] = self._attended(unit, normed, execute, number)
                if gated:
                    output[~execute] = gated.adapter(normed[~execute])
                self._state[:begun] += output
                meter.advance(begun * self._token.shape[1])
        losses = self._state.new_zeros(self._token.shape)
        counted = self._counts
        losses[counted] = next_token_losses(
            self._model,
            self._model.model.norm(self._state[counted]),
            base.targets[self._token[counted]],
        )
        return losses.double().sum(1)

    def _decided(
        self,
        site: int,
        gated: SkippableUnit | None,
        normed: Float[Tensor, "r k d"],
        flips: slice,
    ) -> Bool[Tensor, "r k"]:
        """Return where a unit runs, of all rows that have begun; those of ``flips`` begin here."""
        if gated is None:
            return torch.ones(normed.shape[:2], dtype=torch.bool, device=normed.device)
        execute = self._base.executed[self._token[: len(normed)], site]
        if self._react and flips.start and gated.looks:
            score = gated.gate(normed[: flips.start])
            execute[: flips.start] = score > gated.decide.threshold
        execute[flips, 0] = ~execute[flips, 0]
        return execute

    def _attended(
        self, unit: Any, normed: Float[Tensor, "r k d"], execute: Bool[Tensor, "r k"], layer: int
    ) -> Float[Tensor, "n d"]:
        """Return attention's output for the tokens that execute it."""
        base = self._base
        # Keys of tokens that skip are still seen by the next ones of their row.
        rows = execute.any(1)
        token = self._token[: len(normed)][rows]
        return attend_after(
            unit,
            normed[rows],
            rotary=(base.rotary[0][token], base.rotary[1][token]),
            text=(base.keys[layer], base.values[layer]),
            first=self._first[: len(normed)][rows],
            wanted=execute[rows],
        )


def _rows_run(
    group: Sequence[tuple[int, int]],
    units: Sequence[SkippableUnit],
    layers: int,
    length: int,
    reach: int,
) -> int:
    """Return how many rows a group runs, summed over the units of all layers."""
    begins = [2 * units[site].layer + (units[site].kind == "mlp") for _, site in group]
    tokens = min(reach, length - min(token for token, _ in group))
    return tokens * sum(2 * layers - begin for begin in begins)


def _groups(
    cells: Sequence[tuple[int, int]], length: int, reach: int, rows: int
) -> list[list[tuple[int, int]]]:
    """Cut cells into groups that run together.

    Cells of one group are of like site, so that they start at like layers, and of like reach.
    """
    # Rows of one group are as long as its longest.
    ordered = sorted(cells, key=lambda cell: (min(reach, length - cell[0]), cell[1], cell[0]))
    groups: list[list[tuple[int, int]]] = []
    for cell in ordered:
        tokens = min(reach, length - cell[0])
        if not groups or (len(groups[-1]) + 1) * tokens > max(rows, tokens):
            groups.append([])
        groups[-1].append(cell)
    return [sorted(group, key=lambda cell: (cell[1], cell[0])) for group in groups]


def _cells(
    cells: Sequence[tuple[int, int]] | None, length: int, sites: int
) -> list[tuple[int, int]]:
    if cells is None:
        return [(token, site) for token in range(length) for site in range(sites)]
    for token, site in cells:
        if not (0 <= token < length and 0 <= site < sites):
            raise InputError(
                f"There is no cell {(token, site)} to flip: tokens go from 0 to {length - 1} (the "
                f"last predicts nothing) and sites from 0 to {sites - 1}."
            )
    return sorted(set(cells))


def _units(model: SkipModel, trace: Trace) -> list[SkippableUnit]:
    """Return the units that can be flipped, if the trace is one that can be audited."""
    if not isinstance(model.family, CanFlip):
        raise InputError(
            f"{model.name} is of the family {model.family.name}; decisions can be flipped one by "
            "one in models with gated units."
        )
    if trace.tokens["sequence"].n_unique() != 1 or len(trace) < 2:
        raise InputError(
            f"The trace has {trace.tokens['sequence'].n_unique()} sequences and {len(trace)} "
            "tokens; an audit takes one text of at least two tokens."
        )
    if len(trace) > model.context:
        raise InputError(
            f"The text has {len(trace)} tokens and the model sees {model.context}; audit a part."
        )
    labels = [site.label for site in model.family.sites(model.model)]
    if trace.sites["label"].to_list() != labels:
        raise InputError("The trace is of other sites than this model's; trace with this model.")
    window = getattr(model.model.config, "sliding_window", None)
    if window is not None and window < len(trace):
        raise InputError(
            f"The model attends to {window} tokens at a time and the text has {len(trace)}; audit "
            "a shorter text."
        )
    return model.family.units(model.model)


def _read(store: Path | None) -> dict[tuple[int, int], float]:
    if store is None or not store.exists():
        return {}
    found = pl.read_parquet(store)
    cells = found.select("token", "site").rows()
    return dict(zip(cells, found["flipped_nll"].to_list(), strict=True))


def _write(store: Path | None, known: dict[tuple[int, int], float]) -> None:
    if store is None:
        return
    rows = [(token, site, loss) for (token, site), loss in known.items()]
    schema = {"token": pl.Int64, "site": pl.Int64, "flipped_nll": pl.Float64}
    write_table(pl.DataFrame(rows, schema=schema, orient="row"), store)
