"""FLOPs of each part of each layer: of the dense model, and as the gates decided."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from skipviz.analysis.flops import KEPT_KEYS, check_flops
from skipviz.arrays import Bools
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
    ran = trace.matrix("exec_count").astype(np.int64)
    asked = ~np.isnan(trace.matrix("score"))
    dropped = (trace.sites["rule"].to_numpy() == "schedule") & ~ran.any(axis=0)
    ran, asked = ran[chosen], asked[chosen]
    per_layer = (run["attn_fixed_flops"], run["attn_per_key_flops"], run["kv_flops"])
    rows: list[dict[str, Any]] = []
    for layer in range(run["layers"]):
        sites = trace.sites.filter(pl.col("layer") == layer)
        rows += _attention(sites, ran, dropped, context, *per_layer, layer=layer)
        rows.append(_mlp(sites, ran, run["mlp_flops"], tokens, layer=layer))
        rows += _of_gates(sites, ran, asked, layer=layer)
    made = tokens if heads is None else heads
    head = made * run["head_flops"]
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


def _attention(
    sites: pl.DataFrame,
    ran: Any,
    dropped: Bools,
    context: Any,
    fixed: int,
    per_key: int,
    kv: int,
    *,
    layer: int,
) -> list[dict[str, Any]]:
    gated = sites.filter(pl.col("unit") != "mlp")
    places = gated["site"].to_numpy()
    times = ran[:, places].sum(axis=1) if len(places) else np.ones(len(context), dtype=np.int64)
    kept = np.isin(gated["kv"].to_numpy(), KEPT_KEYS) & ~dropped[places]
    keyed = int(np.maximum(ran[:, places], kept).sum()) if len(places) else len(context)
    seen, read = int(context.sum()), int((times * context).sum())
    return [
        _row(
            "attention projections", layer, "attn", fixed * len(context), fixed * int(times.sum())
        ),
        _row("attention scores", layer, "attn", per_key * seen, per_key * read),
        _row("keys and values", layer, "attn", kv * len(context), kv * keyed),
    ]


def _mlp(sites: pl.DataFrame, ran: Any, mlp: int, tokens: int, *, layer: int) -> dict[str, Any]:
    places = sites.filter(pl.col("unit") != "attn")["site"].to_numpy()
    times = int(ran[:, places].sum()) if len(places) else tokens
    return _row("MLP", layer, "mlp", mlp * tokens, mlp * times)


def _of_gates(sites: pl.DataFrame, ran: Any, asked: Bools, *, layer: int) -> list[dict[str, Any]]:
    rows = []
    for site in sites.iter_rows(named=True):
        place = site["site"]
        unit = None if site["unit"] == "block" else site["unit"]
        gate = site["gate_flops"] * int(asked[:, place].sum())
        skip = site["skip_flops"] * int((ran[:, place] == 0).sum())
        rows.append(_row("gates", layer, unit, 0, gate))
        rows.append(_row("adapters", layer, unit, 0, skip))
    return rows
