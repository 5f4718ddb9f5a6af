"""Bytes of weights that decoding reads: those of what runs, as the decisions are."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl
from torch import nn

from skipviz.analysis.timing.parts import MODEL_PARTS
from skipviz.arrays import Floats
from skipviz.families.llama import UnitFlops, decoder_layers
from skipviz.families.powers import CanFlip
from skipviz.models import SkipModel
from skipviz.schema import Columns

WEIGHTS_READ: Columns = {"part": pl.String, "dense_bytes": pl.Float64, "bytes": pl.Float64}
UNIT_MODULES = ("self_attn", "mlp")
"""What a layer calls its attention and its MLP."""


def weights_read(model: SkipModel, ran: Floats) -> pl.DataFrame | None:
    """Return the bytes of weights that decoding one token reads, dense and as decided.

    Parameters
    ----------
    model
        A model whose units are gated one by one, or a dense one; of others it is not known which
        weights a token reads.
    ran
        For each site, the share of the decoded tokens that ran it, 0 to 1, of shape [sites].

    Returns
    -------
    pl.DataFrame or None
        One row for each part: ``part``, ``dense_bytes``, ``bytes``. A gate and the adapter's first
        matrix are read by every token, its second one by those that skip, keys' and values' by
        all; where rates are fixed, the whole adapter is read by those that skip alone. Of
        embeddings one row is read; norms and biases beside the parts are left out. None: unknown.
    """
    family, own = model.family, model.model
    flips = isinstance(family, CanFlip)
    if UnitFlops.of(own) is None or (family.sites(own) and not flips):
        return None
    dense = dict.fromkeys(MODEL_PARTS, 0.0)
    read = dict.fromkeys(MODEL_PARTS, 0.0)
    units = family.units(own) if isinstance(family, CanFlip) else []
    behind = {unit.module: (unit, float(rate)) for unit, rate in zip(units, ran, strict=True)}
    for unit, rate in behind.values():
        parts = (getattr(unit.adapter, "down", None), getattr(unit.adapter, "up", None))
        if not all(isinstance(part, nn.Module) for part in parts):
            return None
        down, up = (_size(part.parameters()) for part in parts)  # type: ignore[union-attr]
        read["gates"] += _size(unit.gate.parameters())
        read["adapters"] += (1.0 if unit.looks else 1 - rate) * down + (1 - rate) * up
    for layer in decoder_layers(own):
        for name in UNIT_MODULES:
            module = getattr(layer, name)
            gated = behind.get(module)
            own_module, rate = (module, 1.0) if gated is None else (gated[0].dense, gated[1])
            for part, size in _sizes(own_module).items():
                dense[part] += size
                read[part] += size * (1.0 if part == "keys and values" else rate)
    dense["head"] = read["head"] = _size(own.get_output_embeddings().parameters())
    table = own.get_input_embeddings().weight
    dense["embeddings"] = read["embeddings"] = float(table.shape[-1] * table.element_size())
    return pl.DataFrame(
        {"part": MODEL_PARTS, "dense_bytes": list(dense.values()), "bytes": list(read.values())},
        schema=WEIGHTS_READ,
    )


def bytes_saved(weights: pl.DataFrame) -> float:
    """Return the share of the dense model's bytes that is not read; below 0 where more are."""
    return 1.0 - float(weights["bytes"].sum()) / float(weights["dense_bytes"].sum())


def _sizes(unit: nn.Module) -> dict[str, float]:
    """Return the bytes of an attention or an MLP by part."""
    names = {"q_proj", "o_proj"}, {"k_proj", "v_proj"}
    if not isinstance(getattr(unit, "q_proj", None), nn.Module):
        return {"MLP": _size(unit.parameters())}
    queries, keys = (
        sum(_size(getattr(unit, name).parameters()) for name in group) for group in names
    )
    return {"attention projections": queries, "keys and values": keys}


def _size(parameters: Iterable[nn.Parameter]) -> float:
    return float(sum(each.numel() * each.element_size() for each in parameters))
