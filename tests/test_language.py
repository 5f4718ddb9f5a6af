"""What a user reads is plain English: phrases that the project gave up do not come back."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHON = ("skipviz",)
DATA = (
    "skipviz/analysis/tokens/function_words.py",
    "skipviz/experiments/hidden_states/task_prompts.py",
    "skipviz/experiments/robustness/paraphrases.py",
)
"""Words and texts that models are shown, which keep their own language."""
SCRIPTS = ("skipviz/app/components/assets",)
PROSE = ("README.md", "docs")
"""Where texts are: string literals of Python, docstrings too, JavaScript and HTML, Markdown."""

UNITS = r"nats?|layers?|tokens?|points?|MB|GB|KB|bytes?|FLOPs?|GFLOPs?|regret"
UNITS += r"|loss|price|forwards?|rows?|lines?|numbers?|windows|arrays?"
THINGS = r"token|word|site|layer|text|second|document|FLOP|GFLOP|line|side|file|row|forward|pair"
THINGS += r"|step|policy|place|gate|window|event|sequence|column"
BANNED = {
    r"\bheld against\b": "compared with",
    r"\b(?:owed|owes) to\b": "attributed to, driven by",
    r"\bnobody\b": "no one, none",
    r"\bsomebody\b": "someone, a user",
    r"\bthousand million\b": "billion",
    r"\bsurely (?:more|less|higher|lower)\b": "more (95% CI excludes 0)",
    r"\b(?:is|are) none of\b": "is not one of",
    r"\b(?:is|are) no (?:rounding|number|probability|pair|chance)\b": "is not",
    rf"\b(?:{UNITS}) an? (?:{THINGS})\b": "per",
    r"\bgive or take\b": "±",
    r"\bcannot be told from\b": "is not distinguishable from",
    r"\bgroups? apart\b": "separate groups",
    r"\bbeyond chance\b.*\bso many\b": "after correction for so many tests",
    r"\bcomes? (?:again|out otherwise)\b": "is reproduced, differs",
    r"\blook(?:ed)? into\b": "examine",
    r"\blikeliest\b": "most likely",
    r"\bsay(?:s)? next to nothing\b": "says almost nothing",
    r"\bby lot\b": "at random",
    r"\bby heart\b": "memorises",
    r"\bwithout a word\b": "silently, or what is not reported",
    r"\bthe gates? sa(?:id|ys?)\b": "the gate score is",
}
"""Regular expressions, and what to write instead."""


def _literals(path: Path) -> Iterator[tuple[int, str]]:
    """Give the strings of a Python file, docstrings too; f-strings with braces for values."""
    tree = ast.parse(path.read_text("utf-8"))
    parts = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts.update(node.values)
            yield (
                node.lineno,
                "".join(
                    str(value.value) if isinstance(value, ast.Constant) else "{}"
                    for value in node.values
                ),
            )
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in parts:
            yield node.lineno, node.value


def _texts() -> Iterator[tuple[str, str]]:
    """Give every text, and where it is."""
    for name in PYTHON:
        path = ROOT / name
        for file in [path] if path.suffix else sorted(path.rglob("*.py")):
            if str(file.relative_to(ROOT)) in DATA:
                continue
            for line, text in _literals(file):
                yield f"{file.relative_to(ROOT)}:{line}", text
    for name in (*SCRIPTS, *PROSE):
        path = ROOT / name
        for file in [path] if path.suffix else sorted(path.rglob("*")):
            if file.suffix in (".js", ".html", ".md"):
                for line, text in enumerate(file.read_text("utf-8").splitlines(), start=1):
                    yield f"{file.relative_to(ROOT)}:{line}", text


def _found(text: str) -> list[str]:
    return [
        f"{match.group()!r}: write {instead!r}"
        for pattern, instead in BANNED.items()
        if (match := re.search(pattern, text, re.IGNORECASE))
    ]


def test_phrases_given_up_do_not_come_back() -> None:
    found = [f"{place}: {each}" for place, text in _texts() for each in _found(text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    ["It is held against chance.", "0.3 nats a token", "at most 20 MB a file", "x is none of 1, 2",
     "a thousand million FLOPs", "Nobody knows", "regret a token", "What is it owed to?"],
)  # fmt: skip
def test_phrases_are_seen(text: str) -> None:
    assert _found(text)


@pytest.mark.parametrize(
    "text", ["0.3 nats per token", "The loss a model has", "a token", "Choose a token"]
)
def test_plain_sentences_pass(text: str) -> None:
    assert not _found(text)


def test_every_part_of_an_f_string_is_read(tmp_path: Path) -> None:
    file = tmp_path / "some.py"
    file.write_text('"""Held against."""\nX = f"{1:.2f} nats " "a token"\n', encoding="utf-8")
    found = [text for _, text in _literals(file) if _found(text)]
    assert sorted(found) == ["Held against.", "{} nats a token"]
