"""Runs the command line and reads what it says."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner, Result

from skipviz.cli import app
from tests import tiny

TEXTS = (tiny.TEXT, '=1+1 "quoted"\nand a\ttab', "A third, shorter text.")


def run(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


def sentence(outcome: Result) -> str:
    """What went to standard error, having made sure that it is no traceback."""
    assert outcome.exit_code == 1, outcome.output
    assert "Traceback" not in outcome.output
    assert outcome.stdout == ""
    return " ".join(outcome.stderr.split())
