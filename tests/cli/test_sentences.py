from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import skipviz
from skipviz.cli.sentences import BUG, FAILED, STOPPED
from skipviz.log import LOG
from tests.cli.runner import run, sentence

MAIN = "import sys; from skipviz.cli import main; main()"


@pytest.fixture(autouse=True)
def log(tmp_path: Path) -> Iterator[Path]:
    """A file for the log, which the logger lets go afterwards."""
    logger = logging.getLogger("skipviz")
    before, level = list(logger.handlers), logger.level
    yield tmp_path / "run.log"
    for handler in set(logger.handlers) - set(before):
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(level)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a command meet an error."""

    def fail_with(error: BaseException) -> tuple[str, ...]:
        def fail(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(skipviz, "load", fail)
        return "models", "info", "smollm2-gated"

    return fail_with


@pytest.mark.parametrize("error", [skipviz.InputError, skipviz.ModelError, skipviz.TrainingError])
def test_what_a_user_can_mend_is_one_sentence(failing: Any, error: type[Exception]) -> None:
    outcome = run(*failing(error("Budget 2 is none; give one from 0 to 1.")))
    assert outcome.stderr == "Budget 2 is none; give one from 0 to 1.\n"
    assert (outcome.stdout, outcome.exit_code) == ("", FAILED)


@pytest.mark.parametrize("error", [ValueError("a\nb"), KeyError("site"), FileNotFoundError(2, "x")])
def test_anything_else_is_said_to_be_a_fault_of_skipviz(failing: Any, error: Exception) -> None:
    outcome = run(*failing(error))
    assert outcome.exit_code == BUG == 70
    assert "This is a fault in skipviz, not in your text or settings" in outcome.stderr
    assert type(error).__name__ in outcome.stderr
    assert "--traceback" in outcome.stderr
    assert LOG in outcome.stderr
    assert "Traceback" not in outcome.output
    assert outcome.stdout == ""


@pytest.mark.parametrize(
    ("error", "status"), [(skipviz.InputError("no"), FAILED), (KeyError("no"), BUG)]
)
def test_a_traceback_is_shown_where_asked_for(failing: Any, error: Exception, status: int) -> None:
    outcome = run("--traceback", *failing(error))
    assert outcome.exit_code == status
    assert "Traceback (most recent call last)" in outcome.stderr
    assert "in fail" in outcome.stderr


@pytest.mark.parametrize(
    ("error", "status"), [(skipviz.InputError("no"), FAILED), (KeyError("no"), BUG)]
)
def test_a_log_gets_the_traceback(
    failing: Any, log: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    monkeypatch.setenv(LOG, str(log))
    outcome = run(*failing(error))
    assert outcome.exit_code == status
    assert "Traceback" not in outcome.output
    written = log.read_text("utf-8")
    assert f"skipviz {skipviz.__version__}" in written
    assert "Traceback (most recent call last)" in written
    assert "in fail" in written


def test_a_log_that_cannot_be_written_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOG, str(tmp_path / "none" / "run.log"))
    assert "run.log cannot be written" in sentence(run("models", "list"))


def test_an_interruption_has_its_own_status(failing: Any) -> None:
    outcome = run(*failing(KeyboardInterrupt()))
    assert outcome.exit_code == STOPPED == 130
    assert outcome.stderr.startswith("Stopped. Run the command again")


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOSPC, errno.EROFS])
def test_what_the_file_system_refuses_is_no_fault_of_skipviz(failing: Any, code: int) -> None:
    reason = os.strerror(code)
    said = sentence(run(*failing(OSError(code, reason, "/models/gates"))))
    assert said.startswith(f"/models/gates cannot be read or written ({reason}).")
    assert "free space" in said


def test_files_that_cannot_be_read_are_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "is a folder" in sentence(run("trace", tmp_path))
    assert "none.txt does not exist" in sentence(run("trace", tmp_path / "none.txt"))
    (tmp_path / "mine.txt").write_text("text")

    # Not by chmod: the tests may run as root, who may read everything.
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert "mine.txt may not be read by this user" in sentence(run("trace", tmp_path / "mine.txt"))


def test_targets_that_cannot_be_written_are_sentences(
    tmp_path: Path, text: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for option in ("--csv", "--parquet"):
        assert "is a folder" in sentence(run("trace", text, option, tmp_path))
        assert "There is no folder" in sentence(run("trace", text, option, tmp_path / "no" / "it"))
    assert "is a file, not a folder" in sentence(run("train", "--out", text))
    assert "is a file, not a folder" in sentence(run("train", "--out", text / "deeper"))
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)
    target = tmp_path / "out.csv"
    assert "out.csv cannot be written" in sentence(run("trace", text, "--csv", target))
    assert "cannot be written" in sentence(run("train", "--out", tmp_path / "run"))
    real = os.access
    monkeypatch.setattr(
        os,
        "access",
        lambda path, mode: mode != os.W_OK or (Path(path) != model and real(path, mode)),
    )
    for command in (["calibrate", model], ["guard", model, "--limit", "1"]):
        assert "skipviz.json cannot be written by this user" in sentence(run(*command))


def test_a_full_disk_is_a_sentence_and_leaves_no_half(
    tmp_path: Path, text: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _: bytes) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    target = tmp_path / "out.parquet"
    outcome = run("trace", text, "--model", model, "--parquet", target)
    assert outcome.exit_code == FAILED
    assert "out.parquet cannot be written (No space left on device)" in outcome.stderr
    assert not list(tmp_path.glob("out.parquet*"))


@pytest.mark.parametrize("option", ["--csv", "--parquet"])
def test_a_full_device_is_a_sentence(text: Path, model: Path, option: str) -> None:
    outcome = run("trace", text, "--model", model, option, "/dev/full")
    assert outcome.exit_code == FAILED, outcome.output
    assert "/dev/full cannot be written" in outcome.stderr


def test_a_device_that_is_not_there_is_named(
    tmp_path: Path, tiny_model_folder: Path, held_out: object
) -> None:
    outcome = run(
        "train", "--backbone", tiny_model_folder, "--out", tmp_path / "run", "--device", "cuda:9"
    )
    assert outcome.exit_code == FAILED, outcome.output
    assert "device='cuda:9' is not on this machine; there are cpu" in outcome.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirected", "status", "said"),
    [
        (">&-", FAILED, "Standard output is closed"),
        (">/dev/full", FAILED, "Standard output cannot be written (No space left on device)"),
        ("| true", FAILED, ""),
    ],
)
def test_standard_output_that_takes_nothing(
    text: Path, model: Path, redirected: str, status: int, said: str
) -> None:
    command = f'set -o pipefail; "$0" -c "$1" trace "$2" --model "$3" --csv - {redirected}'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, MAIN, str(text), str(model)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "fault" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.slow
def test_a_terminal_without_a_letter_has_it_spelt_out(model: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "generate", str(model), "--prompt", "é 🦊", "--max-new-tokens",
         "8"],
        capture_output=True, check=False, env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert rb"\ufffd" in done.stdout  # bytes that are no character alone


@pytest.mark.slow
def test_standard_input_that_is_closed() -> None:
    done = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" trace - <&-', sys.executable, MAIN],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == FAILED, done.stderr
    assert "Standard input is closed" in done.stderr
