"""Runs the command line and reads what it says."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner, Result

from skipviz.cli import app
from tests import tiny

TEXTS = (tiny.TEXT, '=1+1 "quoted"\nand a\ttab', "A third, shorter text.")


def run(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    """Run a command on a terminal so wide that no table cuts off what it holds."""
    words = [str(argument) for argument in arguments]
    return CliRunner(env={"COLUMNS": "1000"}).invoke(app, words, input=stdin)


def sentence(outcome: Result) -> str:
    """What went to standard error, having made sure that it is no traceback."""
    assert outcome.exit_code == 1, outcome.output
    assert "Traceback" not in outcome.output
    assert outcome.stdout == ""
    return " ".join(outcome.stderr.split())
