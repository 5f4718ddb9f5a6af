"""How many layers tasks take, beside what was published of another model."""

from __future__ import annotations

import numpy as np
import polars as pl

from skipviz.analysis.statistics.intervals import clustered_margin, interval_ends

TASKS = ("copy", "summarise", "continue", "repeat", "add", "multiply")
"""Copy, summarise and continue a text; repeat, add and multiply numbers."""

PUBLISHED_LAYERS = 32
PUBLISHED = {"copy": 22, "summarise": 29, "continue": 30, "repeat": 20, "add": 22, "multiply": 24}
"""Layers, of 32, that FlexiDepth on Llama-3-8B-Instruct uses a generated token, about (Luo, Wang
and Yan, "Adaptive layer-skipping in pre-trained LLMs", 2025)."""
PUBLISHED_NAME = "FlexiDepth on Llama-3-8B, published (32 layers)"


def layers_by_task(table: pl.DataFrame, *, layers: int) -> pl.DataFrame:
    """Return how many layers each task takes.

    Parameters
    ----------
    table
        One row a prompt: ``task``; ``layers``, the mean of layers used by the tokens from which
        the answer is predicted; ``nll``, their mean loss in nats, such as
        ``skipviz.experiments.hidden_states.task_prompts.task_depths`` gives.
    layers
        Layers of the model.

    Returns
    -------
    pl.DataFrame
        One row a task, in the order of ``TASKS``: ``task``, ``prompts``; ``layers`` a token, the
        mean over prompts, with its 95% interval ``low`` to ``high``, by
        Student's t over prompts and null for one; ``share`` of all
        layers, 0 to 1; ``nll``; and ``published``, layers, with ``published_share`` of 32.
    """
    rows = []
    for task in TASKS:
        part = table.filter(task=task)
        if part.is_empty():
            continue
        used = part["layers"].to_numpy().astype(np.float64)
        mean, margin = float(used.mean()), clustered_margin(used, np.arange(len(used)))
        low, high = interval_ends(mean, margin, (0.0, float(layers)))
        rows.append(
            {
                "task": task,
                "prompts": part.height,
                "layers": mean,
                "low": float(low) if margin == margin else None,
                "high": float(high) if margin == margin else None,
                "share": mean / layers,
                "nll": part["nll"].cast(pl.Float64).mean(),
                "published": PUBLISHED[task],
                "published_share": PUBLISHED[task] / PUBLISHED_LAYERS,
            }
        )
    schema: dict[str, type[pl.DataType]] = {"task": pl.String, "prompts": pl.Int64}
    schema |= dict.fromkeys(("layers", "low", "high", "share", "nll"), pl.Float64)
    return pl.DataFrame(
        rows, schema=schema | {"published": pl.Int64, "published_share": pl.Float64}
    )


def pairs_in_published_order(table: pl.DataFrame) -> tuple[int, int]:
    """Return how many pairs of tasks differ in the same direction as published, and how many do.

    Parameters
    ----------
    table
        What ``layers_by_task`` returned. Pairs that were published as equal are not counted.
    """
    same = pairs = 0
    rows = table.select("layers", "published").rows()
    for place, (mine, theirs) in enumerate(rows):
        for other, their_other in rows[:place]:
            if theirs != their_other:
                pairs += 1
                same += (mine - other) * (theirs - their_other) > 0
    return same, pairs
