"""Traces made up on the spot: no model runs, so every number in them can be chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from skipviz.families.llama import UnitFlops, adapter_flops, gate_flops
from skipviz.schema import RUN, TOKENS, TOP_K, Site, site_frame
from skipviz.traces import Trace, depth_columns

FLOPS = UnitFlops(attn_fixed=4_096, attn_per_key=128, mlp=12_288, kv=2_048, head=19_200)
"""Those of ``tests.tiny.backbone``."""
PIECES = (
    ("The",),
    (" fox",),
    (" <b>bold</b>",),
    (" 🦊", "🦊", "🦊"),
    (" &amp;",),
    ("\n",),
    (" עברית",),
    ("\t=1+1",),
    ("\r\n",),
    (" `$x$`",),
    ("\x00",),
    (" cafe\u0301",),
)
"""Characters in order, tokens that share an emoji in one group."""


def make_trace(
    *,
    seed: int = 0,
    tokens: int = 40,
    layers: int = 6,
    gated: tuple[int, ...] = (1, 2, 3, 4),
    units: tuple[str, ...] = ("attn", "mlp"),
    visits: int = 1,
    sequences: int = 1,
    exec_count: Any = None,
    rate: float = 0.7,
    polarity: int = 1,
    gate: int = gate_flops(32, 4),
    skip: int = adapter_flops(32, 2),
    kv: str = "computed",
    statistics: bool = True,
    offsets: bool = True,
    budget: float | None = 0.8,
    model: str = "synthetic",
    policy: str = "learned",
) -> Trace:
    """Return a trace whose scores agree with its decisions.

    Parameters
    ----------
    seed
        Of everything drawn.
    tokens
        Number of tokens, spread over the sequences in reading order.
    layers, gated
        Layers of the backbone, and those of them that have gates; none for a dense model.
    units
        What each gated layer gates: ``("attn", "mlp")`` or ``("block",)``.
    visits
        How often each gated layer is visited.
    sequences
        Number of texts.
    exec_count
        Decisions of shape [tokens, sites], or a number for all; drawn at ``rate`` if None.
    rate
        Share of decisions that execute, 0 to 1.
    polarity
        +1 if a high score executes, else -1.
    gate, skip
        FLOPs a token of each gate and of each skip path.
    kv
        What later tokens see of a skipped one.
    statistics
        Whether there are losses and likeliest next tokens.
    offsets
        Whether it is known where tokens stand in the text.
    budget, model, policy
        Provenance.
    """
    random = np.random.default_rng(seed)
    sites = site_frame(
        [
            Site(
                layer=layer,
                unit=unit,  # type: ignore[arg-type]
                visit=visit,
                rule="gt",
                polarity=polarity,  # type: ignore[arg-type]
                skip_path="adapter" if skip else "identity",
                kv=kv,  # type: ignore[arg-type]
                computed_anyway=True,
                scope="token",
                gate_flops=gate,
                skip_flops=skip,
            )
            for visit in range(visits)
            for layer in gated
            for unit in units
        ]
    )
    shape = (tokens, sites.height)
    if exec_count is None:
        exec_count = random.random(shape) < rate
    counts = np.broadcast_to(np.asarray(exec_count), shape).astype(np.uint8)
    used, depth = depth_columns(sites, counts, layers=layers)
    return Trace(
        run=_run(layers, model=model, policy=policy, budget=budget),
        sites=sites,
        tokens=_tokens(random, tokens, sequences, statistics, offsets).with_columns(
            pl.Series("layers_used", used, dtype=pl.Float32),
            pl.Series("exit_depth", depth, dtype=pl.Int64),
        ),
        matrices=_matrices(random, counts, sites),
    )


def _matrices(
    random: np.random.Generator, counts: np.ndarray, sites: pl.DataFrame
) -> dict[str, np.ndarray]:
    threshold = np.broadcast_to(
        random.normal(size=counts.shape[1]).astype(np.float32), counts.shape
    ).copy()
    distance = random.gamma(2.0, 0.8, counts.shape) + 1e-3
    side = np.where(counts > 0, 1, -1) * sites["polarity"].to_numpy()
    return {
        "score": (threshold + side * distance).astype(np.float32),
        "p_execute": np.full(counts.shape, np.nan, dtype=np.float32),
        "threshold": threshold,
        "exec_count": counts,
        "forced": np.zeros(counts.shape, dtype=np.bool_),
    }


def _tokens(
    random: np.random.Generator, count: int, sequences: int, statistics: bool, offsets: bool
) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    span = 0
    for sequence, size in enumerate(np.diff(np.linspace(0, count, sequences + 1).astype(int))):
        position, characters, group = 0, 0, 0
        while position < size:
            texts = PIECES[group % len(PIECES)]
            end = characters + len(texts[0])
            for text in texts[: size - position]:
                rows.append(
                    {
                        "source": f"text {sequence}",
                        "sequence": sequence,
                        "position": position,
                        "text": text,
                        "char_start": end - len(text),
                        "char_end": end,
                        "span": span,
                    }
                )
                position += 1
            characters, group, span = end, group + 1, span + 1
    names = ("source", "sequence", "position", "text", "char_start", "char_end", "span")
    frame = pl.DataFrame(rows, schema={name: TOKENS[name] for name in names})
    if not offsets:
        frame = frame.with_columns(
            pl.lit(None, dtype=pl.Int64).alias(name) for name in ("char_start", "char_end")
        )
    return frame.with_columns(
        token=pl.int_range(count, dtype=pl.Int64),
        token_id=pl.Series(random.integers(0, 300, count), dtype=pl.Int64),
        context=pl.col("position") + 1,
        phase=pl.lit("prefill"),
        layers_used=pl.lit(None, dtype=pl.Float32),
        exit_depth=pl.lit(None, dtype=pl.Int64),
        class_label=pl.lit(None, dtype=pl.String),
        class_prob=pl.lit(None, dtype=pl.Float32),
        **_statistics(random, frame, statistics),
    ).select(list(TOKENS))


def _statistics(
    random: np.random.Generator, frame: pl.DataFrame, present: bool
) -> dict[str, pl.Series]:
    count = frame.height
    names = ("surprisal", "nll", "entropy", "top_ids", "top_probs", "top_texts")
    if not present:
        return {name: pl.Series([None] * count, dtype=TOKENS[name]) for name in names}
    loss = random.gamma(1.2, 2.5, count).astype(np.float32)
    first = frame["position"].to_numpy() == 0
    last = np.append(first[1:], True)[:count]
    surprisal = np.concatenate([[np.nan], loss])[:count]
    weights = np.sort(random.dirichlet(np.full(12, 0.4), count), axis=1)[:, ::-1]
    words = [text for group in PIECES for text in group]
    chosen = random.integers(0, len(words), (count, TOP_K))
    return {
        "surprisal": _nullable(np.where(first, np.nan, surprisal)),
        "nll": _nullable(np.where(last, np.nan, loss)),
        "entropy": _nullable(random.gamma(2.0, 1.0, count)),
        "top_ids": pl.Series(chosen.astype(np.int64), dtype=TOKENS["top_ids"]),
        "top_probs": pl.Series(
            np.ascontiguousarray(weights[:, :TOP_K], dtype=np.float32), dtype=TOKENS["top_probs"]
        ),
        "top_texts": pl.Series(
            [[words[i] for i in row] for row in chosen], dtype=TOKENS["top_texts"]
        ),
    }


def _nullable(values: np.ndarray) -> pl.Series:
    return pl.Series(values.astype(np.float32), dtype=pl.Float32).fill_nan(None)


def _run(layers: int, *, model: str, policy: str, budget: float | None) -> pl.DataFrame:
    row: dict[str, Any] = {
        "model": model,
        "weights_sha256": "0" * 64,
        "family": "gated",
        "policy": policy,
        "budget": budget,
        "price": None,
        "runtime": "masked",
        "dtype": "float32",
        "device": "cpu",
        "seed": 0,
        "window": None,
        "window_overlap": None,
        "layers": layers,
        "attn_fixed_flops": FLOPS.attn_fixed,
        "attn_per_key_flops": FLOPS.attn_per_key,
        "mlp_flops": FLOPS.mlp,
        "kv_flops": FLOPS.kv,
        "head_flops": FLOPS.head,
        "skipviz_version": "0",
        "torch_version": "0",
        "transformers_version": "0",
    }
    return pl.DataFrame([row], schema=RUN)


def say(trace: Trace, pieces: list[str]) -> Trace:
    """Return the trace with other tokens, those of one text, each piece once."""
    ends = np.cumsum([len(piece) for piece in pieces])
    starts = ends - [len(piece) for piece in pieces]
    tokens = trace.tokens.with_columns(
        text=pl.Series(pieces),
        char_start=pl.Series(starts, dtype=pl.Int64),
        char_end=pl.Series(ends, dtype=pl.Int64),
        span=pl.int_range(len(pieces), dtype=pl.Int64),
    )
    return Trace(run=trace.run, sites=trace.sites, tokens=tokens, matrices=trace.matrices)
