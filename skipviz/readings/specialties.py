"""Specialties in plain words."""

from __future__ import annotations

from typing import Any

import polars as pl

from skipviz.analysis.statistics.multiple_tests import FALSE_DISCOVERY_RATE

MOST = 5
"""Sentences, if nothing else is asked."""


def found(table: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that are no chance finding, the surest and strongest first.

    Parameters
    ----------
    table
        What ``specialties`` returned.

    Returns
    -------
    pl.DataFrame
        Rows with ``q`` below ``LEVEL``, with ``strength``: how far from 0 the end of the interval
        of the log-odds that is nearer to it lies, 0 if the interval holds 0.
    """
    nearer = pl.max_horizontal(pl.col("low"), -pl.col("high"), 0.0)
    return (
        table.filter(pl.col("q") < FALSE_DISCOVERY_RATE)
        .with_columns(strength=nearer)
        .sort("strength", "tokens", descending=True, maintain_order=True)
    )


def sentences(table: pl.DataFrame, *, most: int = MOST) -> list[str]:
    """Say which specialties are strongest, each class and each site at most once.

    Parameters
    ----------
    table
        What ``specialties`` returned.
    most
        How many sentences.
    """
    said: list[str] = []
    classes, sites = set(), set()
    for row in found(table).iter_rows(named=True):
        if len(said) == most:
            break
        if row["class"] in classes or row["site"] in sites or not row["strength"]:
            continue
        classes.add(row["class"])
        sites.add(row["site"])
        said.append(_sentence(table, row))
    return said


def site_words(layer: int, unit: str, visit: int = 0) -> str:
    """Return the name of a site as a sentence begins with it: ``Layer 17's MLP``."""
    name = f"Layer {layer}" + {"attn": "'s attention", "mlp": "'s MLP"}.get(unit, "")
    return name + (f", on visit {visit + 1}," if visit else "")


def _sentence(table: pl.DataFrame, row: dict[str, Any]) -> str:
    site = site_words(row["layer"], row["unit"], row["visit"])
    rivals = table.filter(feature=row["feature"], site=row["site"]).filter(
        pl.col("class") != row["class"]
    )
    more = row["log_odds"] > 0
    says = f"{site} runs for {'' if more else 'only '}{row['rate']:.0%} of {row['class']}"
    if rivals.is_empty():
        return f"{says}, {row['rate_outside']:.0%} of all other tokens."
    other = rivals.sort("rate", descending=not more).row(0, named=True)
    return f"{says}, {other['rate']:.0%} of {other['class']}."
