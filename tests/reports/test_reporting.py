from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

import skipviz
from skipviz.analysis.findings import Answer, Check, CheckUp, Finding, Outcome
from skipviz.errors import InputError
from skipviz.reports import analyses
from skipviz.reports.analyses import ANALYSES, Asked, made
from skipviz.reports.page import rows_of
from skipviz.tables import csv_bytes
from tests import tiny
from tests.analysis.tokens.test_word_lists import TEXTS, traced
from tests.synthetic import make_trace

HOSTILE = "</script><script>alert(1)</script>**<b>`"


class Parsed(HTMLParser):
    """A page's tags, and its text by the tag it stands in; scripts and styles are not text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open, data))

    @property
    def text(self) -> str:
        return " ".join(data for tag, data in self.texts if tag not in ("script", "style"))


def written(folder: Path, trace: skipviz.Trace, **options: object) -> str:
    skipviz.report(trace, folder / "report.html", **options)  # type: ignore[arg-type]
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_answer_comes_first_and_its_numbers_are_those_of_the_trace(tmp_path: Path) -> None:
    executed = pl.Series([1, 0] * 20).to_numpy()[:, None].repeat(8, axis=1)
    trace = make_trace(tokens=40, exec_count=executed)  # half of the tokens use 6 of 6, half 2
    found = Parsed(written(tmp_path, trace, analyses=["difficulty", "check"]))
    headings = [data for tag, data in found.texts if tag in ("h1", "h2")]
    assert headings[0] == "Which layers did each token use?"
    assert headings[-1] == "Provenance and citation"
    assert {ANALYSES[name].title for name in ("difficulty", "check")} <= set(headings)
    paragraphs = [data for tag, data in found.texts if tag == "p"]
    assert paragraphs[1].startswith("Tokens used 4.0 of 6 layers on average.")
    assert "4.0 of 6" in [data for tag, data in found.texts if tag == "dd"]
    assert "A token used 2 to 6 of 6 layers" in found.text
    assert trace.run["weights_sha256"][0] in found.text
    assert "@software{skipviz," in found.text


def test_texts_and_names_are_never_markup(tmp_path: Path) -> None:
    trace = make_trace(tokens=24, model=HOSTILE)
    tokens = trace.tokens.with_columns(source=pl.lit(HOSTILE))
    hostile = skipviz.Trace(trace.run, trace.sites, tokens, trace.matrices)
    page = written(tmp_path, hostile, analyses=["check"], zip=tmp_path / "<i>.zip")
    found = Parsed(page)
    assert [tag for tag, _ in found.tags if tag in ("b", "i")] == []
    assert HOSTILE in found.text
    assert page.count("<script>alert") == 0
    assert not [attributes for _, attributes in found.tags if "onerror" in attributes]


def test_nothing_is_fetched(tmp_path: Path) -> None:
    found = Parsed(written(tmp_path, make_trace(tokens=12), analyses=[]))
    for tag, attributes in found.tags:
        assert tag not in ("link", "iframe", "object", "base"), tag
        assert not (attributes.get("src") or "").strip(), attributes
        assert re.match(r"#|$", attributes.get("href") or ""), attributes
    policy = next(each for tag, each in found.tags if each.get("http-equiv"))
    assert str(policy["content"]).startswith("default-src 'none'")


def test_every_figure_is_said_and_there(tmp_path: Path) -> None:
    page = written(tmp_path, make_trace(tokens=40), analyses=["difficulty"])
    found = Parsed(page)
    plots = [each for _, each in found.tags if each.get("class") == "plot"]
    assert len(plots) >= 3
    assert all(each["role"] == "img" and len(str(each["aria-label"])) > 20 for each in plots)
    drawn = re.findall(r'<script type="application/json">(.*?)</script>', page, flags=re.DOTALL)
    assert len(drawn) == len(plots)
    titles = [json.loads(each)["layout"]["title"]["text"] for each in drawn]
    assert titles[0] == "Layers used by 40 tokens"


def test_the_same_trace_gives_the_same_files(tmp_path: Path) -> None:
    both = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        page = written(folder, make_trace(tokens=24), analyses=["check"], zip=folder / "t.zip")
        both.append((page, (folder / "t.zip").read_bytes()))
    assert both[0] == both[1]


def test_the_zip_has_every_row_and_opens_in_excel(tmp_path: Path) -> None:
    trace = make_trace(tokens=30)
    written(tmp_path, trace, analyses=["difficulty"], zip=tmp_path / "t.zip", excel=True)
    with zipfile.ZipFile(tmp_path / "t.zip") as archive:
        names = set(archive.namelist())
        data = {name: archive.read(name) for name in names}
    assert {"run.csv", "sites.csv", "tokens.csv", "decisions.csv", "difficulty.csv"} <= names
    assert all(
        data[name].startswith("\ufeff".encode()) for name in names if name != "trace.parquet"
    )
    rows = list(csv.DictReader(io.StringIO(data["tokens.csv"].decode("utf-8-sig"))))
    assert [json.loads(row["text"]) for row in rows] == trace.tokens["text"].to_list()
    assert [json.loads(row["top_ids"]) for row in rows] == trace.tokens["top_ids"].to_list()
    assert data["decisions.csv"].count(b"\n") > 30 * 8
    saved = skipviz.Trace.load(io.BytesIO(data["trace.parquet"]))
    assert saved.decisions.equals(trace.decisions)


def test_excel_has_a_mark_and_the_plain_flavour_none() -> None:
    frame = pl.DataFrame({"text": ["café", "=1+1"]})
    assert csv_bytes(frame, excel=True) == b"\xef\xbb\xbf" + csv_bytes(frame)
    assert csv_bytes(frame).decode() == 'text\n"""café"""\n"""=1+1"""\n'
    buffers = [io.BytesIO(), io.BytesIO()]
    trace = make_trace(tokens=3)
    trace.write_csv(buffers[0])
    trace.write_csv(buffers[1], excel=True)
    assert buffers[1].getvalue() == b"\xef\xbb\xbf" + buffers[0].getvalue()


def test_an_analysis_that_cannot_be_made_says_why() -> None:
    asked = Asked(
        trace=make_trace(tokens=8), model=None, seed=0, progress=lambda _: None, stop=None
    )
    section = made("clusters", asked)
    assert section.answer[0].startswith("This was not made. ")
    assert "8 tokens" in section.answer[0]
    assert not section.drawings


def test_that_english_lists_were_not_used_is_in_the_answers() -> None:
    for text, count in (("German", 1), ("English", 0)):
        trace = traced(TEXTS[text])
        asked = Asked(trace=trace, model=None, seed=0, progress=lambda _: None, stop=None)
        for name in ("difficulty", "specialties"):
            more = made(name, asked).answer[1:]
            assert ["lists are English and were not used" in each for each in more] == [
                True
            ] * count


def test_checks_that_could_not_be_made_are_no_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: tuple[Outcome, ...] = ("passed", "skipped", "not applicable")
    findings = [
        Finding.of(
            Check(code=f"SKV00{place}", title="t", detected="", matters="", advice=""),
            Answer(outcome=outcome, evidence="e"),
        )
        for place, outcome in enumerate(outcomes)
    ]
    found = CheckUp(subject="s", findings=findings)
    monkeypatch.setattr(analyses, "check", lambda *given, **more: found)
    asked = Asked(
        trace=make_trace(tokens=8), model=None, seed=0, progress=lambda _: None, stop=None
    )
    (said,) = made("check", asked).answer
    assert said.startswith("No check found an issue. Of 3 checks of the trace alone")
    assert said.endswith("1 passed. 1 could not be made.")


def test_what_is_no_number_is_unknown() -> None:
    assert "nan" not in rows_of([("figure", float("nan"))], caption="")


def test_a_model_is_audited(tmp_path: Path, gated: skipviz.SkipModel) -> None:
    trace = skipviz.trace(gated, tiny.TEXT)
    found = Parsed(written(tmp_path, trace, model=gated, analyses=["audit"]))
    assert re.search(r"The gates decided rightly in \d+% of", found.text)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"analyses": ["audits"]}, "analyses='audits' is not one of difficulty, "),
        ({"analyses": ["audit"]}, "The analysis 'audit' runs the model"),
        ({"seed": -1}, "seed=-1 must be a whole number"),
    ],
)
def test_what_cannot_be_made_is_said_before(
    tmp_path: Path, options: dict[str, object], said: str
) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        written(tmp_path, make_trace(tokens=8), **options)
    assert list(tmp_path.iterdir()) == []


def test_no_tokens_no_report(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 tokens"):
        written(tmp_path, make_trace(tokens=0))
