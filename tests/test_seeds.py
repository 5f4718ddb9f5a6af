"""A seed that a library would not take gets a sentence, wherever it is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import skipviz
from skipviz.errors import InputError
from skipviz.progress import check_seed
from tests import tiny
from tests.cli.runner import run

USES: dict[str, Callable[[Any, Any, int], object]] = {
    "trace": lambda model, _, seed: skipviz.trace(model, tiny.TEXT, seed=seed),
    "generate": lambda model, _, seed: skipviz.generate(model, tiny.TEXT, seed=seed),
    "cluster": lambda _, trace, seed: skipviz.cluster(trace, clusters=2, seed=seed),
    "correlate": lambda _, trace, seed: skipviz.correlate(
        trace, trace.decisions, "score", seed=seed
    ),
    "attribute": lambda model, trace, seed: skipviz.attribute(
        model, trace, skipviz.Target(token=3), seed=seed
    ),
    "evaluate": lambda _, __, seed: skipviz.evaluate(["nothing"], ["a text"], seed=seed),
}  # fmt: skip


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_named(use: str, seed: int, gated: skipviz.SkipModel) -> None:
    trace = skipviz.trace(gated, tiny.TEXT)
    with pytest.raises(InputError, match=f"seed={seed} must be a whole number from 0"):
        USES[use](gated, trace, seed)


def test_seeds_are_whole_numbers() -> None:
    assert check_seed(2**32 - 1) == 2**32 - 1
    with pytest.raises(InputError, match="seed=True must be a whole number"):
        check_seed(True)


@pytest.mark.parametrize("command", [("evaluate",), ("train", "--out", "x")])
def test_commands_name_the_range(command: tuple[str, ...]) -> None:
    for seed in ("-1", str(2**32)):
        outcome = run(*command, "--seed", seed)
        assert outcome.exit_code == 2
        assert "Invalid value for '--seed'" in outcome.output


def test_a_name_that_none_can_have_is_refused(tmp_path: Path) -> None:
    for name in ("x" * 300, "a\0b", f"{tmp_path}/{'y' * 256}/z"):
        with pytest.raises(skipviz.ModelError, match="is no name of a model or a folder"):
            skipviz.load(name)
