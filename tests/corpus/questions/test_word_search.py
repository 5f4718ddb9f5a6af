from __future__ import annotations

import time
from pathlib import Path

import polars as pl
import pytest

import skipviz
from skipviz.corpus.folder import DatasetFolder
from skipviz.corpus.questions.assignment import assigned_part, store_clusters
from skipviz.corpus.reading.dataset import CorpusDataset
from skipviz.corpus.reading.stored_clusters import stored_clusters
from tests.corpus.asked import made_parts, two_clusters, write_corpus
from tests.synthetic import make_trace, say

TEXTS = (
    ["The", " fox", " saw", " the", "o", "logy", ".", " The", " end"],
    ["A", " fox", "y", " fox", ",", " 42", " foxes", "\n", "the"],
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> CorpusDataset:
    parts = [say(make_trace(seed=n, tokens=9, gated=(1, 2)), each) for n, each in enumerate(TEXTS)]
    folder = tmp_path_factory.mktemp("c") / "corpus"
    return write_corpus(folder, parts, columns=[{"domain": "law"}, {"domain": None}])


def found(corpus: CorpusDataset, wanted: str, **options: object) -> list[tuple[object, ...]]:
    lines = skipviz.concordance(corpus, wanted, **options).lines  # type: ignore[arg-type]
    return lines.select("document", "position", "tokens", "left", "hit", "right").rows()


def test_a_word_is_found_with_its_path_and_the_text_around_it(corpus: CorpusDataset) -> None:
    shown = found(corpus, "fox", context=6)
    assert shown == [(0, 1, 1, "The ", "fox", " saw t"), (1, 3, 1, " foxy ", "fox", ", 42 f")]
    line = skipviz.concordance(corpus, "fox").lines.row(1, named=True)
    token = corpus.trace(1).tokens.row(3, named=True)
    ran = corpus.trace(1).matrix("exec_count")[3] > 0
    assert line["layers_used"] == token["layers_used"]
    assert line["surprisal"] == pytest.approx(token["surprisal"])
    assert line["executed"] == ran.tolist()
    assert line["kind"] == "content words"


def test_a_word_of_several_tokens_has_all_of_them(corpus: CorpusDataset) -> None:
    assert found(corpus, "theology")[0][:3] == (0, 3, 3)
    assert found(corpus, "foxy")[0][:3] == (1, 1, 2)
    line = skipviz.concordance(corpus, "theology").lines.row(0, named=True)
    used = corpus.trace(0).tokens["layers_used"][3:6]
    assert line["layers_used"] == pytest.approx(used.mean())


def test_tokens_patterns_and_capitals(corpus: CorpusDataset) -> None:
    assert [row[:3] for row in found(corpus, "fox", search="token")] == [
        (0, 1, 1), (1, 1, 1), (1, 3, 1)
    ]  # fmt: skip
    assert [row[4] for row in found(corpus, "The", ignore_case=True)] == ["The", "The", "the"]
    assert [row[4] for row in found(corpus, r"fox\w+", search="pattern")] == ["foxy", "foxes"]
    over = found(corpus, r"\d+.*\s+the", search="pattern")
    assert over == [(1, 5, 4, "A foxy fox, ", "42 foxes\nthe", "")]
    assert found(corpus, "z*", search="pattern") == []


def test_filters_of_documents_kinds_and_clusters(corpus: CorpusDataset) -> None:
    assert [row[0] for row in found(corpus, "fox", where={"domain": "law"})] == [0]
    assert [row[0] for row in found(corpus, "fox", where={"domain": None})] == [1]
    searched = skipviz.concordance(corpus, "fox", where={"domain": "law"})
    assert (searched.documents, searched.of) == (1, 1)
    assert found(corpus, r"\S+", search="pattern", kind="digits")[0][4] == "42"
    clusters = two_clusters()
    each = {
        n: found(corpus, r"\w+", search="pattern", clusters=clusters, cluster=n) for n in (0, 1)
    }
    both = skipviz.concordance(corpus, r"\w+", search="pattern", clusters=clusters).lines
    assert len(each[0]) + len(each[1]) == both.height
    assert both["cluster"].null_count() == 0
    assert {row[:2] for row in each[1]} == set(
        both.filter(cluster=1).select("document", "position").rows()
    )


def test_stored_clusters_are_those_that_would_be_assigned(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c", made_parts())
    clusters = two_clusters()
    assert stored_clusters(corpus) is None
    given = skipviz.concordance(corpus, "bold", clusters=clusters).lines
    assert skipviz.concordance(corpus, "bold").lines["cluster"].null_count() == given.height
    store_clusters(corpus, clusters)
    stored = stored_clusters(corpus)
    assert stored is not None
    assert stored.profiles.equals(clusters.profiles)
    assert skipviz.concordance(corpus, "bold").lines.equals(given)
    one = skipviz.concordance(corpus, "bold", cluster=1).lines
    assert one.equals(given.filter(cluster=1))
    assert 0 < one.height < given.height
    with pytest.raises(skipviz.InputError, match="cluster=2 is not one of the 2 clusters"):
        skipviz.concordance(corpus, "bold", cluster=2)
    assert corpus.damaged() == {}  # what lies beside is no part of the dataset
    next((tmp_path / "c" / "clusters").glob("0*")).unlink()  # as when it grew since
    assert stored_clusters(corpus) is None


def test_clusters_of_a_run_that_has_not_ended_are_not_stored(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c", made_parts(1), finished=False)
    with pytest.raises(skipviz.InputError, match="has not ended"):
        store_clusters(corpus, two_clusters())


def test_clusters_that_are_given_are_assigned_by_document_and_parts_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = made_parts()
    corpus = write_corpus(tmp_path / "c", parts)
    read: list[str] = []
    assigned: list[int] = []
    rows, assign = CorpusDataset.part_rows, skipviz.Clusters.assign

    def counted(self: CorpusDataset, name: str) -> pl.LazyFrame:
        read.append(name)
        return rows(self, name)

    def slowly(self: skipviz.Clusters, traces: skipviz.Trace) -> pl.DataFrame:
        assigned.append(len(traces))
        time.sleep(pause)
        return assign(self, traces)

    monkeypatch.setattr(CorpusDataset, "part_rows", counted)
    monkeypatch.setattr(skipviz.Clusters, "assign", slowly)
    pause = 0.0
    found = skipviz.concordance(corpus, "bold", clusters=two_clusters())
    assert found.lines["document"].n_unique() == len(assigned) > len(corpus.parts)
    assert read == [name for name in corpus.parts for _ in ("to search it", "for clusters")]
    longest = [int(part.tokens["sequence"].value_counts()["count"].max()) for part in parts]
    assert max(assigned) <= max(longest)
    known = pl.concat(assigned_part(corpus, two_clusters(), name) for name in corpus.parts)
    places = found.lines.select("document", "position")
    assert places.join(known, on=["document", "position"])["cluster"].equals(
        found.lines["cluster"], check_names=True
    )
    read.clear()
    skipviz.concordance(corpus, "no such word", clusters=two_clusters())
    assert read == list(corpus.parts)
    assigned.clear()
    pause = 0.3
    ended = skipviz.concordance(corpus, "bold", clusters=two_clusters(), seconds=0.2)
    assert ended.ended == "seconds"
    assert (len(assigned), ended.documents) == (1, 1)


@pytest.mark.parametrize("gone", ["clusters.parquet", "0*"])
@pytest.mark.parametrize("how", ["damaged", "other", "lost"])
def test_stored_clusters_that_are_damaged_do_not_stand_in_the_way_of_a_search(
    gone: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_corpus(tmp_path / "c", made_parts(1))
    plain = skipviz.concordance(corpus, "bold").lines
    store_clusters(corpus, two_clusters())
    monkeypatch.setattr(DatasetFolder, "names", lambda *_: {  # as they were found a moment ago
        "clusters.parquet", *(f"{name}.parquet" for name in corpus.parts)
    })  # fmt: skip
    file = next((tmp_path / "c" / "clusters").glob(gone))
    if how == "damaged":
        file.write_bytes(file.read_bytes()[:100])
    elif how == "other":
        pl.DataFrame({"a": [1]}).write_parquet(file)
    else:
        file.unlink()
    assert skipviz.concordance(corpus, "bold").lines.equals(plain)
    words = "0 clusters" if (gone, how) == ("clusters.parquet", "lost") else "cannot be read"
    with pytest.raises(skipviz.InputError, match=words):
        skipviz.concordance(corpus, "bold", cluster=1)


def test_it_ends_at_so_many_lines(corpus: CorpusDataset) -> None:
    some = skipviz.concordance(corpus, r"\w+", search="pattern", lines=3)
    assert (some.lines.height, some.ended) == (3, "lines")
    assert (
        "3 places found; 0 of 2 documents searched to the end; the search ended with as many"
        in some.sentence
    )
    every = skipviz.concordance(corpus, "fox", lines=2)
    assert (every.lines.height, every.ended, every.documents) == (2, None, 2)


def test_a_pattern_that_takes_for_ever_is_stopped(tmp_path: Path) -> None:
    text = ["a" * 60, "!"]
    corpus = write_corpus(tmp_path / "c", [say(make_trace(tokens=2, gated=(1,)), text)])
    stopped = skipviz.concordance(corpus, r"(a|a|aa)+$", search="pattern", seconds=0.2)
    assert (stopped.ended, stopped.documents) == ("seconds", 0)
    assert "the time was over" in repr(stopped)


@pytest.mark.parametrize(
    ("wanted", "options", "said"),
    [("(", {"search": "pattern"}, r"'\(' is not a regular expression \(missing \)"),
     (" ", {}, "Nothing to look for"), ("x" * 1001, {}, "1,001 characters are more than"),
     ("x", {"where": {"topic": 1}}, "no column 'topic'; there are source, domain"),
     ("x", {"kind": "nouns"}, "kind='nouns' is not one of function words"),
     ("x", {"cluster": 0}, "cluster=0 is not one of the 0 clusters"),
     ("x", {"lines": 0}, "lines=0 must be at least 1"),
     ("x", {"seconds": 0.0}, "seconds=0 must be above 0")],
)  # fmt: skip
def test_what_cannot_be_searched_is_said(
    wanted: str, options: dict[str, object], said: str, corpus: CorpusDataset
) -> None:
    with pytest.raises(skipviz.InputError, match=said):
        skipviz.concordance(corpus, wanted, **options)  # type: ignore[arg-type]


def test_nothing_found_is_an_empty_table(corpus: CorpusDataset) -> None:
    none = skipviz.concordance(corpus, "wolf")
    assert none.lines.is_empty()
    assert none.sentence == "0 places found; 2 of 2 documents searched to the end"
    assert none.lines.schema["executed"] == pl.Array(pl.Float32, 4)


def test_a_pattern_that_takes_too_much_memory_is_said(
    corpus: CorpusDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def places(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("skipviz.corpus.questions.word_search._places", places)
    with pytest.raises(skipviz.InputError, match=r"too much memory in text 0 \(\d+ characters\)"):
        skipviz.concordance(corpus, "(a|a)*b", search="pattern")
