"""Utilities that a corpus has of its decisions, as the cells that analyses of gates take."""

from __future__ import annotations

import polars as pl

from skipviz.corpus.reading.dataset import CorpusDataset, CorpusSample


def audited_cells(corpus: CorpusDataset, sample: CorpusSample) -> pl.DataFrame:
    """Return the audit of a sample's decisions, for ``judged``, ``quality`` and ``correlate``.

    Parameters
    ----------
    corpus
        One that was run with ``--analyses audit``.
    sample
        What ``corpus.sample`` returned.

    Returns
    -------
    pl.DataFrame
        One row per decision that was audited: ``token`` and ``site`` in ``sample.trace``;
        ``executed``; ``utility``, in nats. Sorted by token and site.

    Raises
    ------
    InputError
        If the corpus has no audit.
    """
    drawn = pl.col("document").is_in(pl.Series(sample.documents).implode())
    rows = corpus.collect(corpus.further("audit").filter(drawn)).sort("document", "position")
    places = pl.DataFrame({"label": corpus.labels}).with_row_index("site")
    long = (
        rows.with_columns(token=pl.int_range(pl.len(), dtype=pl.Int64))
        .select("token", *corpus.labels)
        .unpivot(index="token", variable_name="label", value_name="utility")
        .drop_nulls("utility")
        .join(places, on="label")
        .with_columns(pl.col("site").cast(pl.Int64), pl.col("utility").cast(pl.Float64))
        .sort("token", "site")
    )
    ran = sample.trace.matrix("exec_count") > 0
    executed = ran[long["token"].to_numpy(), long["site"].to_numpy()]
    return long.select("token", "site", pl.Series("executed", executed), "utility")
