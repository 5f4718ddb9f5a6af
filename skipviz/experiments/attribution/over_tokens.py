"""Which tokens of the text a prediction, or a gate's score, comes from.

The methods are Captum's (Kokhlikyan et al., "Captum: A unified and generic model interpretability
library for PyTorch", 2020). Hard decisions have no slope, so plain gradients through a gated model
say nothing of what its gates would do: ``frozen`` holds the decisions as they were, and
``straight_through`` gives them the slope of the sigmoid that training gave them. The two answer
different questions and differ.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from skipviz.errors import InputError
from skipviz.experiments.attribution.target import (
    TOKENS_AT_ONCE,
    Attribution,
    ScoredRun,
    Target,
    check_steps,
    check_target,
    copies,
    ids_until,
    prediction,
    resolved,
    watched,
)
from skipviz.experiments.same_model import check_own_trace
from skipviz.families import Plan
from skipviz.families.hooks import after, hooked
from skipviz.families.powers import CanDraw, CanFlip, CanSlope, force
from skipviz.models import SkipModel
from skipviz.models.runtimes import with_runtime
from skipviz.progress import Progress, check_seed, no_progress
from skipviz.text.arguments import checked
from skipviz.traces import Trace

Method = Literal[
    "integrated_gradients",
    "input_x_gradient",
    "gradient_shap",
    "feature_ablation",
    "shapley_sampling",
]
METHODS: tuple[Method, ...] = (
    "integrated_gradients",
    "input_x_gradient",
    "gradient_shap",
    "feature_ablation",
    "shapley_sampling",
)
Gates = Literal["frozen", "straight_through"]


def runs(method: Method, *, steps: int, tokens: int) -> int:
    """Return how many times a method runs the text.

    Parameters
    ----------
    method
        One of ``METHODS``.
    steps
        As for ``attribute``.
    tokens
        Tokens up to the target's, it among them.
    """
    return {
        "integrated_gradients": steps + 2,
        "input_x_gradient": 1,
        "gradient_shap": 3 * steps,
        "feature_ablation": tokens + 1,
        "shapley_sampling": steps * tokens + 1,
    }[method]


@checked
def attribute(
    model: SkipModel,
    trace: Trace,
    target: Target,
    *,
    method: Method = "integrated_gradients",
    gates: Gates = "frozen",
    steps: int = 64,
    rows: int = TOKENS_AT_ONCE,
    seed: int = 0,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> Attribution:
    """Return what each token of the text contributed to a target.

    Tokens are taken away by putting the mean embedding in their place.

    Parameters
    ----------
    model
        The model that was traced.
    trace
        Its trace of one text that fits the context.
    target
        What is to be explained; nothing after its token can contribute.
    method
        ``integrated_gradients``, ``input_x_gradient``, ``gradient_shap``, ``feature_ablation`` or
        ``shapley_sampling``.
    gates
        ``frozen`` holds the decisions of the trace; ``straight_through`` lets gradients pass
        through them. Methods that take tokens away let the gates decide anew in that case.
    steps
        Points of the path, or samples; the methods that need neither take no notice.
    rows
        Tokens to run at once, at least one copy of the text; memory grows with it.
    seed
        Seed of the sampling methods.
    progress
        Called with the share of the work done, 0 to 1.
    stop
        Set it from another thread to stop.

    Returns
    -------
    Attribution
        Its table has one row per token: ``token`` and ``attribution``, in the target's unit.

    Raises
    ------
    ValueError
        If the target or the method does not exist, or the trace is of several sequences.
    Stopped
        If ``stop`` was set.

    Examples
    --------
    >>> target = skipviz.Target(token=5)  # the word that comes after token 5
    >>> found = skipviz.attribute(model, trace, target, method="input_x_gradient")
    >>> found.table.columns, found.table.height
    (['token', 'attribution'], 6)
    """
    check_seed(seed)
    check_own_trace(model, trace)
    model = with_runtime(model, "masked")  # whose units can be taken apart
    from captum import attr  # slow to import

    check_target(model, trace, target)
    target = resolved(target, trace)
    if method not in METHODS:
        raise InputError(f"method={method!r} is not one of {', '.join(METHODS)}.")
    check_steps(steps)
    ids = ids_until(model, trace, target.token)
    table = model.model.get_input_embeddings().weight.detach()
    embedded = table[ids].float()
    away = table.float().mean(0).expand_as(embedded).contiguous()
    seen = ids.shape[1]
    plain = _runner(model, trace, target, ids, gates)
    total = runs(method, steps=steps, tokens=seen) + 1
    run = watched(model, plain, total=total, progress=progress, stop=stop)
    with _seeded(seed), _sloped(model, gates):
        with torch.no_grad():
            value = float(run(embedded))
        shares, delta = _shares(attr, run, method, embedded, away, steps, copies(rows, seen))
    progress(1.0)
    return Attribution(
        pl.DataFrame({"token": range(seen), "attribution": shares.double().cpu().tolist()}),
        value,
        () if delta is None else (delta,),
    )


def _shares(
    attr: Any,
    run: ScoredRun,
    method: Method,
    embedded: Float[Tensor, "1 t d"],
    away: Float[Tensor, "1 t d"],
    steps: int,
    at_once: int,
) -> tuple[Float[Tensor, " t"], float | None]:
    """Return each token's share, and by how much their sum is off where the method promises one."""
    if method == "integrated_gradients":
        shares, missed = attr.IntegratedGradients(run).attribute(
            embedded, away, n_steps=steps, internal_batch_size=at_once,
            return_convergence_delta=True,
        )  # fmt: skip
        return shares.detach()[0].sum(-1), float(missed.sum())
    if method == "input_x_gradient":
        moved = (embedded - away).requires_grad_()
        shares = attr.InputXGradient(lambda part: run(part + away)).attribute(moved)
        return shares.detach()[0].sum(-1), None
    if method == "gradient_shap":
        return _gradient_shap(attr, run, embedded, away, steps, at_once)
    # Each token is one feature; all of its dimensions are given the whole of its share.
    tokens = torch.arange(embedded.shape[1], device=embedded.device)
    groups = tokens[None, :, None].expand_as(embedded).contiguous()
    options = {"feature_mask": groups, "perturbations_per_eval": at_once}
    if method == "shapley_sampling":
        options["n_samples"] = steps
    how = attr.FeatureAblation if method == "feature_ablation" else attr.ShapleyValueSampling
    with torch.no_grad():
        return how(run).attribute(embedded, away, **options)[0, :, 0], None


