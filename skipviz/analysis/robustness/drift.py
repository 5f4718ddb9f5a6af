"""Whether one corpus drives a model's gates otherwise than another: drift.

Scores of neighbouring tokens are alike, so a Kolmogorov-Smirnov test that takes tokens for
independent finds drift between two halves of one book. Here whole documents change corpus, or,
where there are few of them, whole blocks of neighbouring tokens.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from skipviz.analysis.robustness.exchange import (
    Draws,
    dominance_deltas,
    ks_distances,
    stability_indices,
)
from skipviz.analysis.robustness.two_corpora import Corpus, Traces, exchangeable, shared_sites
from skipviz.analysis.statistics.multiple_tests import FALSE_DISCOVERY_RATE, with_q_values
from skipviz.arrays import Floats, Ints
from skipviz.errors import InputError
from skipviz.progress import Progress, no_progress

SHIFTED, DRIFTED = 0.1, 0.25
"""Population stability indices from which a figure is said to have shifted, and drifted."""
DRIFT_PERMUTATIONS = 4999
"""So many that one figure among a hundred can still be found after the correction."""
LAYERS_USED = "layers used"


def drift(
    before: Traces,
    after: Traces,
    *,
    permutations: int = DRIFT_PERMUTATIONS,
    seed: int = 0,
    progress: Progress = no_progress,
) -> pl.DataFrame:
    """Return how far scores and layers used of one corpus lie from those of another.

    Parameters
    ----------
    before, after
        Traces of the same model under the same policy; ``before`` is the reference.
    permutations
        How often documents or blocks of tokens change corpus for the p-values.
    seed
        Seed of that.
    progress
        Called with the share of the permutations done, 0 to 1.

    Returns
    -------
    pl.DataFrame
        First a row for ``layers used``, then one for the score of each site, in running order:
        ``figure``; ``site``, ``label``, ``layer``, ``unit``, ``visit``, null for layers used;
        ``tokens_before``, ``tokens_after``, those with such a figure; ``mean_before`` and
        ``mean_after``, in layers or on the gate's own scale; ``rate_before`` and ``rate_after``,
        shares executed, null for layers used. ``delta``, the effect, is the chance that a token
        after scores higher than one before, less the chance that it scores lower, -1 to 1 (Cliff,
        "Dominance statistics", 1993). ``psi`` is the population stability index over tenths of
        ``before`` (its values, where there are no more than ten), half a token added to each
        (Siddiqi, "Credit risk scorecards", 2006), and
        ``psi_chance`` its mean over the permutations: what two corpora of this size show without
        any drift. ``ks`` is the Kolmogorov-Smirnov distance, 0 to 1, at ``KS_POINTS`` places or at
        every value if there are fewer; ``p`` the share of permutations, the data's own order among
        them, with as large a one; ``q`` that after Benjamini and Hochberg over the table.
        ``exchanged`` says what changed places, ``documents`` or ``blocks``. ``level`` is
        ``drifted`` from an index of 0.25 and ``shifted`` from 0.1, if q is also below 0.05, else
        ``stable``. A site that decides for whole texts has no p while blocks change places.

    Raises
    ------
    TraceError
        If the traces are of different models, policies, budgets or thresholds.
    ValueError
        If a corpus is too small for any p-value to be low.
    """
    corpora = (Corpus.of(before), Corpus.of(after))
    sites = shared_sites(before, after)
    if permutations < 1:
        raise InputError(f"permutations={permutations} must be at least 1.")
    exchanged, unit = exchangeable(*corpora)
    values = np.vstack([corpus.values for corpus in corpora])
    later = np.repeat([False, True], [len(corpus.values) for corpus in corpora])
    draws = Draws(permutations, seed, progress)
    ks, p = ks_distances(values, later, unit, draws)
    # The same ones once more, for the other half of the work.
    draws = Draws(permutations, seed, progress, begun=0.5)
    psi, chance = stability_indices(values, later, unit, draws)
    if exchanged == "blocks":
        p[1:][sites["scope"].to_numpy() != "token"] = np.nan
    figures = {
        **_described(corpora),
        "delta": dominance_deltas(values, later),
        "psi": psi,
        "psi_chance": chance,
        "ks": ks,
        "p": p,
    }
    table = with_q_values(
        _rows(sites).with_columns(**_series(figures), exchanged=pl.lit(exchanged))
    )
    found = pl.col("q") < FALSE_DISCOVERY_RATE
    level = (
        pl.when(found & (pl.col("psi") >= DRIFTED))
        .then(pl.lit("drifted"))
        .when(found & (pl.col("psi") >= SHIFTED))
        .then(pl.lit("shifted"))
        .otherwise(pl.lit("stable"))
    )
    return table.with_columns(pl.col(pl.Float64).fill_nan(None)).with_columns(level=level)


def _described(corpora: tuple[Corpus, Corpus]) -> dict[str, Floats | Ints]:
    """Return how many tokens have each figure, its means, and the shares executed."""
    found: dict[str, Floats | Ints] = {}
    for name in ("tokens", "mean", "rate"):
        for when, corpus in zip(("before", "after"), corpora, strict=True):
            known = np.isfinite(corpus.values)
            count = known.sum(axis=0)
            if name == "tokens":
                found[f"{name}_{when}"] = count
            elif name == "mean":
                total = np.where(known, corpus.values, 0.0).sum(axis=0)
                found[f"{name}_{when}"] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
            else:
                found[f"{name}_{when}"] = np.concatenate([[np.nan], corpus.executed])
    return found


def _rows(sites: pl.DataFrame) -> pl.DataFrame:
    """Return what each row of the table is about."""
    places = sites.select("site", "label", "layer", "unit", "visit")
    whole = pl.DataFrame([dict.fromkeys(places.columns)], schema=places.schema)
    rows = pl.concat([whole, places])
    return rows.select(pl.col("label").fill_null(LAYERS_USED).alias("figure"), pl.all())


def _series(figures: dict[str, Floats | Ints]) -> dict[str, pl.Series]:
    return {name: pl.Series(values) for name, values in figures.items()}
