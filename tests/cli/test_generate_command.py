from __future__ import annotations

import json
from pathlib import Path

import polars as pl

import skipviz
from tests.cli.runner import run, sentence

PROMPT = "The quick brown"


def test_the_text_is_printed_and_its_trace_kept(tmp_path: Path, model: Path) -> None:
    target, table = tmp_path / "made.parquet", tmp_path / "made.csv"
    outcome = run(
        "generate", model, "--prompt", PROMPT, "--max-new-tokens", "8", "--temperature", "0.9",
        "--seed", "3", "-o", target, "--csv", table,
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.output
    wanted = skipviz.generate(
        skipviz.load(model), PROMPT, max_new_tokens=8, temperature=0.9, seed=3
    )
    loaded = skipviz.Trace.load(target)
    assert loaded.tokens.equals(wanted.trace.tokens)
    assert loaded.decisions.equals(wanted.trace.decisions)
    assert pl.read_csv(table).height == wanted.trace.decisions.height
    assert outcome.stdout.strip() != ""
    assert "The model wrote 8 tokens" in " ".join(outcome.stderr.split())


def test_a_file_is_gone_on_from_and_a_stop_string_ends_it(tmp_path: Path, model: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text(PROMPT)
    made = skipviz.generate(skipviz.load(model), PROMPT, max_new_tokens=8)
    # Not half a character, which no stop string is.
    stop = next(character for character in made.text[1:] if character.isascii())
    outcome = run(
        "generate", model, "--file", file, "--max-new-tokens", "8", "--runtime", "gathered",
        "--stop", stop,
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.output
    assert "ended at a stop string" in " ".join(outcome.stderr.split())


def test_slips_are_sentences(tmp_path: Path, model: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": each}) + "\n" for each in "ab"))
    for options, said in (
        ([], "as --prompt TEXT or as --file FILE"),
        (["--prompt", "a", "--file", rows], "as --prompt TEXT or as --file FILE"),
        (["--file", rows], "has 2 texts"),
        (["--prompt", " "], "empty or blank"),
        (["--prompt", "a", "--max-new-tokens", "0"], "max_new_tokens=0 writes nothing"),
    ):
        assert said in sentence(run("generate", model, *options))
