"""The convergence layer of each token's prediction, and each layer's influence on the state.

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
from torch import nn

from skipviz.arrays import Floats, Ints
from skipviz.errors import InputError
from skipviz.experiments.hidden_states.states import States
from skipviz.families.causal_lm import logits_of
from skipviz.families.powers import HasExits
from skipviz.models import SkipModel
from skipviz.progress import Progress, check_stop, no_progress
from skipviz.recording.statistics import HEAD_ROWS
from skipviz.traces import Trace

INFLUENCE = {
    "layer": pl.Int64,
    "influence": pl.Float64,
    "executed": pl.Float64,
    "executed_tokens": pl.Int64,
    "skipped": pl.Float64,
    "skipped_tokens": pl.Int64,
}


def convergence_layers(
    model: SkipModel,
    trace: Trace,
    states: States,
    *,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> pl.DataFrame:
    """Return each token's convergence layer: its most likely next token stays the same behind it.

    What it ends as is the model's own prediction, after a token that left early the one through
    its exit's translator. No layer above changes the state of such a token, so it is settled at
    its exit at the latest, or the logit lens never says what the model does.

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
        One row per token of ``states``: ``token``; ``settled``, the lowest layer behind which the
        most likely next token is that of the end, and so behind every layer above it, -1 if the
        embedding says so already, null if it is not even so behind the last; ``exit_depth``, the
        deepest gated layer that ran for the token, where it stops choosing to compute, or null;
        ``layers_after``, layers that ran for it above the settled one, attention and MLP half
        each, layers without gates counted as run, null where ``settled`` is.

    Raises
    ------
    Stopped
        If ``stop`` was set.
    """
    layers = len(states.values) - 1
    final = _ends(model, trace, states)
    settled = np.full(len(states.token), layers)
    # From the top downwards, and only for tokens that have not differed yet.
    open_rows = np.arange(len(states.token))
    for behind in range(layers, -1, -1):
        check_stop(stop)
        same = _likeliest(model, states.values[behind][open_rows]) == final[open_rows]
        open_rows = open_rows[same]
        settled[open_rows] = behind - 1
        progress(1 - behind / (layers + 1))
        if not len(open_rows):
            break
    progress(1.0)
    return pl.DataFrame(
        {
            "token": states.token,
            "settled": settled,
            "exit_depth": trace.tokens["exit_depth"].gather(states.token),
            "layers_after": _layers_above(trace, states.token, np.minimum(settled, layers - 1)),
        }
    ).with_columns(
        pl.when(pl.col("settled") < layers).then(name) for name in ("settled", "layers_after")
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
        One row per exit: ``layer`` before it; ``tokens`` that never left, of which alone it is
        known what the whole depth says; ``head`` and ``lens``, the share of them whose most likely
        next token at the exit, through its translator and by the logit lens, is that of the end;
        null without such tokens.

    Raises
    ------
    ValueError
        If the model has no exits.
    """
    if not isinstance(model.family, HasExits):
        raise InputError(
            f"{model.name} is of the family {model.family.name} and has no exits to read; give a "
            "model with early exits."
        )
    stayed = (trace.matrix("exec_count")[states.token] > 0).all(axis=1)
    final = _likeliest(model, states.values[-1][stayed])
    rows = []
    for each in model.family.exits(model.model):
        behind = states.values[each.layer + 1][stayed]
        said = {
            "head": _likeliest(model, behind, each.translator),
            "lens": _likeliest(model, behind),
        }
        shares = {
            name: float((predicted == final).mean()) if len(final) else None
            for name, predicted in said.items()
        }
        rows.append({"layer": each.layer, "tokens": int(stayed.sum()), **shares})
    schema = {"layer": pl.Int64, "tokens": pl.Int64, "head": pl.Float64, "lens": pl.Float64}
    return pl.DataFrame(rows, schema=schema)


def layer_influence(trace: Trace, states: States) -> pl.DataFrame:
    """Return each layer's influence on the hidden state: one minus the cosine of before and after.

    Block Influence (Men et al., "ShortGPT: Layers in large language models are more redundant than
    you expect", 2024), as the gates decided.

    Parameters
    ----------
    trace, states
        The trace, and what ``record_states`` returned.

    Returns
    -------
    pl.DataFrame
        One row per layer: ``layer``; ``influence``, 0 to 2, the mean over tokens; ``executed`` and
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
    return pl.DataFrame(rows, schema=INFLUENCE)


def _ends(model: SkipModel, trace: Trace, states: States) -> Ints:
    """Return the next token that the model itself finds most likely."""
    final = _likeliest(model, states.values[-1])
    if not isinstance(model.family, HasExits):
        return final
    # Of those that left, the last state is the untranslated one.
    inside = np.ones(len(states.token), dtype=np.bool_)
    for each in model.family.exits(model.model):
        site = trace.sites.filter(layer=each.layer + 1)["site"].item()
        stays = trace.matrix("exec_count")[states.token, site] > 0
        leaves = inside & ~stays
        final[leaves] = _likeliest(model, states.values[each.layer + 1][leaves], each.translator)
        inside = stays
    return final


@torch.inference_mode()
def _likeliest(
    model: SkipModel, values: npt.NDArray[np.float32], translator: nn.Module | None = None
) -> Ints:
    norm = model.model.model.norm
    states = torch.from_numpy(values).to(model.device, model.model.dtype)
    if translator is not None:
        states = translator(states)
    # Not called: a hook on the norm may be for what leaves the model.
    predicted = [
        logits_of(model.model, norm.forward(rows)).argmax(dim=-1)
        for rows in states.split(HEAD_ROWS)
    ]
    found: Ints = torch.cat(predicted).cpu().numpy() if predicted else np.zeros(0, dtype=np.int64)
    return found


def _layers_above(trace: Trace, token: Ints, settled: Ints) -> Floats:
    layer, unit = trace.sites["layer"].to_numpy(), trace.sites["unit"].to_numpy()
    weight = np.where(unit == "block", 1.0, 0.5)
    # A layer is one whole, less what of it has a gate; what has one counts as often as it ran.
    free = np.ones(trace.run["layers"].item())
    first = trace.sites["visit"].to_numpy() == 0
    np.subtract.at(free, layer[first], weight[first])
    ran = (trace.matrix("exec_count")[token] * weight).astype(np.float64)
    above = layer[None] > settled[:, None]
    total = np.append(np.cumsum(free[::-1])[::-1], 0.0)
    found: Floats = (ran * above).sum(axis=1) + total[settled + 1]
    return found
