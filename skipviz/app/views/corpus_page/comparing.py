"""Two corpora beside each other: the same documents under two policies, or two kinds of text."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from skipviz.analysis.robustness.drift import drift
from skipviz.app.components.downloads import csv_buttons
from skipviz.app.components.notebook_cell import notebook_cells
from skipviz.app.components.plain_text import plain
from skipviz.app.jobs import SEED
from skipviz.app.views.corpus_page.over_all import CORPUS_FOLDER, INTERVAL_COLUMNS
from skipviz.corpus.questions.comparison import compare_corpora
from skipviz.corpus.reading.dataset import CorpusDataset
from skipviz.corpus.reading.root import open_below
from skipviz.plots.robustness import drift_figure
from skipviz.readings.corpora.answers import corpora_compared_reading
from skipviz.readings.robustness import drift_words

SAME, OTHERS = "The same documents", "Drift between other texts"
DRIFT_TOKENS = 5000
"""Of each sample whose scores are compared."""
SAMPLE_PERMUTATIONS = 999


def compare_with(root: Path, others: list[str], name: str) -> None:
    """Let another corpus be chosen, and show how it differs."""
    if not others:
        st.info("There is no other corpus to compare this one with.")
        return
    other = st.selectbox("Compare with", others, key="corpus_other")
    how = st.segmented_control("How", [SAME, OTHERS], default=SAME, required=True, key="corpus_how")
    if not st.button("Compare", type="primary", key="corpus_compare"):
        return
    both = open_below(root, name), open_below(root, str(other))
    with st.spinner("Comparing"):
        if how == SAME:
            _same_documents(*both)
        else:
            _drift(*both, names=[name, str(other)])


def _same_documents(first: CorpusDataset, second: CorpusDataset) -> None:
    found = compare_corpora(first, second)
    st.markdown(plain(corpora_compared_reading(found.means)))
    st.dataframe(found.means, column_config=INTERVAL_COLUMNS, hide_index=True)
    csv_buttons({"Means": ("compared", found.means), "Documents": ("documents", found.documents)})


def _drift(before: CorpusDataset, after: CorpusDataset, *, names: list[str]) -> None:
    samples = [corpus.sample(tokens=DRIFT_TOKENS, seed=SEED) for corpus in (before, after)]
    table = drift(samples[0].trace, samples[1].trace, permutations=SAMPLE_PERMUTATIONS, seed=SEED)
    st.caption(plain(f"Before: {samples[0].sentence}. After: {samples[1].sentence}."))
    st.markdown(plain(drift_words(table)))
    if before.labels:
        st.plotly_chart(drift_figure(samples[0].trace, table), key="corpus_drift")
        drawn = f".sample(tokens={DRIFT_TOKENS}, seed={SEED}).trace"
        notebook_cells(
            "skipviz.plots.drift_figure(before, table)",
            imports=["from skipviz.analysis.robustness.drift import drift"],
            first=[
                f"before = skipviz.open_corpus({names[0]!r}){drawn}",
                f"after = skipviz.open_corpus({names[1]!r}){drawn}",
                f"table = drift(before, after, permutations={SAMPLE_PERMUTATIONS}, seed={SEED})",
            ],
            files=CORPUS_FOLDER,
        )
    csv_buttons({"Drift": ("drift", table)})
