"""Every command, given what is no file or cannot be written: a sentence, and nothing is left."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import Result

import skipviz
import skipviz.training.prepare
from skipviz.cli import app
from skipviz.cli.sentences import FAILED
from tests import tiny
from tests.cli.runner import run
from tests.corpus.asked import made_parts, write_corpus
from tests.synthetic import make_trace

USAGE = 2
MAIN = "import sys; from skipviz.cli import main; main()"


@dataclass(frozen=True, kw_only=True)
class Covered:
    """What a command reads, writes and prints: its parameters by name, as words of a command line.

    ``MODEL``, ``DENSE``, ``TEXT``, ``ROWS``, ``RECORDING``, ``TRACE`` and ``CORPUS`` stand for good
    files, ``X`` for what is put in a parameter's place.
    """

    reads: dict[str, str]
    writes: dict[str, str]
    others: str
    prints: str = ""


COMMANDS = {
    "trace": Covered(
        reads={
            "files": "trace X --model MODEL",
            "model": "trace TEXT --model X",
            "gates": "trace TEXT --model DENSE --gates X",
        },
        writes={
            "csv": "trace TEXT --model MODEL --csv X",
            "parquet": "trace TEXT --model MODEL --parquet X",
        },
        others="budget policy limit dtype trust_remote_code bos excel",
        prints="trace TEXT --model MODEL --csv -",
    ),
    "generate": Covered(
        reads={
            "model": "generate X --prompt a",
            "file": "generate MODEL --file X",
            "gates": "generate DENSE --prompt a --gates X",
        },
        writes={
            "output": "generate MODEL --prompt a --max-new-tokens 2 --output X",
            "csv": "generate MODEL --prompt a --max-new-tokens 2 --csv X",
        },
        others="prompt max_new_tokens temperature top_p top_k stop_strings seed budget policy "
        "runtime dtype trust_remote_code",
        prints="generate MODEL --prompt a --max-new-tokens 2",
    ),
    "import": Covered(
        reads={"file": "import X --output made.parquet"},
        writes={"output": "import RECORDING --output X"},
        others="layers text used sequence first_layer",
    ),
    "check": Covered(
        reads={
            "subject": "check X",
            "text": "check MODEL --text X",
            "gates": "check DENSE --gates X",
        },
        writes={"json_file": "check MODEL --json X", "html": "check MODEL --html X"},
        others="ignore trust_remote_code",
        prints="check MODEL --ignore SKV013",
    ),
    "inspect": Covered(
        reads={"name": "inspect X", "text": "inspect DENSE --text X"},
        writes={},
        others="trust_remote_code",
    ),
    "evaluate": Covered(
        reads={"models": "evaluate X", "texts": "evaluate MODEL --text X"},
        writes={
            "store": "evaluate MODEL --store X",
            "csv": "evaluate MODEL --csv X",
            "figure": "evaluate MODEL --figure X",
            "card": "evaluate MODEL --card X",
        },
        others="policies budgets limits most seed",
        prints="evaluate MODEL",
    ),
    "bench": Covered(
        reads={"model": "bench X --out made", "text": "bench MODEL --out made --text X"},
        writes={"out": "bench MODEL --length 8 --rounds 1 --decoded 0 --out X"},
        others="batches lengths budgets dtypes threads devices rounds decoded",
    ),
    "corpus run": Covered(
        reads={
            "inputs": "corpus run X --model MODEL --out made",
            "model": "corpus run TEXT --model X --out made",
            "gates": "corpus run TEXT --model DENSE --gates X --out made",
        },
        writes={"out": "corpus run TEXT --model MODEL --out X"},
        others="engine runtime analyses text_column budget policy limit dtype bos device "
        "part_characters workers cpus gpus trust_remote_code",
    ),
    "corpus import": Covered(
        reads={"traces": "corpus import X --out made"},
        writes={"out": "corpus import RECORDING --out X"},
        others="",
    ),
    "corpus show": Covered(
        reads={"folder": "corpus show X"},
        writes={"csv": "corpus show CORPUS --csv X"},
        others="",
        prints="corpus show CORPUS",
    ),
    "corpus rates": Covered(
        reads={"folder": "corpus rates X"},
        writes={"csv": "corpus rates CORPUS --csv X"},
        others="by",
        prints="corpus rates CORPUS",
    ),
    "corpus cluster": Covered(
        reads={"folder": "corpus cluster X"},
        writes={"csv": "corpus cluster CORPUS --csv X"},
        others="clusters tokens seed",
        prints="corpus cluster CORPUS",
    ),
    "corpus compare": Covered(
        reads={"first": "corpus compare X CORPUS", "second": "corpus compare CORPUS X"},
        writes={"csv": "corpus compare CORPUS CORPUS --csv X"},
        others="",
        prints="corpus compare CORPUS CORPUS",
    ),
    "corpus verify": Covered(
        reads={"folder": "corpus verify X"},
        writes={},
        others="",
        prints="corpus verify CORPUS",
    ),
    "calibrate": Covered(
        reads={"folder": "calibrate X", "texts": "calibrate MODEL --budget 0.75 --text X"},
        writes={},
        others="budgets name",
    ),
    "guard": Covered(
        reads={"folder": "guard X --limit 1", "texts": "guard MODEL --limit 1 --text X"},
        writes={},
        others="limits clip",
    ),
    "train": Covered(
        reads={
            "backbone": "train --out made --backbone X --steps 1",
            "like": "train --out made --backbone DENSE --objective random --like X --steps 1",
            "start": "train --out made --backbone DENSE --start X --steps 1 --length 8",
            "windows": "train --out made --backbone DENSE --windows X --steps 1 --length 8",
        },
        writes={"folder": "train --out X --backbone DENSE --steps 1 --length 8"},
        others="objective choose budget further_budgets steps batch length gate_lr adapter_lr "
        "ce_weight price temperature exits descent collapse_after seed device dtype",
    ),
    "report": Covered(
        reads={
            "files": "report X --model MODEL --output made --analyses check",
            "model": "report TEXT --model X --output made",
            "gates": "report TEXT --model DENSE --gates X --output made",
        },
        writes={
            "output": "report TEXT --model MODEL --analyses check --output X",
            "zip_file": "report TEXT --model MODEL --analyses check --output page --zip X",
        },
        others="analyses excel budget policy limit seed trust_remote_code",
    ),
    "bundle": Covered(
        reads={"traces": "bundle X --out made"}, writes={"out": "bundle TRACE --out X"}, others=""
    ),
    "models list": Covered(reads={}, writes={}, others="", prints="models list"),
    "models pull": Covered(reads={"name": "models pull X"}, writes={}, others=""),
    "models info": Covered(
        reads={"name": "models info X"},
        writes={},
        others="trust_remote_code",
        prints="models info MODEL",
    ),
    # What it prints, Streamlit prints.
    "app": Covered(reads={}, writes={}, others="port"),
}


def commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{before}{name} ")
        else:
            yield before + name, command


def test_every_parameter_of_every_command_is_covered() -> None:
    """A new command, or a new option, is put above, or this fails."""
    found = {
        name: {each.name for each in command.params} - {"help"}
        for name, command in commands(typer.main.get_command(app))
    }
    covered = {
        name: {*each.reads, *each.writes, *each.others.split()} for name, each in COMMANDS.items()
    }
    assert covered == found


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


NO_FILES: dict[str, Callable[[Path], Path]] = {
    "zeros": lambda _: Path("/dev/zero"),
    "null": lambda _: Path("/dev/null"),
    "terminal": lambda _: Path("/dev/tty"),
    "pipe": lambda folder: os.mkfifo(folder / "x") or folder / "x",
    "folder": lambda folder: (folder / "x").mkdir() or folder / "x",
    "sparse": lambda folder: sparse(folder / "x.jsonl") or folder / "x.jsonl",
    "bytes": lambda folder: (
        (folder / "x.jsonl").write_bytes(b"\xff\x00\xfe\x9d") and folder / "x.jsonl"
    ),
    "missing": lambda folder: folder / "x" / "y",
    "loop": lambda folder: (folder / "x").symlink_to(folder / "x") or folder / "x",
    "long name": lambda folder: folder / ("x" * 300),
    "surrogate": lambda folder: folder / os.fsdecode(b"x\xff"),
}
"""What is no file to read; those that only a user who is not root may not read are like loops."""

NO_TARGETS: dict[str, Callable[[Path], Path]] = {
    "folder": lambda folder: (folder / "x").mkdir() or folder / "x",
    "missing": lambda folder: folder / "no" / "such" / "x",
    "full": lambda _: Path("/dev/full"),
    "in a file": lambda folder: (folder / "x").write_text("x") and folder / "x" / "y",
    "long name": lambda folder: folder / ("x" * 300),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_out: object) -> Path:
    """The folder where commands are run."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    lines: list[dict[str, Any]] = [
        {
            "kind": "recording",
            "format": 1,
            "model": "m",
            "layers": 1,
            "sites": [{"layer": 0, "unit": "mlp"}],
        },
        {"kind": "tokens", "text": ["a", "b"]},
        {"kind": "gate", "site": 0, "token": 0, "ran": [1, 0]},
        {"kind": "end"},
    ]  # fmt: skip
    path = tmp_path / "recording.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def filled(model: Path, tiny_model_folder: Path, text: Path, recording: Path) -> Any:
    """Puts files into the words of a command line."""
    rows = text.with_name("rows.jsonl")
    rows.write_text("\n".join(json.dumps({"text": tiny.TEXT[n:]}) for n in range(20)))
    saved = text.with_name("trace.parquet")
    make_trace(tokens=6).save(saved)
    corpus = text.with_name("corpus")
    write_corpus(corpus, made_parts(1))
    good = {
        "CORPUS": corpus,
        "MODEL": model, "DENSE": tiny_model_folder, "TEXT": text, "RECORDING": recording,
        "ROWS": rows, "TRACE": saved,
    }  # fmt: skip

    def fill(words: str, x: Path | str = "X") -> list[str]:
        return [str({**good, "X": x}.get(word, word)) for word in words.split()]

    return fill


