"""The words of a trace as types: what a site is, and the columns of the four tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import polars as pl
from polars.datatypes import DataType, DataTypeClass

from skipviz.text.arguments import check_types

Unit = Literal["block", "attn", "mlp"]
Rule = Literal[
    "gt", "ge", "lt", "topk", "quantile", "argmax", "cumsum", "patience", "schedule", "forced",
    "sample",
]  # fmt: skip
SkipPath = Literal["identity", "adapter", "zero", "frozen"]
KeyValue = Literal["computed", "absent", "evicted", "copied", "propagated", "shared"]
Scope = Literal["token", "window", "sequence", "batch"]

Columns = dict[str, DataTypeClass | DataType]

TOP_K = 5
"""How many of the most likely next tokens a trace keeps."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """One place of decision.

    Attributes
    ----------
    layer
        Layer, from 0.
    unit
        What is skipped: ``block``, ``attn`` or ``mlp``.
    visit
        How often the layer has been visited before, for models that repeat layers.
    rule
        How a score becomes a decision.
    polarity
        +1: a high score executes; -1: a high score skips; None: there is no score.
    skip_path
        What replaces a skipped unit; None: unknown.
    kv
        What later tokens see of a skipped token at this layer; None: unknown.
    computed_anyway
        True where the unit runs for every token and is masked: nothing is saved in time; None:
        unknown.
    scope
        For whom one decision is taken.
    gate_flops, skip_flops
        FLOPs per token of the decision, and of the skip path; None: unknown.

    Examples
    --------
    >>> site = skipviz.Site(
    ...     layer=3,
    ...     unit="mlp",
    ...     rule="gt",
    ...     polarity=1,
    ...     skip_path="adapter",
    ...     kv="computed",
    ...     computed_anyway=True,
    ...     scope="token",
    ... )
    >>> site.label
    'L3.mlp'
    """

    layer: int
    unit: Unit
    visit: int = 0
    rule: Rule
    polarity: Literal[1, -1] | None
    skip_path: SkipPath | None
    kv: KeyValue | None
    computed_anyway: bool | None
    scope: Scope
    gate_flops: int | None = 0
    skip_flops: int | None = 0

    def __post_init__(self) -> None:
        check_types(self)

    @property
    def label(self) -> str:
        """Name of the site in figures and columns: ``L7.mlp``, with ``.v1`` on a second visit."""
        return site_label(self.layer, self.unit, self.visit)


def site_label(layer: int, unit: str, visit: int) -> str:
    """Return the name of a site in figures and columns."""
    return f"L{layer}.{unit}" + (f".v{visit}" if visit else "")


RUN: Columns = {
    "model": pl.String,
    "weights_sha256": pl.String,
    "setup_sha256": pl.String,
    "family": pl.String,
    "policy": pl.String,
    "budget": pl.Float64,
    "limit": pl.Float64,
    "price": pl.Float64,
    "runtime": pl.String,
    "dtype": pl.String,
    "device": pl.String,
    "seed": pl.Int64,
    "loss": pl.String,
    "window": pl.Int64,
    "window_overlap": pl.Int64,
    "layers": pl.Int64,
    "attn_fixed_flops": pl.Int64,
    "attn_per_key_flops": pl.Int64,
    "mlp_flops": pl.Int64,
    "kv_flops": pl.Int64,
    "head_flops": pl.Int64,
    "skipviz_version": pl.String,
    "torch_version": pl.String,
    "transformers_version": pl.String,
}

SITES: Columns = {
    "site": pl.Int64,
    "label": pl.String,
    "layer": pl.Int64,
    "unit": pl.String,
    "visit": pl.Int64,
    "rule": pl.String,
    "polarity": pl.Int64,
    "skip_path": pl.String,
    "kv": pl.String,
    "computed_anyway": pl.Boolean,
    "scope": pl.String,
    "gate_flops": pl.Int64,
    "skip_flops": pl.Int64,
}

TOKENS: Columns = {
    "token": pl.Int64,
    "source": pl.String,
    "sequence": pl.Int64,
    "position": pl.Int64,
    "token_id": pl.Int64,
    "text": pl.String,
    "char_start": pl.Int64,
    "char_end": pl.Int64,
    "span": pl.Int64,
    "context": pl.Int64,
    "phase": pl.String,
    "surprisal": pl.Float32,
    "nll": pl.Float32,
    "entropy": pl.Float32,
    "top_ids": pl.Array(pl.Int64, TOP_K),
    "top_probs": pl.Array(pl.Float32, TOP_K),
    "top_texts": pl.Array(pl.String, TOP_K),
    "layers_used": pl.Float32,
    "exit_depth": pl.Int64,
    "class_label": pl.String,
    "class_prob": pl.Float32,
}

CLASS_COLUMNS = ("class_label", "class_prob")
"""Of a model that predicts a class of a text, the same for all tokens that it read together. Tables
may lack them, as in files of earlier versions; a trace then has them as unknown."""

MATRICES: Columns = {
    "score": pl.Float32,
    "p_execute": pl.Float32,
    "threshold": pl.Float32,
    "exec_count": pl.UInt8,
    "forced": pl.Boolean,
}

DECISIONS: Columns = {"token": pl.Int64, "site": pl.Int64, **MATRICES}


def site_frame(sites: list[Site]) -> pl.DataFrame:
    """Return the ``sites`` table, one row per site in the order in which sites run."""
    rows: list[dict[str, Any]] = [
        {"site": index, "label": site.label, **asdict(site)} for index, site in enumerate(sites)
    ]
    return pl.DataFrame(rows, schema=SITES)
