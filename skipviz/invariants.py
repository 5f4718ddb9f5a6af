"""What every trace keeps to, whoever made it: each figure on a page stands on this.

What is not known is null (NaN in matrices); what is known must make sense, alone and beside the
rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from skipviz.errors import TraceError
from skipviz.schema import (
    MATRICES,
    RUN,
    SITES,
    TOKENS,
    KeyValue,
    Rule,
    Scope,
    SkipPath,
    Unit,
    site_label,
)

MOST_LAYERS = 100_000
MOST_TOKENS = 5_000_000
MOST_CELLS = 2**27
"""Tokens times sites: 1.9 GB of matrices."""
MOST_NUMBER = 2**62
_ROUNDING = 1e-3

Matrices = Mapping[str, npt.NDArray[Any]]


def check_tables(run: pl.DataFrame, sites: pl.DataFrame, tokens: pl.DataFrame) -> None:
    """Check that tables have their columns.

    Raises
    ------
    TraceError
        Names the column, the value and what it may be. So do all functions here.
    """
    for table, frame, schema in (
        ("run", run, RUN),
        ("sites", sites, SITES),
        ("tokens", tokens, TOKENS),
    ):
        has_columns(table, frame, schema)
    if run.height != 1:
        raise TraceError(f"run must have one row and has {run.height}.")


def check_shapes(matrices: Matrices, *, tokens: int, sites: int) -> None:
    """Check that there is every matrix, [tokens, sites]."""
    if set(matrices) != set(MATRICES):
        raise TraceError(f"matrices are {sorted(matrices)} and must be {sorted(MATRICES)}.")
    for name, matrix in matrices.items():
        if not isinstance(matrix, np.ndarray) or matrix.dtype.kind not in "biuf":
            kind = matrix.dtype if isinstance(matrix, np.ndarray) else type(matrix).__name__
            raise TraceError(f"{name} is of type {kind} and must be an array of numbers.")
        if matrix.shape != (tokens, sites):
            raise TraceError(
                f"{name} has shape {matrix.shape}; {(tokens, sites)} was expected, tokens by sites."
            )


def check_run(run: pl.DataFrame) -> None:
    """Check the values of the table ``run``."""
    within(run, "run", "layers", 1, MOST_LAYERS)
    within(run, "run", "window", 1, MOST_NUMBER)
    within(run, "run", "window_overlap", 0, MOST_NUMBER)
    loss = run["loss"].item()
    if loss not in (None, "next_token", "none"):
        raise TraceError(f"run.loss is {loss!r:.80} and must be next_token or none.")
    for name in ("budget", "limit", "price"):
        within(run, "run", name, 0, 1e9)
    for name in RUN:
        if name.endswith("_flops"):
            within(run, "run", name, 0, 1e18)


def check_sites(sites: pl.DataFrame, *, layers: int | None) -> None:
    """Check the values of the table ``sites``, of a model of so many layers; None: not known."""
    numbered(sites, "site")
    all_given(sites, "sites", ("label", "layer", "unit", "visit"))
    within(sites, "sites", "layer", 0, (layers or MOST_LAYERS) - 1)
    within(sites, "sites", "visit", 0, MOST_LAYERS)
    for name in ("gate_flops", "skip_flops"):
        within(sites, "sites", name, 0, 1e18)
    words: dict[str, Any] = {
        "unit": get_args(Unit), "rule": get_args(Rule), "polarity": (1, -1),
        "skip_path": get_args(SkipPath), "kv": get_args(KeyValue), "scope": get_args(Scope),
    }  # fmt: skip
    for name, allowed in words.items():
        wrong = sites.filter(pl.col(name).is_not_null() & ~pl.col(name).is_in(allowed))
        if wrong.height:
            raise TraceError(
                f"sites.{name} is {wrong[name][0]!r} and must be one of "
                f"{', '.join(map(str, allowed))}."
            )
    places = sites.select("layer", "unit", "visit")
    if places.is_duplicated().any():
        raise TraceError("sites has the same layer, unit and visit twice.")
    both = {"attn", "mlp"}
    for (layer,), units in sites.group_by("layer"):
        if "block" in set(units["unit"]) and set(units["unit"]) & both:
            raise TraceError(f"sites gates layer {layer} as a block and in parts at once.")
    for label, *place in sites.select("label", "layer", "unit", "visit").rows():
        if label != site_label(*place):
            raise TraceError(f"sites.label is {label!r} and must be {site_label(*place)!r}.")


def check_values(tokens: pl.DataFrame, sites: pl.DataFrame, matrices: Matrices) -> None:
    """Check what was recorded of tokens and decisions, alone and beside the rest."""
    _check_tokens(tokens)
    _check_decisions(matrices, sites)


def _check_tokens(tokens: pl.DataFrame) -> None:
    numbered(tokens, "token")
    all_given(tokens, "tokens", ("source", "sequence", "position", "text", "span"))
    for name, least in {"sequence": 0, "position": 0, "token_id": -1, "char_start": 0,
                        "char_end": 0, "span": 0, "context": 0}.items():  # fmt: skip
        within(tokens, "tokens", name, least, MOST_NUMBER)
    for name in ("surprisal", "nll", "entropy"):
        within(tokens, "tokens", name, -_ROUNDING, np.inf)
    within(tokens, "tokens", "class_prob", 0, 1 + _ROUNDING)
    _refuse(
        tokens, pl.col("class_prob").is_not_null() & pl.col("class_label").is_null(),
        "has the probability of a class that is not named",
    )  # fmt: skip
    _words(tokens, "phase", ("prefill", "decode", "draft"))
    _refuse(tokens, pl.col("char_start") > pl.col("char_end"), "starts after its end")
    _refuse(
        tokens, pl.col("char_start").is_null() != pl.col("char_end").is_null(),
        "has one end in the text and not the other",
    )  # fmt: skip
    same = pl.col("sequence") == pl.col("sequence").shift(1)
    _refuse(tokens, pl.col("sequence") < pl.col("sequence").shift(1), "is of an earlier sequence")
    _refuse(tokens, same & (pl.col("position") <= pl.col("position").shift(1)), "is out of order")
    _refuse(tokens, pl.col("span") < pl.col("span").shift(1), "is of an earlier span")
    _refuse(
        tokens, same & (pl.col("source") != pl.col("source").shift(1)),
        "is of another source than the rest of its sequence",
    )  # fmt: skip
    follows = same & (pl.col("position") == pl.col("position").shift(1) + 1)
    expected = pl.col("nll").shift(1)
    _refuse(
        tokens,
        follows & ((pl.col("surprisal") - expected).abs() > _ROUNDING * (1 + expected.abs())),
        "has a surprisal that is not the loss of the token before",
    )
    _check_top(tokens)


def _check_decisions(matrices: Matrices, sites: pl.DataFrame) -> None:
    chance = matrices["p_execute"]
    if ((chance < 0) | (chance > 1)).any():
        raise TraceError("p_execute has values outside 0 to 1.")
    score, threshold, count = (matrices[each] for each in ("score", "threshold", "exec_count"))
    # A score above its threshold runs, unless a plan decided.
    rule = ((sites["rule"] == "gt") & (sites["polarity"] == 1)).fill_null(False).to_numpy()
    known = ~np.isnan(score) & ~np.isnan(threshold) & ~matrices["forced"].astype(np.bool_) & rule
    wrong = np.argwhere(known & ((score > threshold) != (count > 0)))
    if len(wrong):
        token, site = wrong[0].tolist()
        raise TraceError(
            f"token {token} at {sites['label'][site]} has score {score[token, site]:g}, threshold "
            f"{threshold[token, site]:g} and exec_count {count[token, site]}, which contradict "
            "each other."
        )


def check_depth(tokens: pl.DataFrame, used: npt.NDArray[Any], depth: list[int | None]) -> None:
    """Check layers used and exit depth against those that the decisions come to."""
    said = tokens["layers_used"].to_numpy()
    wrong = np.flatnonzero(~(np.abs(said - used) <= _ROUNDING * (1 + np.abs(used))))
    if len(wrong):
        token = int(wrong[0])
        raise TraceError(
            f"token {token} has layers_used {said[token]:g}; its decisions come to {used[token]:g}."
        )
    if not tokens["exit_depth"].equals(pl.Series("exit_depth", depth, dtype=pl.Int64)):
        raise TraceError("exit_depth is not the deepest gated layer that ran.")


def has_columns(table: str, frame: pl.DataFrame, schema: Mapping[str, Any]) -> None:
    """Check that a table has columns of these names and types."""
    for name, dtype in schema.items():
        if name not in frame.columns:
            raise TraceError(f"{table} lacks the column {name!r}; it needs {', '.join(schema)}.")
        if frame.schema[name] != dtype:
            raise TraceError(f"{table}.{name} is {frame.schema[name]} and must be {dtype}.")


def numbered(frame: pl.DataFrame, name: str) -> None:
    """Check that a column counts its rows from 0."""
    if not frame[name].equals(pl.Series(name, np.arange(frame.height), dtype=pl.Int64)):
        raise TraceError(f"{name}s must be numbered from 0, without gaps.")


def all_given(frame: pl.DataFrame, table: str, names: tuple[str, ...]) -> None:
    """Check that columns have no nulls."""
    for name in names:
        if frame[name].null_count():
            raise TraceError(f"{table}.{name} has no value at {_first(frame[name].is_null())}.")


def within(
    frame: pl.DataFrame, table: str, name: str, least: float | int, most: float | int
) -> None:
    """Check that what is known of a column is a number of some range, NaN not among it."""
    values = frame[name]
    if values.dtype.is_float():
        wrong = values.is_nan() | (values < least) | (values > most)
    else:
        wrong = (values < int(least)) | (values > int(most))
    if wrong.any():
        place = _first(wrong)
        raise TraceError(
            f"{table}.{name} is {values[place]} at {place}; it must be from {least:g} to {most:g}."
        )


def _words(tokens: pl.DataFrame, name: str, allowed: tuple[str, ...]) -> None:
    wrong = (tokens[name].is_not_null() & ~tokens[name].is_in(allowed)).fill_null(False)
    if wrong.any():
        value = tokens[name][_first(wrong)]
        raise TraceError(f"tokens.{name} is {value!r:.80} and must be {' or '.join(allowed)}.")


def _refuse(tokens: pl.DataFrame, wrong: pl.Expr, what: str) -> None:
    found = tokens.select(wrong.fill_null(False).alias("wrong"))["wrong"]
    if found.any():
        raise TraceError(f"token {_first(found)} {what}.")


def _first(where: pl.Series) -> int:
    return int(where.fill_null(False).arg_max() or 0)


def _check_top(tokens: pl.DataFrame) -> None:
    """Check the most likely next tokens."""
    unknown = tokens["top_probs"].is_null()
    if any(not (tokens[name].is_null() == unknown).all() for name in ("top_ids", "top_texts")):
        raise TraceError("top_ids, top_probs and top_texts are not of the same tokens.")
    known = tokens.filter(~unknown).select("top_probs", "top_ids", "top_texts")
    if not known.height:
        return
    chances = known["top_probs"].reshape((-1,)).fill_null(np.nan).to_numpy()
    ids = known["top_ids"].reshape((-1,))
    chances = chances.reshape(known.height, -1).astype(np.float64)
    if (
        np.isnan(chances).any()
        or ((chances < 0) | (chances > 1 + _ROUNDING)).any()
        or (chances.sum(axis=1) > 1 + _ROUNDING).any()
        or (np.diff(chances, axis=1) > _ROUNDING).any()
    ):
        raise TraceError("top_probs must be probabilities, the largest first.")
    if known["top_texts"].arr.explode().null_count():
        raise TraceError("top_texts has texts that are missing.")
    if ids.null_count() or (ids < -1).any():
        raise TraceError("top_ids must be ids, or -1 where a small vocabulary has no more.")
