"""At which layer the prediction of each token is settled, and how far each layer turns the state.

The prediction after a layer is read with the model's own last norm and head, the logit lens
(nostalgebraist, "interpreting GPT: the logit lens", 2020).
"""

from __future__ import annotations

import itertools
import threading

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from skipviz.experiments.states import States
from skipviz.models import SkipModel
from skipviz.recording.statistics import HEAD_ROWS
from skipviz.recording.tracing import Progress, Stopped
from skipviz.trace import Trace

TURNING = {
    "layer": pl.Int64,
    "influence": pl.Float64,
    "executed": pl.Float64,
    "executed_tokens": pl.Int64,
    "skipped": pl.Float64,
    "skipped_tokens": pl.Int64,
}

Ints = npt.NDArray[np.int64]


def settling(
    model: SkipModel,
    trace: Trace,
    states: States,
    *,
    progress: Progress = lambda _: None,
    stop: threading.Event | None = None,
) -> pl.DataFrame:
    """Return the layer behind which each token's likeliest next token stays what it ends as.

    Parameters
    ----------
    model
        The model whose states were recorded.
    trace, states
        The trace, and what ``record_states`` returned.
    progress
        Called with the share of the work done, 0 to 1.
    stop
        Set it from another thread to stop.

    Returns
    -------
    pl.DataFrame
        One row a token of ``states``: ``token``; ``settled``, the lowest layer behind which the
        likeliest next token is that of the end, and so behind every layer above it, -1 if the
        embedding says so already; ``exit_depth``, the deepest gated layer that ran for the token,
        where it stops choosing to compute, or null; ``layers_after``, layers that ran for it above
        the settled one, attention and MLP half each, layers without gates counted as run.

    Raises
    ------
    Stopped
        If ``stop`` was set.
    """
    layers = len(states.values) - 1
    final = _likeliest(model, states.values[-1])
    settled = np.full(len(states.token), layers - 1)
    # From the top downwards, and only for tokens that have not differed yet.
    open_rows = np.arange(len(states.token))
    for behind in range(layers - 1, -1, -1):
        if stop is not None and stop.is_set():
            raise Stopped("The run was stopped.")
        same = _likeliest(model, states.values[behind][open_rows]) == final[open_rows]
        open_rows = open_rows[same]
        settled[open_rows] = behind - 1
        progress(1 - behind / layers)
        if not len(open_rows):
            break
    progress(1.0)
    return pl.DataFrame(
        {
            "token": states.token,
            "settled": settled,
            "exit_depth": trace.tokens["exit_depth"].gather(states.token),
            "layers_after": _layers_above(trace, states.token, settled),
        }
    )


def exit_heads(model: SkipModel, trace: Trace, states: States) -> pl.DataFrame:
    """Return how often each exit foretells what the whole depth says, and the logit lens there.

    Parameters
    ----------
    model
        A model with early exits whose states were recorded.
    trace, states
        The trace, and what ``record_states`` returned.

    Returns
    -------
    pl.DataFrame
        One row an exit: ``layer`` before it; ``tokens`` that never left, of which alone it is
        known what the whole depth says; ``head`` and ``lens``, the share of them whose likeliest
        next token at the exit, through its translator and by the logit lens, is that of the end;
        null without such tokens.

    Raises
    ------
    ValueError
        If the model has no exits.
    """
    exits = getattr(model.model, "exits", None)
    if model.family.name != "exit" or exits is None:
        raise ValueError(
            f"{model.name} is of the family {model.family.name} and has no exits to read; give a "
            "model with early exits."
        )
    stayed = (trace.matrix("exec_count")[states.token] > 0).all(axis=1)
    final = _likeliest(model, states.values[-1][stayed])
    rows = []
    for layer, translator in zip(exits.config.exits, exits.translators, strict=True):
        state = torch.from_numpy(states.values[layer + 1][stayed])
        state = state.to(model.device, model.model.dtype)
        with torch.inference_mode():
            said = {"head": _read(model, translator(state)), "lens": _read(model, state)}
        shares = {
            name: float((likeliest == final).mean()) if len(final) else None
            for name, likeliest in said.items()
        }
        rows.append({"layer": layer, "tokens": int(stayed.sum()), **shares})
    schema = {"layer": pl.Int64, "tokens": pl.Int64, "head": pl.Float64, "lens": pl.Float64}
    return pl.DataFrame(rows, schema=schema)


def turning(trace: Trace, states: States) -> pl.DataFrame:
    """Return how far each layer turns the hidden state: one minus the cosine of before and after.

    Block Influence (Men et al., "ShortGPT: Layers in large language models are more redundant than
    you expect", 2024), as the gates decided.

    Parameters
    ----------
    trace, states
        The trace, and what ``record_states`` returned.

    Returns
    -------
    pl.DataFrame
        One row a layer: ``layer``; ``influence``, 0 to 2, the mean over tokens; ``executed`` and
        ``skipped``, the mean over tokens for which its last gated unit did and did not run, null
        where there are none, and ``executed_tokens`` and ``skipped_tokens``, how many; all null
        for a layer without gates.
    """
    rows = []
    for layer, (before, after) in enumerate(itertools.pairwise(states.values)):
        norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
        turned = 1 - (before * after).sum(axis=1) / np.maximum(norms, 1e-12)
        row: dict[str, int | float | None] = {"layer": layer, "influence": float(turned.mean())}
        sites = trace.sites.filter(layer=layer)["site"]
        if len(sites):
            ran = trace.matrix("exec_count")[states.token, sites[-1]] > 0
            for name, inside in (("executed", ran), ("skipped", ~ran)):
                row[name] = float(turned[inside].mean()) if inside.any() else None
                row[f"{name}_tokens"] = int(inside.sum())
        rows.append(row)
    return pl.DataFrame(rows, schema=TURNING)


def _likeliest(model: SkipModel, states: npt.NDArray[np.float32]) -> Ints:
    return _read(model, torch.from_numpy(states).to(model.device, model.model.dtype))


@torch.inference_mode()
def _read(model: SkipModel, states: Tensor) -> Ints:
    head, norm = model.model.get_output_embeddings(), model.model.model.norm
    # Not called: a hook on the norm may be for what leaves the model.
    likeliest = [head(norm.forward(rows)).argmax(dim=-1) for rows in states.split(HEAD_ROWS)]
    found: Ints = torch.cat(likeliest).cpu().numpy() if likeliest else np.zeros(0, dtype=np.int64)
    return found


def _layers_above(trace: Trace, token: Ints, settled: Ints) -> npt.NDArray[np.float64]:
    layer, unit = trace.sites["layer"].to_numpy(), trace.sites["unit"].to_numpy()
    weight = np.where(unit == "block", 1.0, 0.5)
    # A layer is one whole, less what of it has a gate; what has one counts as often as it ran.
    free = np.ones(trace.run["layers"].item())
    first = trace.sites["visit"].to_numpy() == 0
    np.subtract.at(free, layer[first], weight[first])
    ran = (trace.matrix("exec_count")[token] * weight).astype(np.float64)
    above = layer[None] > settled[:, None]
    total = np.append(np.cumsum(free[::-1])[::-1], 0.0)
    found: npt.NDArray[np.float64] = (ran * above).sum(axis=1) + total[settled + 1]
    return found
