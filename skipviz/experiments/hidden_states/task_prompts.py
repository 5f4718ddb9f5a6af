"""How many layers a model uses for tasks that differ in what they ask of it.

Every prompt comes with a right answer, and the layers are those of the tokens from which that
answer is predicted, whether or not the model would have given it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import polars as pl

from skipviz.analysis.layers.task_depth import TASKS
from skipviz.models import SkipModel
from skipviz.progress import Progress, no_progress
from skipviz.recording.tracing import trace
from skipviz.text.documents import Document
from skipviz.traces import Trace

PASSAGES = (
    (
        "The harbour froze in the second week of January, and for nine days no ship could leave. "
        "The crews walked about the town and spent what they had saved.",
        "When the ice broke at last, half of them had found work on land and did not come back.",
        "A frozen harbour kept the ships for nine days, and half of the sailors left the sea.",
    ),
    (
        "Bees find their way home by the position of the sun. When clouds cover it, they read the "
        "pattern of polarised light in a patch of blue sky.",
        "On days without any blue at all they stay close to the hive and wait.",
        "Bees steer by the sun or by polarised light, and stay home when they can see neither.",
    ),
    (
        "My grandmother kept a ledger of every letter she wrote. It began in the year she married "
        "and filled eleven notebooks by the time she died.",
        "Nobody had answered the last forty letters, and she had noted that too.",
        "A woman noted all her letters in eleven notebooks, the unanswered ones among them.",
    ),
    (
        "The new bridge was to have four lanes and a path for bicycles. Costs rose twice before "
        "the first pillar stood, and the council asked for savings.",
        "In the end the path was built and one of the lanes was not.",
        "Rising costs took a lane from the new bridge, but not the path for bicycles.",
    ),
    (
        "Salt lowers the temperature at which water freezes. That is why it is spread on roads in "
        "winter, and why the sea freezes later than lakes do.",
        "Below about minus twenty degrees, however, salt on a road does nothing.",
        "Salt keeps water from freezing, on roads and in the sea, unless it is very cold.",
    ),
    (
        "The orchestra had rehearsed the symphony for a month when its conductor fell ill. A young "
        "assistant took over on the morning of the concert.",
        "She changed nothing, and the critics wrote that everything sounded new.",
        "An assistant who replaced a sick conductor changed nothing and was praised as new.",
    ),
    (
        "A compiler reads a program and writes another one that does the same. The first compilers "
        "were written by hand, in the language of the machine.",
        "Later ones were written in their own language and compiled themselves.",
        "Compilers translate programs; the first were written by hand, later ones in themselves.",
    ),
    (
        "Tea came to the island with traders who stayed for one winter. They planted a few bushes "
        "behind the church, mostly to have something to do.",
        "Three hundred years later the whole south slope is green with them.",
        "Bushes that traders once planted to pass a winter have made the island grow tea.",
    ),
)
"""A text, how it goes on, and what it says in one sentence; written for this purpose."""

EACH = len(PASSAGES)
"""Prompts per task."""
NUMBERS = {"repeat": 8, "add": 5, "multiply": 4}
"""How many numbers a prompt has."""


@dataclass(frozen=True)
class Prompt:
    """A task with its answer.

    Attributes
    ----------
    task
        One of ``skipviz.analysis.layers.task_depth.TASKS``.
    prompt, answer
        Two parts of one text.
    """

    task: str
    prompt: str
    answer: str


def task_prompts(*, seed: int = 0) -> list[Prompt]:
    """Return ``EACH`` prompts of each task.

    Parameters
    ----------
    seed
        Of the numbers; the texts are always the same.
    """
    generator = np.random.default_rng(seed)
    made = [prompt for passage in PASSAGES for prompt in _of_text(*passage)]
    for _ in range(EACH):
        made += [
            _of_numbers(
                task, generator.integers(2 if task == "multiply" else 10, top, size).tolist()
            )
            for (task, size), top in zip(NUMBERS.items(), (100, 100, 13), strict=True)
        ]
    return sorted(made, key=lambda prompt: TASKS.index(prompt.task))


@dataclass(frozen=True, eq=False)
class TaskDepths:
    """What a model did with the prompts and their answers.

    Attributes
    ----------
    prompts
        One row per prompt: ``task``, ``prompt``, ``answer``; ``tokens`` of the answer; ``layers``,
        the mean of layers used by the tokens from which they are predicted, the last of the prompt
        first; ``nll``, their mean loss in nats.
    trace
        Their trace, a sequence each.
    """

    prompts: pl.DataFrame
    trace: Trace


def task_depths(
    model: SkipModel,
    *,
    seed: int = 0,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> TaskDepths:
    """Run the prompts with their answers, and return how many layers each answer took.

    Parameters
    ----------
    model
        Any model.
    seed
        Of the prompts.
    progress
        Called with the share of the work done, 0 to 1.
    stop
        Set it from another thread to stop.

    Raises
    ------
    Stopped
        If ``stop`` was set.
    """
    prompts = task_prompts(seed=seed)
    documents = [Document(each.task, each.prompt + each.answer) for each in prompts]
    traced = trace(model, documents, progress=progress, stop=stop)
    begins = pl.Series([len(each.prompt) for each in prompts], dtype=pl.Int64)
    asked = traced.tokens.with_columns(
        next_start=pl.col("char_start").shift(-1).over("sequence"),
        begins=begins.gather(traced.tokens["sequence"]),
    ).filter(pl.col("next_start") >= pl.col("begins"))
    found = asked.group_by("sequence", maintain_order=True).agg(
        tokens=pl.len().cast(pl.Int64),
        layers=pl.col("layers_used").cast(pl.Float64).mean(),
        nll=pl.col("nll").cast(pl.Float64).mean(),
    )
    names = pl.DataFrame(
        [(each.task, each.prompt, each.answer) for each in prompts],
        schema=["task", "prompt", "answer"],
        orient="row",
    )
    return TaskDepths(pl.concat([names, found.drop("sequence")], how="horizontal"), traced)


def _of_text(text: str, rest: str, summary: str) -> list[Prompt]:
    return [
        Prompt("copy", f"Text: {text}\nThe same text again:", f" {text}"),
        Prompt("summarise", f"Text: {text} {rest}\nThe text in one sentence:", f" {summary}"),
        Prompt("continue", f"Text: {text}", f" {rest}"),
    ]


def _of_numbers(task: str, numbers: list[int]) -> Prompt:
    listed = ", ".join(map(str, numbers))
    if task == "repeat":
        return Prompt(task, f"Numbers: {listed}\nThe same numbers again:", f" {listed}")
    sign, name = ("+", "Sum") if task == "add" else ("x", "Product")
    steps, total = [], numbers[0]
    for number in numbers[1:]:
        result = total + number if task == "add" else total * number
        steps.append(f"{total} {sign} {number} = {result}")
        total = result
    return Prompt(task, f"Numbers: {listed}\n{name}, step by step:", f" {', '.join(steps)}")