def _gradient_shap(
    attr: Any,
    run: ScoredRun,
    embedded: Float[Tensor, "1 t d"],
    away: Float[Tensor, "1 t d"],
    steps: int,
    at_once: int,
) -> tuple[Float[Tensor, " t"], float]:
    """Average over samples a few at a time: Captum would run them all at once."""
    summed, missed = torch.zeros_like(embedded[0, :, 0]), 0.0
    for begin in range(0, steps, at_once):
        samples = min(at_once, steps - begin)
        shares, off = attr.GradientShap(run).attribute(
            embedded, torch.cat([away, away]), n_samples=samples, return_convergence_delta=True
        )
        summed += samples * shares.detach()[0].sum(-1)
        missed += float(off.sum())
    return summed / steps, missed / steps


def _runner(
    model: SkipModel, trace: Trace, target: Target, ids: Int[Tensor, "1 t"], gates: Gates
) -> Callable[[Float[Tensor, "b t d"]], Float[Tensor, " b"]]:
    frozen = gates == "frozen" and trace.sites.height > 0
    plan = Plan(trace.matrix("exec_count")[: ids.shape[1]] > 0) if frozen else None

    def run(embedded: Float[Tensor, "b t d"]) -> Float[Tensor, " b"]:
        embedded = embedded.to(model.model.dtype)
        with _heard(model, target) as scores, _told(model, ids):
            if plan is None:
                states = model.model.model(inputs_embeds=embedded, use_cache=False)
            else:
                with force(model.family, model.model, plan, name=model.name):
                    states = model.model.model(inputs_embeds=embedded, use_cache=False)
        if target.kind == "score":
            return scores[0][:, target.token]
        return prediction(model, states.last_hidden_state, target)

    return run


def _told(model: SkipModel, ids: Int[Tensor, "1 t"]) -> AbstractContextManager[None]:
    family = model.family
    return family.drawing_as(model.model, ids) if isinstance(family, CanDraw) else nullcontext()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators that Captum draws from, and leave them as they were."""
    before = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(before)


@contextmanager
def _heard(model: SkipModel, target: Target) -> Iterator[list[Tensor]]:
    """Keep the scores of the target's site."""
    scores: list[Tensor] = []
    hooks = []
    if target.kind == "score" and isinstance(model.family, CanFlip):
        unit = model.family.units(model.model)[target.site or 0]
        hooks.append(after(unit.gate, lambda _, args, score: scores.append(score)))
    with hooked(hooks):
        yield scores


def _sloped(model: SkipModel, gates: Gates) -> AbstractContextManager[None]:
    """Let gradients pass through decisions, where they can and are to."""
    if gates == "straight_through" and isinstance(model.family, CanSlope):
        return model.family.straight_through(model.model)
    return nullcontext()
