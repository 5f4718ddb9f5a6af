"""FLOPs of attention, MLP, adapters and gates: the unit in which budgets are stated.

A multiply and an add count as two. Norms, residual additions, rotary embeddings and activation
functions are left out: together they are under one per cent of a layer. Keys and values are
computed for every token whatever the gates decide, so they are on neither side of a budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class UnitFlops:
    """FLOPs of one token in one layer of a Llama-layout model.

    Attributes
    ----------
    attn_fixed
        Query and output projections.
    attn_per_key
        Scores and weighted values, for each token that attention can see.
    mlp
        Gate, up and down projections.
    kv
        Key and value projections; never part of a budget.
    head
        Output head, once a token.
    """

    attn_fixed: int
    attn_per_key: int
    mlp: int
    kv: int
    head: int

    @classmethod
    def from_config(cls, config: Any) -> UnitFlops:
        """Read the sizes off a transformers configuration."""
        width = config.hidden_size
        head_dim = getattr(config, "head_dim", None) or width // config.num_attention_heads
        inner = config.num_attention_heads * head_dim
        return cls(
            attn_fixed=4 * width * inner,
            attn_per_key=4 * inner,
            mlp=6 * width * config.intermediate_size,
            kv=4 * width * config.num_key_value_heads * head_dim,
            head=2 * width * config.vocab_size,
        )


def gate_flops(width: int, hidden: int) -> int:
    """Return the FLOPs of one gate for one token."""
    return 2 * width * hidden + 2 * hidden


def adapter_flops(width: int, rank: int) -> int:
    """Return the FLOPs of one adapter for one token."""
    return 4 * width * rank
