"""The page of corpora in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from skipviz.analysis.statistics.multiple_tests import FALSE_DISCOVERY_RATE
from skipviz.readings.tokens.word_lists import KINDS_ARE_ENGLISH


def corpus_rates_reading(table: pl.DataFrame, *, by: Sequence[str]) -> str:
    """Say which site ran most and least, and for which group.

    Parameters
    ----------
    table
        What ``skipviz.corpus.questions.means.corpus_rates`` returned.
    by
        The columns of it that name groups.
    """
    ordered = table.sort("rate", descending=True)
    said = []
    for verb, row in (("most often", ordered.head(1)), ("least often", ordered.tail(1))):
        found = row.row(0, named=True)
        group = ", ".join("unknown" if found[name] is None else str(found[name]) for name in by)
        of = f" for {group}" if group else ""
        said.append(f"{found['label']} ran {verb}{of}: {found['rate']:z.1%}{_interval(found)}.")
    documents = table.select(pl.col("documents").max()).item()
    caveat = f" Intervals are over documents, at most {documents:,} in a group."
    kinds = f" {KINDS_ARE_ENGLISH}" if "kind" in by else ""
    return " ".join(said) + caveat + kinds


def corpora_compared_reading(means: pl.DataFrame) -> str:
    """Say how two corpora of the same documents differ.

    Parameters
    ----------
    means
        ``CorpusComparison.means``.
    """
    said = []
    for figure, name, unit in (("layers_used", "Layers used", "layers"), ("nll", "Loss", "nats")):
        row = means.filter(figure=figure).row(0, named=True)
        if row["difference"] is None:
            said.append(
                f"{name} cannot be compared: for no document with the same tokens do both have it."
            )
            continue
        ends = (
            "" if row["low"] is None
            else f", 95% interval {row['low']:+z.3f} to {row['high']:+z.3f}"
        )  # fmt: skip
        said.append(
            f"{name} per token, second less first: {row['difference']:+z.3f} {unit}{ends}, over "
            f"{row['documents']:,} documents."
        )
    sites = means.filter(~pl.col("figure").is_in(["layers_used", "nll"]))
    differ = sites.filter(pl.col("q") < FALSE_DISCOVERY_RATE).height
    if sites.height and (sites["documents"] < 2).all():
        said.append("Whether execution rates differ is not known from a single document.")
    elif sites.height:
        said.append(
            f"Execution rates differ at {differ} of {sites.height} sites after correction for so "
            "many tests."
        )
    return " ".join(said)


def _interval(row: dict[str, Any]) -> str:
    if row["low"] is None:
        return ""
    return f" (95% interval {row['low']:z.1%} to {row['high']:z.1%})"
