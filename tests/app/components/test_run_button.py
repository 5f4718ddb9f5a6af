from __future__ import annotations

import logging

import pytest

from skipviz.app.components.run_button import explain, problem_words
from skipviz.app.jobs import Job
from skipviz.errors import InputError, MissingExtraError, ModelError, SkipvizError, Stopped
from skipviz.log import LOG


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What the page shows: the kind of box, and its text."""
    boxes: list[tuple[str, str]] = []
    for kind in ("info", "error"):
        monkeypatch.setattr(f"streamlit.{kind}", lambda text, kind=kind: boxes.append((kind, text)))
    return boxes


@pytest.mark.parametrize(
    ("error", "kind"),
    [(Stopped(), "info"), (MissingExtraError("Install umap."), "info"),
     (InputError("No *text*."), "error"), (ModelError("No model."), "error")],
)  # fmt: skip
def test_what_a_user_can_change_is_a_sentence(
    error: SkipvizError, kind: str, shown: list[tuple[str, str]]
) -> None:
    explain(error)
    assert len(shown) == 1
    assert shown[0][0] == kind
    assert "fault in skipviz" not in shown[0][1]


@pytest.mark.parametrize("error", [ValueError("a *b*"), KeyError("x"), ImportError("torch")])
def test_anything_else_is_a_fault_of_skipviz(
    error: Exception, shown: list[tuple[str, str]]
) -> None:
    explain(error)
    ((kind, text),) = shown
    assert kind == "error"
    assert "This is a fault in skipviz, not in your text or settings" in text
    assert type(error).__name__ in text
    assert "*b*" not in text.replace(r"\*", "")


def test_a_fault_says_where_its_details_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LOG, raising=False)
    assert "environment variable SKIPVIZ" in problem_words(KeyError("x"))
    monkeypatch.setenv(LOG, "run.log")
    assert "The log, run.log, has the details." in problem_words(KeyError("x"))


def test_faults_are_logged_with_their_traceback_and_user_errors_are_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def work(error: Exception) -> None:
        raise error

    with caplog.at_level(logging.ERROR, logger="skipviz"):
        Job().done_by(lambda job: work(InputError("No text.")))
        assert not caplog.records
        Job().done_by(lambda job: work(KeyError("x")))
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is KeyError
