"""Rows of a corpus as a trace, which every analysis takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from skipviz.corpus.format import SITE_LISTS, score_column
from skipviz.schema import CLASS_COLUMNS, MATRICES, RUN, SITES, TOKENS
from skipviz.traces import NUMPY, Trace

THRESHOLD_RULES = ("gt", "ge", "lt")
"""Rules that compare a score with its threshold, and nothing else."""


def run_table(about: dict[str, Any]) -> pl.DataFrame:
    """Return the table ``run`` of a trace, from ``corpus.json``."""
    return pl.DataFrame([{name: about["run"].get(name) for name in RUN}], schema=RUN)


def sites_table(about: dict[str, Any]) -> pl.DataFrame:
    """Return the table ``sites`` of a trace, from ``corpus.json``."""
    rows = [{name: site.get(name) for name in SITES} for site in about["sites"]]
    return pl.DataFrame(rows, schema=SITES)


def trace_of_rows(
    rows: pl.DataFrame, sources: pl.DataFrame, *, run: pl.DataFrame, sites: pl.DataFrame
) -> Trace:
    """Return documents of a corpus as a trace, a sequence for each, in their order.

    Decisions are those that were made. Scores are as near to the gates' own as 11 bits are; one
    that rounding put on the other side of its threshold stands at the threshold.

    Parameters
    ----------
    rows
        Rows of ``tokens``, sorted by document and position.
    sources
        ``document`` and ``source`` of each.
    run, sites
        Of the trace.
    """
    named = rows.join(
        sources.select("document", "source"), on="document", how="left", maintain_order="left"
    )
    sequence = pl.col("document").rank("dense").cast(pl.Int64) - 1
    # Spans count from 0 in each document, and in a trace through all of them.
    ends = pl.col("span").max().over("document") + 1
    first = pl.int_range(pl.len()).over("document") == 0
    before = pl.when(first).then(ends).otherwise(0).cum_sum() - ends
    kept_nowhere = ("top_ids", "top_probs", "top_texts", *CLASS_COLUMNS)
    unknown = {name: pl.lit(None) for name in kept_nowhere}
    tokens = named.with_columns(
        token=pl.int_range(pl.len()),
        sequence=sequence,
        span=pl.col("span") + before,
        **unknown,
    ).select(pl.col(name).cast(kind) for name, kind in TOKENS.items())
    return Trace(run=run, sites=sites, tokens=tokens, matrices=_matrices(rows, sites))


def _matrices(rows: pl.DataFrame, sites: pl.DataFrame) -> dict[str, npt.NDArray[Any]]:
    labels, shape = sites["label"].to_list(), (rows.height, sites.height)
    found: dict[str, npt.NDArray[Any]] = {
        name: np.zeros(shape, dtype=NUMPY[name]) for name in MATRICES
    }
    if not labels:
        return found
    for place, label in enumerate(labels):
        found["exec_count"][:, place] = rows[label].to_numpy()
        score = rows[score_column(label)].cast(pl.Float32).fill_null(np.nan)
        found["score"][:, place] = score.to_numpy()
    for name in SITE_LISTS:
        known = rows[name].is_not_null().to_numpy()
        if name != "exec_count":
            found[name][:] = np.nan
        if known.any():
            lists = rows[name].drop_nulls().cast(pl.Array(MATRICES[name], len(labels)))
            flat = lists.reshape((-1,)).cast(pl.Float64).fill_null(np.nan).to_numpy()
            found[name][known] = flat.reshape(-1, len(labels)).astype(NUMPY[name])
    found["score"] = _on_their_side(found, sites)
    return found


def _on_their_side(
    matrices: dict[str, npt.NDArray[Any]], sites: pl.DataFrame
) -> npt.NDArray[np.float32]:
    """Return scores none of which contradicts its decision."""
    score, threshold = matrices["score"], matrices["threshold"]
    ran = matrices["exec_count"] > 0
    compared = sites["rule"].is_in(THRESHOLD_RULES).fill_null(False).to_numpy()
    polarity = sites["polarity"].cast(pl.Float32).fill_null(np.nan).to_numpy()
    margin = polarity * (score - threshold)
    beyond, below = (
        np.nextafter(threshold, side * polarity * np.float32(np.inf), dtype=np.float32)
        for side in (1, -1)
    )
    # Under "ge" a high score that executes does so at the threshold as well.
    runs_there = (sites["rule"] == "ge").fill_null(False).to_numpy() & (polarity > 0)
    meant = np.where(ran & compared & (margin <= 0), beyond, score)
    held = np.where(runs_there, below, threshold)
    otherwise = ~ran & compared & ((margin > 0) | (runs_there & (margin == 0)))
    found: npt.NDArray[np.float32] = np.where(otherwise, held, meant)
    return found.astype(np.float32)
