"""Words and patterns in a corpus: each place in its context, whose document the pages open."""

from __future__ import annotations

import hashlib
from pathlib import Path

import polars as pl
import streamlit as st

from skipviz.analysis.tokens.classes import KINDS
from skipviz.app.components.downloads import csv_buttons
from skipviz.app.components.plain_text import plain
from skipviz.app.components.run_button import jobs
from skipviz.app.frame.opening import show_request
from skipviz.app.frame.stored import request_of
from skipviz.app.served import check_token_count
from skipviz.app.state import on_canvas
from skipviz.app.views.corpus_page.over_all import version_of
from skipviz.corpus.questions.word_search import Concordance, Search, concordance
from skipviz.corpus.reading.dataset import CorpusDataset
from skipviz.corpus.reading.root import open_below
from skipviz.corpus.reading.stored_clusters import undamaged_clusters
from skipviz.readings.tokens.word_lists import KINDS_ARE_ENGLISH

ANY = "any"
SEARCHES: dict[str, Search] = {"Word": "word", "Token": "token", "Pattern": "pattern"}
SHOWN_LINES = 500
FOUND_SECONDS = 300
"""That places are kept, so that a click on one does not search again."""


def search_corpus(root: Path, name: str, corpus: CorpusDataset) -> None:
    """Let a word, a token or a pattern be looked for, and show each place with its context."""
    clusters = undamaged_clusters(corpus)
    with st.form("corpus_search", border=False):
        wanted = st.text_input("Look for", key="corpus_wanted")
        columns = st.columns(4 if clusters is None else 5)
        kind_of_search = columns[0].selectbox("As", list(SEARCHES), key="corpus_search_kind")
        kind = columns[1].selectbox(
            "Kind of token", [ANY, *KINDS], key="corpus_kind", help=KINDS_ARE_ENGLISH
        )
        column = columns[2].selectbox("Column", [ANY, *corpus.columns], key="corpus_column")
        value = columns[3].text_input("has the value", key="corpus_value")
        cluster: int | str = ANY
        if clusters is not None:
            cluster = columns[4].selectbox(
                "Cluster", [ANY, *range(clusters.count)], key="corpus_cluster"
            )
        ignore_case = st.checkbox("Capitals as small letters", key="corpus_case")
        st.form_submit_button("Search", type="primary")
    if clusters is None:
        st.caption(
            "To find tokens by the layers they used, have every token's cluster stored: "
            "`skipviz corpus cluster FOLDER`."
        )
    if not wanted.strip():
        return
    where = None if column == ANY else {str(column): _value(corpus, str(column), value)}
    found = _found(
        str(root), name, version_of(corpus), wanted, SEARCHES[str(kind_of_search)],
        ignore_case=ignore_case, where=where, kind=None if kind == ANY else str(kind),
        cluster=None if cluster == ANY else int(cluster), stored=repr(clusters),
    )  # fmt: skip
    _lines(corpus, found, name)


@st.cache_data(max_entries=32, ttl=FOUND_SECONDS, show_spinner="Searching")
def _found(
    root: str, name: str, version: str, wanted: str, search: Search, *, ignore_case: bool,
    where: dict[str, object] | None, kind: str | None, cluster: int | None, stored: str,
) -> Concordance:  # fmt: skip
    """Return the places; ``version`` and ``stored`` change with the dataset."""
    return concordance(
        open_below(Path(root), name), wanted, search=search, ignore_case=ignore_case, where=where,
        kind=kind, cluster=cluster, lines=SHOWN_LINES,
    )  # fmt: skip


def _lines(corpus: CorpusDataset, found: Concordance, name: str) -> None:
    st.caption(plain(found.sentence))
    if found.lines.is_empty():
        return
    names = ["left", "hit", "right", "layers_used", "surprisal", "kind", "cluster", "source"]
    if found.lines["cluster"].null_count() == found.lines.height:
        names.remove("cluster")
    shown = found.lines.select(names)
    chosen = st.dataframe(
        shown, hide_index=True, key="corpus_lines", on_select="rerun", selection_mode="single-row"
    )
    rows = chosen["selection"]["rows"]
    if rows and rows[0] < found.lines.height:
        line = found.lines.row(rows[0], named=True)
        if st.button("Open its document on the canvas", key="corpus_open"):
            _open(corpus, line["document"], name, token=line["position"])
            st.rerun()
    csv_buttons({"Lines": ("concordance", found.lines.drop("executed"))})


def _open(corpus: CorpusDataset, document: int, name: str, *, token: int) -> None:
    """Have the canvas and all pages show a document, with a token selected."""
    about = corpus.documents().filter(pl.col("document") == document).select("tokens")
    check_token_count(corpus.collect(about).item())
    traced = corpus.trace(document)
    stored = hashlib.sha256(f"{corpus.where}\n{name}\n{document}\n{version_of(corpus)}".encode())
    request = request_of(traced, stored=stored.hexdigest())
    jobs().keep(request, traced)
    show_request(request)
    on_canvas(request).ask(token)


def _value(corpus: CorpusDataset, column: str, written: str) -> object:
    """Return what was written as a value of a column, as the column has it."""
    kind = corpus.documents().collect_schema()[column]
    if not written:
        return None
    if kind == pl.Boolean:
        return written.strip().lower() in ("true", "1", "yes")
    try:
        if kind.is_integer():
            return int(written)
        return float(written) if kind.is_float() else written
    except ValueError:
        return written
