"""The page of corpora: many texts that were traced before, and questions to all of them."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import streamlit as st

from skipviz.app.components.heading import heading
from skipviz.app.components.plain_text import plain
from skipviz.app.views.corpus_page.comparing import compare_with
from skipviz.app.views.corpus_page.over_all import over_all
from skipviz.app.views.corpus_page.searching import search_corpus
from skipviz.corpus.reading.root import CORPORA, corpus_root, datasets_in, open_below
from skipviz.errors import SkipvizError

SAMPLE_CORPORA = Path(str(files("skipviz.app"))) / "samples" / "corpora"
"""Written by ``python docs/make_sample_corpora.py``."""


def page() -> None:
    """Let a dataset be chosen, and show what was asked of it."""
    heading(
        "What do many texts show?", "layers used", "site", "surprisal", "95% interval", "q-value",
        of_text=False,
    )  # fmt: skip
    try:
        root = corpus_root()
        names = [] if root is None else datasets_in(root)
        if root is None or not names:
            st.info(
                "No corpus is served, so here are two samples: terms of the glossary and parts of "
                "Python files, traced at two budgets. For texts of your own, run "
                "`skipviz corpus run texts/ --out corpora/mine`, and start skipviz with the "
                f"environment variable {CORPORA} set to the folder `corpora`."
            )
            root, names = SAMPLE_CORPORA, datasets_in(SAMPLE_CORPORA)
        name = st.selectbox("Corpus", names, key="corpus")
        _asked(root, names, str(name))
    except SkipvizError as error:
        st.error(plain(str(error)))


def _asked(root: Path, names: list[str], name: str) -> None:
    corpus = open_below(root, name)
    run = corpus.run.row(0, named=True)
    budget = "" if run["budget"] is None else f", budget {run['budget']:g}"
    st.caption(
        plain(
            f"{corpus.document_count:,} documents, {len(corpus):,} tokens, {corpus.sites.height} "
            f"sites. Model {run['model']}, policy {run['policy']}{budget}."
        )
        + ("" if corpus.complete else " The run has not ended: parts that are complete are shown.")
    )
    chosen = st.segmented_control(
        "Look at", ["Over all", "Search", "Compare"], default="Over all", required=True,
        key="corpus_view", label_visibility="collapsed",
    )  # fmt: skip
    if chosen == "Compare":
        compare_with(root, [each for each in names if each != name], name)
    elif chosen == "Search":
        search_corpus(root, name, corpus)
    else:
        over_all(root, name, corpus)
