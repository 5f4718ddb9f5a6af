"""How far the scores of gates go with what decisions were worth, or with shares of a loss.

Sites differ in the level and scale of their scores and of their utilities, which says nothing of
tokens. So a layer's coefficient, and the one over all, is the mean of its sites' own; with ranks
that is the coefficient of all cells ranked within their sites. Of several texts it is asked what
holds within them, as ``block_correlation`` says.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import polars.selectors as cs

from skipviz.analysis.statistics.blocks import BLOCK_TOKENS
from skipviz.analysis.statistics.correlation import (
    CORRELATION_METHODS,
    PERMUTATIONS,
    Coefficients,
    Controls,
    CorrelationMethod,
    coefficients,
    correlation_of,
)
from skipviz.analysis.statistics.multiple_tests import with_q_values
from skipviz.analysis.statistics.resampling import Resampling
from skipviz.analysis.tokens.covariates import controlled_for, covariates, design_matrix
from skipviz.arrays import Floats
from skipviz.errors import InputError
from skipviz.progress import Progress, no_progress
from skipviz.text.arguments import checked
from skipviz.traces import Trace


@checked
def correlate(
    trace: Trace,
    cells: pl.DataFrame,
    value: str,
    *,
    methods: Sequence[CorrelationMethod] = ("spearman",),
    block: int = BLOCK_TOKENS,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    progress: Progress = no_progress,
) -> pl.DataFrame:
    """Return how far scores go with a figure of the same cells: by site, by layer, over all.

    A score is taken by how much it speaks for executing, so that a coefficient above 0 says that a
    gate executes where the figure is high.

    Parameters
    ----------
    trace
        The trace whose scores are meant.
    cells
        One row per (``token``, ``site``), such as ``skipviz.audit`` returns; tokens of which a
        cell, a score or a covariate is missing are left out.
    value
        The column of ``cells`` to correlate with the scores.
    methods
        Coefficients: ``spearman``, ``pearson`` or ``kendall``.
    block
        Neighbouring tokens that the intervals keep together.
    permutations
        Random signs that the p-values are of.
    seed
        Seed of them.
    progress
        Called with the share of the work done, 0 to 1.

    Returns
    -------
    pl.DataFrame
        One row per test: ``scope`` (``all``, ``layer`` or ``site``), ``layer`` and ``label`` where
        there is one; ``method``; ``controlled``, whether ``controls`` were taken out: position,
        word frequency, surprisal and length, without the frequency where no text is
        English, null in the other rows; ``tokens``; ``r`` with its 95% interval ``low``
        to ``high``; ``withheld``, why there is no interval: "blocks", too few of them, "trends",
        slow changes along the text that move ``r``, or "weight", too few tokens that ``r`` rests
        on; ``r_detrended``, the coefficient without slow changes, of ranks unless the method is
        Pearson's; ``p`` of that; ``q``, p after Benjamini and Hochberg over the whole table. Null
        where all scores or figures of a site are alike.

    Raises
    ------
    ImportError
        If wordfreq is not installed; says how to install it.
    ValueError
        If there is no such column or method, the trace has no sites, or fewer than three tokens
        are whole.

    Examples
    --------
    >>> cells = skipviz.audit(model, trace)
    >>> found = skipviz.correlate(trace, cells, "utility", permutations=99)
    >>> found.filter(scope="all").select("method", "controlled", "tokens").rows()
    [('spearman', False, 38), ('spearman', True, 38)]
    """
    if not methods:
        raise InputError(f"There is no method; give some of {', '.join(CORRELATION_METHODS)}.")
    values = _matrix(trace, cells, value)
    scores = trace.margin.astype(np.float64)
    table = covariates(trace)
    controls_named = controlled_for(table)
    known = design_matrix(table)
    whole = np.isfinite(np.hstack([values, scores, known])).all(axis=1)
    if whole.sum() < 3:
        raise InputError(
            f"{whole.sum()} of {len(trace)} tokens have a score, {value} and covariates at every "
            "site, too few to correlate anything; give cells of at least 3 whole tokens."
        )
    values, scores, known = values[whole], scores[whole], known[whole]
    documents = trace.tokens["sequence"].to_numpy()[whole]
    resampling = Resampling.of(
        len(values), documents=documents, block=block, permutations=permutations, seed=seed
    )
    rows = []
    asked = [(method, controlled) for method in methods for controlled in (False, True)]
    for done, (method, controlled) in enumerate(asked):
        controls = Controls.of(known if controlled else None, method=method, resampling=resampling)
        found = []
        for site in range(trace.sites.height):
            progress((done + site / trace.sites.height) / len(asked))
            found.append(
                coefficients(
                    scores[:, site], values[:, site], method=method,
                    controls=controls, resampling=resampling,
                )
            )  # fmt: skip
        rows += [
            {
                **scope,
                "controlled": controlled,
                "controls": controls_named if controlled else None,
                **vars(correlation_of(each, method=method, resampling=resampling)),
            }
            for scope, each in _scopes(trace.sites, found)
        ]
    progress(1.0)
    names = ("scope", "layer", "label", "method", "controlled", "controls", "tokens")
    figures = ("r", "low", "high", "withheld", "r_detrended", "p")
    strings = dict.fromkeys(("scope", "label", "controls", "withheld"), pl.String) | {
        "layer": pl.Int64
    }
    table = with_q_values(pl.DataFrame(rows, schema_overrides=strings).select(*names, *figures))
    return table.with_columns(cs.float().fill_nan(None))


def _matrix(trace: Trace, cells: pl.DataFrame, value: str) -> Floats:
    """Return the figure of each cell, [tokens, sites], NaN where there is none."""
    if not trace.sites.height:
        raise InputError("The trace has 0 sites, so there are no scores; trace a model with gates.")
    if value not in cells.columns:
        raise InputError(
            f"The cells have no column {value!r}; choose one of {', '.join(cells.columns)}."
        )
    for place, most in (("token", len(trace)), ("site", trace.sites.height)):
        if place not in cells.columns or not cells[place].dtype.is_integer():
            raise InputError(f"The cells need a column {place!r} of whole numbers.")
        if cells[place].null_count() or not cells[place].is_between(0, most - 1).all():
            raise InputError(f"{place}s of the cells must be from 0 to {most - 1}, as the trace's.")
    if cells.select("token", "site").is_duplicated().any():
        raise InputError("The cells name the same token and site twice; give each once.")
    figures = cells[value]
    if not (figures.dtype.is_numeric() or figures.dtype == pl.Boolean):
        raise InputError(f"The column {value!r} is of type {figures.dtype}; choose one of numbers.")
    matrix = np.full((len(trace), trace.sites.height), np.nan)
    matrix[cells["token"].to_numpy(), cells["site"].to_numpy()] = figures.cast(
        pl.Float64
    ).to_numpy()
    return matrix


def _scopes(
    sites: pl.DataFrame, found: Sequence[Coefficients]
) -> list[tuple[dict[str, str | int | None], Coefficients]]:
    """Return the coefficients over all, of each layer and of each site."""
    layers = sites["layer"].to_list()
    rows: list[tuple[dict[str, str | int | None], Coefficients]] = [
        ({"scope": "all", "layer": None, "label": None}, Coefficients.mean(found))
    ]
    for layer in dict.fromkeys(layers):
        of_layer = [each for each, its in zip(found, layers, strict=True) if its == layer]
        rows.append(
            ({"scope": "layer", "layer": layer, "label": None}, Coefficients.mean(of_layer))
        )
    for label, layer, each in zip(sites["label"], layers, found, strict=True):
        rows.append(({"scope": "site", "layer": layer, "label": label}, each))
    return rows
