from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import skipviz
from skipviz.app.views.corpus_page.comparing import OTHERS
from skipviz.app.views.corpus_page.searching import _value
from skipviz.corpus.questions.assignment import store_clusters
from skipviz.corpus.reading.root import CORPORA
from tests.corpus.asked import made_parts, two_clusters, write_corpus

HOSTILE = "<b>x</b> **y** $z$"
COLUMNS = [{"domain": HOSTILE if n % 2 else "press", "n": n} for n in range(12)]


def corpora() -> None:
    from skipviz.app.views.corpus_page import page

    page()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CORPORA, str(tmp_path))
    return tmp_path


def test_a_corpus_is_asked_and_a_line_opens_its_document(root: Path) -> None:
    corpus = write_corpus(root / "mine", made_parts(), columns=COLUMNS)
    write_corpus(root / "other", made_parts(2))
    page = AppTest.from_function(corpora).run(timeout=60)
    assert not page.exception
    assert "12 documents, 360 tokens, 4 sites" in page.caption[0].value
    assert "ran most often" in page.markdown[-1].value
    page.selectbox("corpus_by").select("domain").run(timeout=60)
    assert not page.exception
    assert "<b>" not in "".join(each.value for each in page.markdown)
    page.session_state["corpus_view"] = "Search"
    page.run(timeout=60)
    page.text_input("corpus_wanted").input("bold")
    page.selectbox("corpus_column").select("n")
    page.text_input("corpus_value").input("5")
    page.button[0].click().run(timeout=60)
    assert not page.exception
    assert page.caption[-1].value == "2 places found; 1 of 1 documents searched to the end"
    assert page.dataframe[0].value["hit"].tolist() == ["bold", "bold"]
    page.session_state["corpus_view"] = "Compare"
    page.run(timeout=60)
    page.button("corpus_compare").click().run(timeout=60)
    assert not page.exception
    assert "over 8 documents" in page.markdown[-1].value
    page.session_state["corpus_how"] = OTHERS
    page.button("corpus_compare").click().run(timeout=60)
    assert not page.exception
    said = [each.value for each in page.caption]
    assert any("12 of 12 documents drawn at random (seed 0)" in each for each in said)
    assert len(corpus) == 360


def test_tokens_are_found_by_their_cluster(root: Path) -> None:
    corpus = write_corpus(root / "mine", made_parts())
    page = AppTest.from_function(corpora)
    page.session_state["corpus_view"] = "Search"
    page.run(timeout=60)
    assert "skipviz corpus cluster FOLDER" in page.caption[-1].value
    store_clusters(corpus, two_clusters())
    page.run(timeout=60)
    assert page.selectbox("corpus_cluster").options == ["any", "0", "1"]
    page.text_input("corpus_wanted").input("bold")
    page.selectbox("corpus_cluster").select(1)
    page.button[0].click().run(timeout=60)
    assert not page.exception
    expected = skipviz.concordance(corpus, "bold", cluster=1).lines
    assert page.dataframe[0].value["cluster"].tolist() == [1] * expected.height
    assert expected.height > 0
    (root / "mine" / "clusters" / "clusters.parquet").write_bytes(b"damaged")
    page.run(timeout=60)  # which is as if there were none
    assert any("skipviz corpus cluster FOLDER" in each.value for each in page.caption)
    assert page.dataframe[0].value["left"].tolist()


def test_where_no_corpus_is_served_samples_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CORPORA, raising=False)
    page = AppTest.from_function(corpora).run(timeout=60)
    assert "No corpus is served" in page.info[0].value
    assert page.selectbox("corpus").options == ["sample-0.65", "sample-0.8"]
    assert any("policy learned, budget 0.65." in each.value for each in page.caption)
    page.selectbox("corpus_by").select("domain").run(timeout=60)
    assert set(page.dataframe[0].value["domain"]) == {"Python", "glossary"}
    page.button_group(key="corpus_view").set_value("Compare").run(timeout=60)
    page.button("corpus_compare").click().run(timeout=60)
    assert not page.exception
    assert not page.error
    assert page.dataframe[0].value["documents"].min() == 44


def test_what_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CORPORA, str(tmp_path / "none"))
    page = AppTest.from_function(corpora).run(timeout=60)
    assert "is not a folder" in page.error[0].value
    assert str(tmp_path) not in page.error[0].value


def opened() -> None:
    import streamlit as st

    import skipviz
    from skipviz.app.components.run_button import traced_now
    from skipviz.app.views.corpus_page.searching import _open

    _open(skipviz.open_corpus(st.session_state["folder"]), 5, "mine", token=2)
    known = traced_now()
    st.session_state["shown"] = None if known is None else known[1]


def test_a_document_is_what_the_other_pages_show(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "mine", made_parts())
    page = AppTest.from_function(opened)
    page.session_state["folder"] = str(tmp_path / "mine")
    page.run(timeout=60)
    assert not page.exception
    assert page.session_state["shown"].tokens.equals(corpus.trace(5).tokens)


def test_what_is_written_becomes_a_value_of_the_column(tmp_path: Path) -> None:
    given = [{"n": 1, "x": 0.5, "ok": True, "name": "a"}] + [{}] * 3
    corpus = write_corpus(tmp_path / "mine", made_parts(1), columns=given)
    found = [
        _value(corpus, name, text)
        for name, text in (
            ("n", "7"),
            ("x", "0.25"),
            ("ok", "true"),
            ("name", "b"),
            ("n", ""),
            ("n", "z"),
        )
    ]
    assert found == [7, 0.25, True, "b", None, "z"]
    assert skipviz.concordance(corpus, "bold", where={"n": "z"}).of == 0
