"""What a text cost and what it would have cost densely, in the FLOPs that the decisions imply.

A runtime that runs a unit for every token and masks the result spends more than this: what counts
here is what the gates decided.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from skipviz.arrays import Bools, Floats, Ints
from skipviz.errors import InputError
from skipviz.traces import Trace

COMPONENTS = ("attention", "mlp", "adapters", "gates", "keys and values", "head")
"""What a forward spends FLOPs on, in the order of ``compute_share``."""

BUDGET_TOLERANCE = 0.02
"""How far the budget realised may lie from the one asked for before it is reported."""

KEPT_KEYS = ("computed", "propagated", "evicted")
"""With these, a skipped token's keys and values are computed all the same."""


@dataclass(frozen=True, kw_only=True)
class CostSummary:
    """Figures of a whole trace.

    Attributes
    ----------
    tokens
        Number of tokens.
    scored
        Tokens with a loss.
    loss
        Mean loss in nats per token over the scored ones; None if there are none.
    perplexity
        Its exponential, from 1.
    layers
        Layers of the model.
    layers_mean, layers_median, layers_min, layers_max
        Layers used by a token.
    budget
        FLOPs of attention (without keys and values), MLP, adapters and gates over dense attention
        and MLP, as ``realised_budget``; None if the FLOPs of the model's units are unknown.
    flop_share
        FLOPs of the whole forward, keys and values and head included, over those of the dense one;
        None if unknown.
    """

    tokens: int
    scored: int
    loss: float | None
    perplexity: float | None
    layers: int
    layers_mean: float
    layers_median: float
    layers_min: float
    layers_max: float
    budget: float | None
    flop_share: float | None


UNIT_FLOPS = (
    "attn_fixed_flops", "attn_per_key_flops", "mlp_flops", "kv_flops", "head_flops"
)  # fmt: skip
"""What must be known of a run for any cost to be known."""


def flops_known(trace: Trace) -> bool:
    """Return whether the FLOPs of the model's units, gates and skip paths are known."""
    if any(trace.run[name].item() is None for name in ("layers", *UNIT_FLOPS)):
        return False
    sites = trace.sites.select("gate_flops", "skip_flops")
    return not (sum(sites.null_count().row(0)) or trace.tokens["context"].null_count())


def token_flops(trace: Trace) -> pl.DataFrame:
    """Return what each token cost, in FLOPs.

    Ungated layers count as run; a unit that ran twice counts twice; a gate counts whatever it
    decides, unless it was not asked, as of a token that has left; a skip path counts where its
    unit was skipped. Keys and values of an attention that a schedule drops for every token count
    nowhere: it is known beforehand that they are never read.

    Parameters
    ----------
    trace
        Any trace; without sites everything is dense.

    Returns
    -------
    pl.DataFrame
        One row per token: ``token``; ``attention`` (without keys and values), ``mlp``,
        ``adapters``, ``gates``, ``keys_values`` and ``head``, as decided, and their sum ``total``;
        ``dense_attention``, ``dense_mlp``, ``dense_keys_values`` and ``dense_total`` of the model
        without gates. Integers.

    Raises
    ------
    InputError
        If the FLOPs of the model's units are unknown.
    """
    check_flops(trace)
    run = trace.run.row(0, named=True)
    sites = trace.sites
    ran = trace.matrix("exec_count").astype(np.int64)
    asked = ~np.isnan(trace.matrix("score"))
    unit = sites["unit"].to_numpy()
    attends = np.isin(unit, ("attn", "block"))
    free_attention = _ungated(sites, "attn", run["layers"])
    mlp_runs = _ungated(sites, "mlp", run["layers"]) + ran[:, unit != "attn"].sum(axis=1)
    attention_runs = free_attention + ran[:, attends].sum(axis=1)
    keyed = np.maximum(ran, keeps_keys(trace))[:, attends].sum(axis=1)
    attention = _attention_flops(trace)
    return (
        trace.tokens.select(
            "token",
            attention=pl.Series(attention * attention_runs, dtype=pl.Int64),
            mlp=pl.Series(mlp_runs * run["mlp_flops"], dtype=pl.Int64),
            adapters=pl.Series((ran == 0) @ sites["skip_flops"].to_numpy(), dtype=pl.Int64),
            gates=pl.Series(asked @ sites["gate_flops"].to_numpy(), dtype=pl.Int64),
            keys_values=pl.Series((free_attention + keyed) * run["kv_flops"], dtype=pl.Int64),
            head=pl.lit(run["head_flops"], dtype=pl.Int64),
        )
        .with_columns(
            total=pl.sum_horizontal(pl.exclude("token")),
            dense_attention=pl.Series(attention * run["layers"], dtype=pl.Int64),
            dense_mlp=pl.lit(run["layers"] * run["mlp_flops"], dtype=pl.Int64),
            dense_keys_values=pl.lit(run["layers"] * run["kv_flops"], dtype=pl.Int64),
        )
        .with_columns(
            dense_total=pl.sum_horizontal(
                "dense_attention", "dense_mlp", "dense_keys_values", "head"
            )
        )
    )


