"""What hidden states tell about classes of tokens, layer by layer, by linear probes.

A probe that is right may have learned the words rather than read the state. So each has a control
task, in which every word has a random label; what the probe gains over it is its selectivity
(Hewitt and Liang, "Designing and interpreting probes with control tasks", 2019).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from skipviz.analysis.statistics.blocks import BLOCK_TOKENS, FOLDS, dependent_groups
from skipviz.analysis.statistics.intervals import clustered_error
from skipviz.arrays import Bools, Ints
from skipviz.errors import InputError
from skipviz.experiments.hidden_states.states import States
from skipviz.progress import Progress, check_stop, no_progress
from skipviz.traces import Trace

LEAST_TOKENS = FOLDS * BLOCK_TOKENS
"""Tokens of a single text that make as many blocks as there are folds."""
PENALTY = 0.1
"""Ridge penalty per token, of standardised states: about the best between 1e-3 and 1."""
LEAST_IN_PART = 30
"""Tokens below which a part is not reported."""
DRAWS = 200
"""Control tasks drawn, of which one is taken."""
NONE = "none"
"""The class of tokens that have none."""


def probes(
    trace: Trace,
    states: States,
    classes: pl.DataFrame,
    *,
    seed: int = 0,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> pl.DataFrame:
    """Return how well linear probes read classes of tokens from the hidden states.

    The probes are ridge regressions on indicators of the classes. They are fitted on all tokens
    and judged on those of documents that they have not seen; on blocks of ``BLOCK_TOKENS`` tokens
    that they have not seen if there are fewer than ``FOLDS`` documents, each within its document.

    Parameters
    ----------
    trace
        The trace whose states were recorded.
    states
        What ``record_states`` returned.
    classes
        One row per token of the trace: every column of strings is a feature, null a class of its
        own, such as ``token_classes`` returns.
    seed
        Seed of the control tasks.
    progress
        Called with the share of the work done, 0 to 1.
    stop
        Set it from another thread to stop.

    Returns
    -------
    pl.DataFrame
        One row per feature, layer and part: ``feature``; ``layer``, -1 for the embeddings, else the
        layer behind which the state is taken; ``part``, ``all`` tokens, or those that ``executed``
        or ``skipped`` the last gated unit of that layer, of which there must be ``LEAST_IN_PART``;
        ``tokens``; ``accuracy``, 0 to 1, of the same probe on each part; ``majority``, that of
        always saying the part's largest class; ``control``, the accuracy on the control task;
        ``selectivity``, accuracy less control, and ``error``, its standard error over ``groups``
        of tokens, documents or blocks, NaN for a single one.

    Raises
    ------
    ValueError
        If there are too few tokens to leave any out, or no class is asked for.
    Stopped
        If ``stop`` was set.
    """
    groups = _groups(trace, states.token)
    if len(np.unique(groups)) < FOLDS:
        raise InputError(
            f"{len(states.token)} tokens make {len(np.unique(groups))} blocks of {BLOCK_TOKENS}, "
            "too few to learn from some and judge by others; trace a text of "
            f"{LEAST_TOKENS} tokens."
        )
    if classes.height != len(trace):
        raise InputError(
            f"There are classes of {classes.height} tokens and {len(trace)} tokens in the trace; "
            "give a row for each token."
        )
    tasks = _tasks(trace, states.token, classes, seed=seed)
    rows = []
    for layer, values in enumerate(states.values, start=-1):
        check_stop(stop)
        right = _right(values, tasks, groups)
        for part, inside in _parts(trace, states.token, layer).items():
            if inside.sum() >= LEAST_IN_PART:
                rows += [
                    {"feature": name, "layer": layer, "part": part}
                    | _judged(task, *right[name], inside, groups)
                    for name, task in tasks.items()
                ]
        progress((layer + 2) / len(states.values))
    return pl.DataFrame(rows).sort("feature", "layer", "part", maintain_order=True)


@dataclass(frozen=True, eq=False)
class _Task:
    """Labels of one feature and of its control task, one per token, counted from 0."""

    label: Ints
    control: Ints


def _tasks(trace: Trace, token: Ints, classes: pl.DataFrame, *, seed: int) -> dict[str, _Task]:
    generator = np.random.default_rng(seed)
    _, word = np.unique(trace.tokens["token_id"].to_numpy()[token], return_inverse=True)
    tasks = {}
    for name, dtype in classes.schema.items():
        if dtype != pl.String:
            continue
        values = classes[name].fill_null(NONE).to_numpy()[token]
        _, label = np.unique(values, return_inverse=True)
        if label.max() > 0:
            tasks[name] = _Task(label, _control(label, word, generator))
    if not tasks:
        raise InputError(
            f"None of the columns {', '.join(classes.columns)} has two classes to tell apart; give "
            "what token_classes returned."
        )
    return tasks


def _control(label: Ints, word: Ints, generator: np.random.Generator) -> Ints:
    """Return labels of the word alone, each about as often as in the feature.

    A few words make up much of a text, so one draw may be far more lopsided than the feature, and
    easier to guess for that alone; of several, the one whose frequencies are nearest is taken.
    """
    wanted = np.bincount(label)
    best, least = label, np.inf
    for _ in range(DRAWS):
        drawn = generator.choice(label, word.max() + 1)[word]
        distance = np.abs(np.bincount(drawn, minlength=len(wanted)) - wanted).sum()
        if distance < least:
            best, least = drawn, distance
    return best


def _groups(trace: Trace, token: Ints) -> Ints:
    documents = trace.tokens["sequence"].to_numpy()
    many = len(np.unique(documents[token])) >= FOLDS
    return documents[token] if many else dependent_groups(documents)[token]


def _parts(trace: Trace, token: Ints, layer: int) -> dict[str, Bools]:
    parts = {"all": np.ones(len(token), dtype=np.bool_)}
    sites = trace.sites.filter(layer=layer)["site"]
    if len(sites):
        ran = trace.matrix("exec_count")[token, sites[-1]] > 0
        parts |= {"executed": ran, "skipped": ~ran}
    return parts


def _right(
    values: npt.NDArray[np.float32], tasks: dict[str, _Task], groups: Ints
) -> dict[str, tuple[Bools, Bools]]:
    """Return of which tokens the probes of each task are right, and those of its control.

    One regression answers for all tasks: its costly part is the same for each.
    """
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = [each for task in tasks.values() for each in (task.label, task.control)]
    wanted = [np.eye(each.max() + 1, dtype=np.float32)[each] for each in labels]
    probe = make_pipeline(StandardScaler(), Ridge(alpha=PENALTY * len(values)))
    said = cross_val_predict(probe, values, np.hstack(wanted), groups=groups, cv=GroupKFold(FOLDS))
    ends = np.cumsum([each.shape[1] for each in wanted])[:-1]
    right = [
        part.argmax(axis=1) == label
        for part, label in zip(np.split(said, ends, axis=1), labels, strict=True)
    ]
    return dict(zip(tasks, zip(right[::2], right[1::2], strict=True), strict=True))


def _judged(
    task: _Task, right: Bools, control: Bools, inside: Bools, groups: Ints
) -> dict[str, float | int]:
    gain = right[inside].astype(np.float64) - control[inside]
    return {
        "tokens": int(inside.sum()),
        "accuracy": float(right[inside].mean()),
        "majority": float(np.bincount(task.label[inside]).max() / inside.sum()),
        "control": float(control[inside].mean()),
        "selectivity": float(gain.mean()),
        "error": clustered_error(gain, groups[inside]),
        "groups": len(np.unique(groups[inside])),
    }
