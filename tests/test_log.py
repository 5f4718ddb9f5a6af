from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from skipviz.errors import InputError
from skipviz.log import LOG, start_log


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    logger = logging.getLogger("skipviz")
    before, level = list(logger.handlers), logger.level
    yield logger
    for handler in set(logger.handlers) - set(before):
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(level)


def test_a_named_file_gets_the_traceback(
    tmp_path: Path, log: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOG, str(tmp_path / "run.log"))
    start_log()
    try:
        raise KeyError("lost")
    except KeyError as error:
        log.error("It failed.", exc_info=error)
    written = (tmp_path / "run.log").read_text("utf-8")
    assert "ERROR It failed." in written
    assert "KeyError: 'lost'" in written


def test_without_a_name_nothing_is_written(
    log: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(LOG, raising=False)
    before = list(log.handlers)
    start_log()
    assert log.handlers == before


def test_a_file_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOG, str(tmp_path / "none" / "run.log"))
    with pytest.raises(InputError, match=r"run\.log cannot be written"):
        start_log()