def keeps_keys(trace: Trace) -> Bools:
    """Return at which sites keys and values of skipped tokens are made all the same, [sites].

    Those of an attention that a schedule drops for every token are not: nothing reads them.
    """
    ran = (trace.matrix("exec_count") > 0).any(axis=0)
    unread = (trace.sites["rule"].to_numpy() == "schedule") & ~ran
    found: Bools = np.isin(trace.sites["kv"].to_numpy(), KEPT_KEYS) & ~unread
    return found


def saved_flops(trace: Trace) -> Floats:
    """Return what skipping each unit saves each token over executing it once, in FLOPs.

    Parameters
    ----------
    trace
        Any trace with sites.

    Returns
    -------
    ndarray
        Of shape [tokens, sites]: attention (without keys and values, where those are computed all
        the same), MLP or both, less the skip path.

    Raises
    ------
    InputError
        If the FLOPs of the model's units are unknown.
    """
    check_flops(trace)
    run, sites = trace.run.row(0, named=True), trace.sites
    unit = sites["unit"].to_numpy()
    attends, feeds = np.isin(unit, ("attn", "block")), np.isin(unit, ("mlp", "block"))
    keys = ~np.isin(sites["kv"].to_numpy(), KEPT_KEYS) & attends
    saved = np.outer(_attention_flops(trace), attends.astype(np.float64))
    saved += run["mlp_flops"] * feeds + run["kv_flops"] * keys
    found: Floats = saved - sites["skip_flops"].to_numpy()
    return found


def is_missed(asked: float | None, realised: float | None) -> bool:
    """Say whether a budget was asked for and is realised more than 0.02 off."""
    if asked is None or realised is None:
        return False
    # What is written as 0.82 is not off by more than what is written as 0.80 and 0.02.
    return abs(realised - asked) > BUDGET_TOLERANCE + 1e-9


def realised_budget(trace: Trace, *, counted: Bools | None = None) -> float:
    """Return the budget that the text at hand came to.

    FLOPs of executed attention (without keys and values), MLP, adapters and gates, over the dense
    attention and MLP FLOPs of all layers: 1.0 if all units run and gates are free, more if gates
    cost and skip little.

    Parameters
    ----------
    trace
        A trace of at least one token.
    counted
        True for each token that counts, of shape [tokens]; all of them if None.

    Raises
    ------
    ValueError
        If the trace has no tokens, none of them counts, or the FLOPs of the model's units are
        unknown.
    """
    return _budget(_totals(trace, counted))


def compute_share(trace: Trace) -> pl.DataFrame:
    """Return what each component cost in the whole text.

    Parameters
    ----------
    trace
        A trace of at least one token.

    Returns
    -------
    pl.DataFrame
        One row for each of ``COMPONENTS``: ``component``; ``flops`` as decided and ``dense_flops``
        of the model without gates; ``share`` and ``dense_share``, 0 to 1, of the dense model's
        whole forward.

    Raises
    ------
    ValueError
        If the trace has no tokens, or the FLOPs of the model's units are unknown.
    """
    totals = _totals(trace)
    names = ("attention", "mlp", "adapters", "gates", "keys_values", "head")
    dense = [
        totals["dense_attention"],
        totals["dense_mlp"],
        0,
        0,
        totals["dense_keys_values"],
        totals["head"],
    ]
    whole = totals["dense_total"]
    return pl.DataFrame(
        {
            "component": COMPONENTS,
            "flops": [totals[name] for name in names],
            "dense_flops": dense,
        },
        schema={"component": pl.String, "flops": pl.Int64, "dense_flops": pl.Int64},
    ).with_columns(share=pl.col("flops") / whole, dense_share=pl.col("dense_flops") / whole)


