"""Figures over all tokens of a corpus."""

from __future__ import annotations

import hashlib
from pathlib import Path

import polars as pl
import streamlit as st

from skipviz.app.components.downloads import csv_buttons
from skipviz.app.components.notebook_cell import notebook_cells
from skipviz.app.components.plain_text import plain
from skipviz.corpus.questions.groups import Groups, columns_of
from skipviz.corpus.questions.means import corpus_means, site_rates
from skipviz.corpus.reading.dataset import CorpusDataset
from skipviz.corpus.reading.root import open_below
from skipviz.plots.corpora.rates_map import corpus_rate_map
from skipviz.readings.corpora.answers import corpus_rates_reading
from skipviz.readings.tokens.word_lists import KINDS_ARE_ENGLISH

ALL_TOKENS = "all tokens"
CORPUS_FOLDER = "A corpus is the folder of its name, which `skipviz corpus run` wrote."

INTERVAL_COLUMNS = {
    "low": st.column_config.NumberColumn("95% from"),
    "high": st.column_config.NumberColumn("to"),
}
"""What tables of corpora call the ends of an interval over documents."""


def over_all(root: Path, name: str, corpus: CorpusDataset) -> None:
    """Show rates and means over all tokens, by group."""
    by = st.selectbox("By", [ALL_TOKENS, "kind", *columns_of(corpus).values()], key="corpus_by")
    grouped = None if by == ALL_TOKENS else str(by)
    tables = _tables(str(root), name, version_of(corpus), grouped)
    shown = Groups.of(corpus, grouped).shown
    if "rates" in tables:
        rates = tables["rates"]
        st.markdown(plain(corpus_rates_reading(rates, by=shown)))
        st.plotly_chart(corpus_rate_map(rates, by=shown, source=name), key="corpus_rates")
        notebook_cells(
            f"corpus_rate_map(rates, by={list(shown)}, source={name!r})",
            imports=[
                "from skipviz.corpus.questions.means import corpus_rates",
                "from skipviz.plots.corpora.rates_map import corpus_rate_map",
            ],
            first=[
                f"corpus = skipviz.open_corpus({name!r})",
                f"rates = corpus_rates(corpus, by={grouped!r})",
            ],
            files=CORPUS_FOLDER,
        )
    else:
        st.info("The model has no gates, so every layer runs for every token.")
        if "kind" in shown:
            st.caption(KINDS_ARE_ENGLISH)
    st.dataframe(tables["means"].drop("error"), column_config=INTERVAL_COLUMNS, hide_index=True)
    csv_buttons({label.capitalize(): (label, table) for label, table in tables.items()})


def version_of(corpus: CorpusDataset) -> str:
    """Return what changes where a dataset does."""
    # Names of parts are fixed by what their documents hold, the user's columns included.
    parts = hashlib.sha256(" ".join(corpus.parts).encode()).hexdigest()
    return f"{parts} {len(corpus)} {corpus.complete} {corpus.run['setup_sha256'][0]}"


@st.cache_data(max_entries=32, show_spinner="Reading all tokens")
def _tables(root: str, name: str, version: str, by: str | None) -> dict[str, pl.DataFrame]:
    """Return rates, if there are sites, and means; ``version`` changes with the dataset."""
    corpus = open_below(Path(root), name)
    figures = ["layers_used", "nll", "surprisal", "entropy"]
    found = corpus_means(corpus, [*figures, *corpus.labels], by=by)
    means = {"means": found.filter(pl.col("value").is_in(figures))}
    return {"rates": site_rates(corpus, found, by=by)} | means if corpus.labels else means