def is_a_sentence(outcome: Result) -> None:
    assert outcome.exit_code in (FAILED, USAGE), outcome.output
    assert "Traceback" not in outcome.output
    assert "fault in skipviz" not in outcome.output
    assert outcome.stdout == ""
    assert len(outcome.stderr.strip()) > 20


def named(table: str) -> list[Any]:
    return [
        pytest.param(words, id=f"{name} {parameter}")
        for name, each in COMMANDS.items()
        for parameter, words in getattr(each, table).items()
    ]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.parametrize("words", named("reads"))
def test_what_is_no_file_is_refused(words: str, filled: Any, here: Path, tmp_path: Path) -> None:
    for kind, make in NO_FILES.items():
        place = tmp_path / kind
        place.mkdir()
        x = make(place)
        is_a_sentence(run(*filled(words, x)))
        left = [each.name for each in here.rglob("*") if each.is_file()]
        assert [name for name in left if name != "windows.safetensors"] == [], kind
        if kind == "sparse":
            x.unlink()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.parametrize("words", named("writes"))
def test_what_cannot_be_written_is_refused(
    words: str, filled: Any, here: Path, tmp_path: Path
) -> None:
    for kind, make in NO_TARGETS.items():
        place = tmp_path / kind
        place.mkdir()
        x = make(place)
        if words.startswith(("train", "corpus", "bundle")) and kind in ("folder", "missing"):
            continue  # it makes its folder, or takes a run up in it
        before = {str(each) for each in place.rglob("*")}
        outcome = run(*filled(words, x))
        printed = outcome.stdout  # a table may have been shown before its file was written
        outcome.stdout_bytes = b""
        is_a_sentence(outcome)
        assert not printed or words.startswith(("evaluate", "generate"))
        assert {str(each) for each in place.rglob("*")} == before, kind


