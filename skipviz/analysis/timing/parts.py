"""FLOPs of each part of each layer: of the dense model, and as the gates decided."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from skipviz.analysis.flops import check_flops, keeps_keys
from skipviz.arrays import Bools, Ints
from skipviz.errors import InputError
from skipviz.schema import Columns
from skipviz.traces import Trace

MODEL_PARTS = (
    "attention projections", "attention scores", "keys and values", "MLP", "gates", "adapters",
    "head", "embeddings",
)  # fmt: skip
"""What a model is made of. An embedding is looked up, which takes no FLOPs."""

PART_FLOPS: Columns = {
    "part": pl.String,
    "layer": pl.Int64,
    "unit": pl.String,
    "dense_flops": pl.Int64,
    "flops": pl.Int64,
}


def flops_by_part(
    trace: Trace, *, counted: Bools | None = None, heads: int | None = None
) -> pl.DataFrame:
    """Return what each part of each layer cost in the whole text, in FLOPs.

    Parameters
    ----------
    trace
        A trace of at least one token.
    counted
        True for each token that counts, of shape [tokens]; all of them if None.
    heads
        Tokens whose logits are made; None: all that count.

    Returns
    -------
    pl.DataFrame
        One row for each part of each layer, and for head and embeddings: ``part``, one of
        ``MODEL_PARTS``; ``layer``, null for head and embeddings; ``unit``, ``attn`` or ``mlp``,
        null for the same and for gates and adapters of whole blocks; ``dense_flops`` of the model
        without gates and ``flops`` as decided. Integers; the sums are those of ``token_flops``.

    Raises
    ------
    InputError
        If the FLOPs of the model's units are unknown, or no token counts.
    """
    check_flops(trace)
    chosen = np.ones(len(trace), dtype=np.bool_) if counted is None else counted
    tokens = int(chosen.sum())
    if not tokens:
        raise InputError("None of the tokens counts; count at least one.")
    run = trace.run.row(0, named=True)
    context = trace.tokens["context"].to_numpy().astype(np.int64)[chosen]
    whole = {
        "attention projections": run["attn_fixed_flops"] * tokens,
        "attention scores": run["attn_per_key_flops"] * int(context.sum()),
        "keys and values": run["kv_flops"] * tokens,
        "MLP": run["mlp_flops"] * tokens,
    }
    decided = _of_sites(trace, chosen, context)
    rows: list[dict[str, Any]] = []
    for layer in range(run["layers"]):
        sites = decided.filter(layer=layer)
        for part, dense in whole.items():
            unit, other = ("mlp", "attn") if part == "MLP" else ("attn", "mlp")
            gated = sites.filter(pl.col("unit") != other)
            flops = int(gated[part].sum()) if gated.height else dense
            rows.append(_row(part, layer, unit, dense, flops))
        for site in sites.iter_rows(named=True):
            where = None if site["unit"] == "block" else site["unit"]
            rows += [_row(part, layer, where, 0, site[part]) for part in ("gates", "adapters")]
    head = (tokens if heads is None else heads) * run["head_flops"]
    rows.append(_row("head", None, None, head, head))
    rows.append(_row("embeddings", None, None, 0, 0))
    return pl.DataFrame(rows, schema=PART_FLOPS)


def part_totals(parts: pl.DataFrame) -> pl.DataFrame:
    """Return the FLOPs of each part over all layers.

    Parameters
    ----------
    parts
        What ``flops_by_part`` returned.

    Returns
    -------
    pl.DataFrame
        One row for each of ``MODEL_PARTS``, in order: ``part``; ``dense_flops`` and ``flops``;
        ``dense_share`` and ``share``, 0 to 1, of the whole dense forward.
    """
    whole = int(parts["dense_flops"].sum())
    return (
        pl.DataFrame({"part": MODEL_PARTS})
        .join(
            parts.group_by("part").agg(pl.col("dense_flops", "flops").sum()),
            on="part",
            how="left",
            maintain_order="left",
        )
        .with_columns(pl.col("dense_flops", "flops").fill_null(0))
        .with_columns(
            dense_share=pl.col("dense_flops") / whole,
            share=pl.col("flops") / whole,
        )
    )


def flops_saved(parts: pl.DataFrame) -> float:
    """Return the share of the dense FLOPs that is saved; below 0 where gates cost more."""
    return 1.0 - int(parts["flops"].sum()) / int(parts["dense_flops"].sum())


def _row(part: str, layer: int | None, unit: str | None, dense: int, flops: int) -> dict[str, Any]:
    return {"part": part, "layer": layer, "unit": unit, "dense_flops": dense, "flops": flops}


def _of_sites(trace: Trace, chosen: Bools, context: Ints) -> pl.DataFrame:
    """Return the FLOPs of each part at each site, as decided for the tokens that count."""
    run, sites = trace.run.row(0, named=True), trace.sites
    ran = trace.matrix("exec_count")[chosen].astype(np.int64)
    asked = ~np.isnan(trace.matrix("score")[chosen])
    times, skipped = ran.sum(axis=0), (ran == 0).sum(axis=0)
    return sites.select(
        "layer",
        "unit",
        pl.Series("attention projections", run["attn_fixed_flops"] * times),
        pl.Series("attention scores", run["attn_per_key_flops"] * (context @ ran)),
        pl.Series("keys and values", run["kv_flops"] * (times + keeps_keys(trace) * skipped)),
        pl.Series("MLP", run["mlp_flops"] * times),
        pl.Series("gates", sites["gate_flops"].to_numpy() * asked.sum(axis=0)),
        pl.Series("adapters", sites["skip_flops"].to_numpy() * skipped),
    )
