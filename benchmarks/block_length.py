"""How far apart tokens are still alike: the autocorrelation behind ``BLOCK_TOKENS``.

Decisions and scores of each site, layers used and losses are series over the tokens of a text. For
each series of each held-out text this prints the autocorrelation at some lags, and the block length
at which a circular block bootstrap of its mean errs least (Politis and White, "Automatic
block-length selection for the dependent bootstrap", 2004, as ``arch`` computes it).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
from arch.bootstrap import optimal_block_length

import skipviz
from skipviz.corpora.held_out import reporting_texts
from skipviz.text.documents import Document

KINDS = ("", "dialogue", "code")
"""What the sources begin with; files of the Brown corpus have plain names."""
TEXTS = 6
SHORTEST = 400
"""Tokens below which a text says little of lags as long as a block."""
LAGS = (1, 2, 4, 8, 16, 32)
RARE = 0.02
"""A site that runs for, or skips, a smaller share of a text is all but constant there."""


def chosen(texts: int) -> list[tuple[str, Document]]:
    """Return so many documents of each kind, evenly spread over those there are."""
    found = []
    for kind in KINDS:
        of_kind = [text for text in reporting_texts() if text.source.rpartition("/")[0] == kind]
        places = np.linspace(0, len(of_kind) - 1, min(texts, len(of_kind))).round().astype(int)
        found += [(kind or "prose", of_kind[place]) for place in places]
    return found


def series_of(trace: skipviz.Trace) -> Iterator[tuple[str, npt.NDArray[np.float64]]]:
    """Yield what is known of each token of a text, in reading order, where it varies."""
    executed = (trace.matrix("exec_count") > 0).astype(np.float64)
    for site in range(trace.sites.height):
        if RARE <= executed[:, site].mean() <= 1 - RARE:
            yield "decisions", executed[:, site]
        yield "scores", trace.margin[:, site].astype(np.float64)
    yield "layers used", trace.tokens["layers_used"].to_numpy().astype(np.float64)
    yield "losses", trace.tokens["nll"].drop_nulls().to_numpy().astype(np.float64)


def autocorrelation(values: npt.NDArray[np.float64], lag: int) -> float:
    """Return the coefficient of a series and itself some tokens on."""
    centred = values - values.mean()
    return float((centred[lag:] * centred[:-lag]).sum() / (centred**2).sum())


def measured(model: skipviz.SkipModel, documents: Sequence[tuple[str, Document]]) -> pl.DataFrame:
    """Return a row for each series of each text."""
    rows = []
    for kind, document in documents:
        trace = skipviz.trace(model, document)
        if len(trace) < SHORTEST:
            continue
        for name, values in series_of(trace):
            lengths = optimal_block_length(values)
            row = {"kind": kind, "of": name, "tokens": len(values)}
            row["block"] = float(lengths["circular"].iloc[0])
            rows.append(row | {f"lag {lag}": autocorrelation(values, lag) for lag in LAGS})
    return pl.DataFrame(rows)


def summarised(rows: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Return medians over series, and how long the blocks of most of them should be."""
    return rows.group_by(by, maintain_order=True).agg(
        pl.len().alias("series"),
        pl.col("tokens").median(),
        *(pl.col(f"lag {lag}").median().round(3) for lag in LAGS),
        pl.col("block").median().round(1),
        *(pl.col("block").quantile(q).round(1).alias(f"block {q:.0%}") for q in (0.75, 0.9, 0.95)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-gated")
    parser.add_argument("--texts", type=int, default=TEXTS, help="held-out texts of each kind")
    asked = parser.parse_args()
    rows = measured(skipviz.load(asked.model), chosen(asked.texts))
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=160, tbl_hide_dataframe_shape=True):
        print(summarised(rows, ["of"]))
        print(summarised(rows, ["of", "kind"]))


if __name__ == "__main__":
    main()