@pytest.fixture
def full_disk() -> Iterator[Callable[[], None]]:
    """Lets files have a few bytes at most, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


KEEPING = [
    "calibrate MODEL", "calibrate MODEL --budget 0.75 --text ROWS --name mine",
    "guard MODEL --limit 1000 --text ROWS",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("words", [*named("writes"), *KEEPING])
def test_a_full_disk_leaves_nothing(
    words: str,
    filled: Any,
    here: Path,
    model: Path,
    full_disk: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        skipviz.training.prepare,
        "training_windows",
        lambda *_, count, length, **__: torch.ones(count, length, dtype=torch.long),
    )
    before = {path: path.read_bytes() for path in model.iterdir()}
    line = filled(words, "made")
    full_disk()
    outcome = run(*line)
    assert outcome.exit_code == FAILED, outcome.output
    assert "File too large" in outcome.stderr
    assert "fault in skipviz" not in outcome.stderr
    assert [each for each in here.rglob("*") if each.is_file()] == []
    after = {path: path.read_bytes() for path in model.iterdir() if path.suffix != ".lock"}
    assert after == before


@pytest.mark.parametrize(
    "words",
    ["trace TEXT --model MODEL --csv TEXT", "trace TEXT --model MODEL --parquet TEXT",
     "import RECORDING --output RECORDING", "evaluate MODEL --text TEXT --csv TEXT",
     "evaluate MODEL --text TEXT --store TEXT", "evaluate MODEL --csv made --figure made",
     "trace TEXT --model MODEL --csv made --parquet made",
     "report TEXT --model MODEL --output TEXT", "report TEXT --output made --zip made"],
)  # fmt: skip
def test_no_file_is_written_over_another(
    words: str, filled: Any, here: Path, text: Path, recording: Path
) -> None:
    before = text.read_bytes(), recording.read_bytes()
    outcome = run(*filled(words))
    is_a_sentence(outcome)
    assert "would be written over" in outcome.stderr
    assert (text.read_bytes(), recording.read_bytes()) == before


def call(line: list[str]) -> int:
    """Run a command in this process, with the standard streams that there are."""
    with pytest.raises(SystemExit) as caught:
        app(line)
    return int(caught.value.code or 0)


PRINTING = [pytest.param(each.prints, id=name) for name, each in COMMANDS.items() if each.prints]


def closed_pipe() -> io.FileIO:
    reading, writing = os.pipe()
    os.close(reading)
    return io.FileIO(writing, "w")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("words", PRINTING)
def test_standard_output_that_takes_nothing(
    words: str, filled: Any, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    line = filled(words)
    for raw, said in (
        (None, "Standard output is closed"),
        (io.FileIO("/dev/full", "w"), "cannot be written (No space left on device)"),
        (closed_pipe(), ""),
    ):
        stdout = raw and io.TextIOWrapper(io.BufferedWriter(raw))
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", stdout)
            assert call(line) == FAILED
        words_said = " ".join(capsys.readouterr().err.split())
        assert said in words_said
        assert "Traceback" not in words_said
        assert "fault" not in words_said
        if stdout is not None:
            with contextlib.suppress(OSError):  # what it still holds goes nowhere
                stdout.close()
            raw.close()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    "words",
    [*(each for each in named("reads") if "folder" not in str(each.id)), *PRINTING],
)
def test_standard_input_that_is_closed(
    words: str, filled: Any, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    line = filled(words, "-")
    monkeypatch.setattr(sys, "stdin", None)
    status = call(line)
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "fault" not in said
    assert status == (FAILED if "-" in line[1:] and "--csv" not in line else 0)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("words", "redirected"),
    [
        *[
            (words, to)
            for words in ("models list", "models --help")
            for to in (">&-", ">/dev/full", "| true")
        ],
        ("trace - --model none", "< /dev/zero"),
    ],
)
def test_streams_of_a_shell(words: str, redirected: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$0" -c "$1" {words} {redirected}', sys.executable, MAIN],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "fault" not in done.stderr
    assert "Exception ignored" not in done.stderr
    if words != "models --help":  # which no one misses where nothing can be shown
        assert done.returncode != 0 or redirected == "| true"


def test_a_text_on_standard_input_has_an_end(
    monkeypatch: pytest.MonkeyPatch, filled: Any, here: Path
) -> None:
    monkeypatch.setattr("skipviz.cli.inputs.MOST_TEXT_BYTES", 1000)
    outcome = run(*filled("trace - --model MODEL"), stdin=tiny.TEXT.encode() * 100)
    is_a_sentence(outcome)
    assert "over the limit of 1,000 bytes" in outcome.stderr


def test_a_line_is_drawn_for_good_files(filled: Any, here: Path) -> None:
    """The command lines above are good but for what is put into them."""
    for words, x in (
        ("trace X --model MODEL", "TEXT"), ("import RECORDING --output X", "made.parquet"),
        ("trace TEXT --model MODEL --parquet X", "trace.parquet"),
    ):  # fmt: skip
        outcome = run(*filled(words, filled(x)[0]))
        assert outcome.exit_code == 0, outcome.output
    assert len(skipviz.Trace.load(here / "made.parquet")) == 2