def execution_rates(trace: Trace) -> pl.DataFrame:
    """Return how often each site ran.

    Parameters
    ----------
    trace
        A trace of at least one token.

    Returns
    -------
    pl.DataFrame
        One row per site, in running order: ``site``, ``label``, ``layer``, ``unit``, ``visit``;
        ``tokens`` and how many of them ``executed`` it at least once; ``rate``, 0 to 1.

    Raises
    ------
    ValueError
        If the trace has no tokens.
    """
    _check_tokens(trace)
    executed = (trace.matrix("exec_count") > 0).sum(axis=0)
    return trace.sites.select(
        "site",
        "label",
        "layer",
        "unit",
        "visit",
        tokens=pl.lit(len(trace), dtype=pl.Int64),
        executed=pl.Series(executed, dtype=pl.Int64),
        rate=pl.Series(executed / len(trace), dtype=pl.Float64),
    )


def cost_summary(trace: Trace) -> CostSummary:
    """Return loss, layers used and cost of the whole text.

    Parameters
    ----------
    trace
        A trace of at least one token.

    Raises
    ------
    ValueError
        If the trace has no tokens.
    """
    _check_tokens(trace)
    totals = _totals(trace) if flops_known(trace) else None
    # In single precision the mean of a million losses would lose its last digits.
    loss = trace.tokens["nll"].drop_nulls().cast(pl.Float64).to_numpy()
    used = trace.tokens["layers_used"].cast(pl.Float64).to_numpy()
    mean = float(loss.mean()) if len(loss) else None
    return CostSummary(
        tokens=len(trace),
        scored=len(loss),
        loss=mean,
        perplexity=None if mean is None else float(np.exp(mean)),
        layers=int(trace.run["layers"][0]),
        layers_mean=float(used.mean()),
        layers_median=float(np.median(used)),
        layers_min=float(used.min()),
        layers_max=float(used.max()),
        budget=None if totals is None else _budget(totals),
        flop_share=None if totals is None else totals["total"] / totals["dense_total"],
    )


def _attention_flops(trace: Trace) -> Ints:
    """Return what one attention costs each token, without its keys and values, [tokens]."""
    run = trace.run.row(0, named=True)
    found: Ints = (
        run["attn_fixed_flops"] + run["attn_per_key_flops"] * trace.tokens["context"].to_numpy()
    )
    return found


def _ungated(sites: pl.DataFrame, unit: str, layers: int) -> int:
    """Return how many layers have no gate on a unit, alone or in a block."""
    gated = sites.filter(pl.col("unit").is_in([unit, "block"]))
    return layers - int(gated["layer"].n_unique())


def _totals(trace: Trace, counted: Bools | None = None) -> dict[str, int]:
    _check_tokens(trace)
    flops = token_flops(trace).drop("token")
    if counted is not None:
        flops = flops.filter(pl.Series(counted))
        if flops.is_empty():
            raise InputError("None of the tokens counts; count at least one.")
    return flops.sum().row(0, named=True)


def _budget(totals: dict[str, int]) -> float:
    spent = totals["attention"] + totals["mlp"] + totals["adapters"] + totals["gates"]
    return spent / (totals["dense_attention"] + totals["dense_mlp"])


def check_flops(trace: Trace) -> None:
    """Raise ``InputError`` unless the FLOPs of the model's units are known."""
    if not flops_known(trace):
        raise InputError(
            f"The FLOPs of {trace.run['model'].item()} are unknown: skipviz counts them for models "
            "in the Llama layout. Budgets and shares of compute need them."
        )


def _check_tokens(trace: Trace) -> None:
    if not len(trace):
        raise InputError("The trace has 0 tokens; trace a text with at least one.")
