"""Whether scores, and layers used, go with how hard a token is: over all tokens, in one pass.

Documents differ as wholes in both figures, so it is asked what holds within them: figures are taken
less their mean in the document. The interval is over documents: a document moves the coefficient by
what it adds to a covariance and two variances, and the spread of that is its error (the
infinitesimal jackknife; Efron, "The jackknife, the bootstrap and other resampling plans", 1982), on
the scale on which coefficients spread evenly.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from skipviz.analysis.statistics.intervals import student_margin
from skipviz.arrays import Floats
from skipviz.corpus.format import score_column
from skipviz.corpus.questions.means import FIGURES
from skipviz.corpus.reading.dataset import CorpusDataset
from skipviz.errors import InputError

DEPTH_COLUMN = "layers_used"


def association(corpus: CorpusDataset, value: str = "surprisal") -> pl.DataFrame:
    """Return how layers used, and each site's scores, go with a figure of the same tokens.

    Pearson's coefficient of all tokens, within documents. Spearman's, which needs all ranks at
    once, is that of ``skipviz.analysis.layers.difficulty`` on ``corpus.sample()``.

    Parameters
    ----------
    corpus
        What ``skipviz.open_corpus`` returned.
    value
        Of ``FIGURES``, as ``surprisal``, ``nll`` or ``entropy``.

    Returns
    -------
    pl.DataFrame
        First a row for ``layers_used``, then one per site: ``figure``, it or the label;
        ``documents`` and ``tokens`` for which both are known; ``r``, -1 to 1, with its 95%
        interval ``low`` to ``high``. A score is taken by how much it speaks for executing, so that
        ``r`` above 0 says that a gate executes where the value is high. Null where either is the
        same for all tokens of each document, or there is no score.

    Raises
    ------
    InputError
        If there is no such value.
    """
    if value not in FIGURES or value == DEPTH_COLUMN:
        known = ", ".join(name for name in FIGURES if name != DEPTH_COLUMN)
        raise InputError(f"There is no {value!r:.40} to go with; choose of {known}.")
    polarity = dict(zip(corpus.labels, corpus.sites["polarity"].fill_null(0), strict=True))
    columns = {DEPTH_COLUMN: pl.col(DEPTH_COLUMN)}
    columns |= {
        label: pl.col(score_column(label)).cast(pl.Float32) * polarity[label]
        for label in corpus.labels
    }
    found = [_of_step(corpus, rows, columns, value) for rows in corpus.steps()]
    rows = [
        {"figure": name} | _coefficient(np.hstack([each[place] for each in found]))
        for place, name in enumerate(columns)
    ]
    return pl.DataFrame(rows).with_columns(pl.col(pl.Float64).fill_nan(None))


def _of_step(
    corpus: CorpusDataset, rows: pl.LazyFrame, columns: dict[str, pl.Expr], value: str
) -> list[Floats]:
    """Return for each figure what documents add, [4, documents]: tokens, and three sums."""
    right = pl.col(value).cast(pl.Float64)
    each: list[pl.Expr] = []
    for place, column in enumerate(columns.values()):
        left = column.cast(pl.Float64)
        both = left.is_not_null() & right.is_not_null()
        # A null in one leaves out the other.
        pair = (pl.when(both).then(left), pl.when(both).then(right))
        sums = {
            "n": both.cast(pl.Float64), "x": pair[0], "y": pair[1],
            "xx": pair[0] ** 2, "yy": pair[1] ** 2, "xy": pair[0] * pair[1],
        }  # fmt: skip
        each += [part.sum().alias(f"{place} {name}") for name, part in sums.items()]
    table = corpus.collect(rows.group_by("document").agg(each))
    made = []
    for place in range(len(columns)):
        n, x, y, xx, yy, xy = (
            table[f"{place} {name}"].to_numpy() for name in ("n", "x", "y", "xx", "yy", "xy")
        )
        size = np.maximum(n, 1)
        # What is left of a figure that is the same throughout is rounding.
        across = np.where(xx - x**2 / size > 1e-9 * xx, xx - x**2 / size, 0.0)
        down = np.where(yy - y**2 / size > 1e-9 * yy, yy - y**2 / size, 0.0)
        joint = np.where((across > 0) & (down > 0), xy - x * y / size, 0.0)
        made.append(np.stack([n, joint, across, down]))
    return made


def _coefficient(sums: Floats) -> dict[str, float | int]:
    """Return the coefficient and its interval from what each document adds."""
    tokens, joint, across, down = sums[:, sums[0] > 0]
    documents = len(tokens)
    nan = float("nan")
    total = (float(joint.sum()), float(across.sum()), float(down.sum()))
    row: dict[str, float | int] = {"documents": documents, "tokens": int(tokens.sum())}
    if not (total[1] > 0 and total[2] > 0):
        return row | {"r": nan, "low": nan, "high": nan}
    scale = np.sqrt(total[1] * total[2])
    r = total[0] / scale
    moved = joint / scale - r * (across / total[1] + down / total[2]) / 2
    few = documents / max(1, documents - 1)
    error = float(np.sqrt(few * (moved**2).sum())) / max(1 - r**2, 1e-12)
    margin = student_margin(error, documents)
    middle = np.arctanh(np.clip(r, -1 + 1e-9, 1 - 1e-9))
    ends = (float(np.tanh(middle - margin)), float(np.tanh(middle + margin)))
    return row | {"r": float(r), "low": ends[0], "high": ends[1]}
