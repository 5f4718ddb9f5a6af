"""What a prediction, or a gate's score, is owed to: tokens of the input, or units over the depth.

The methods are Captum's (Kokhlikyan et al., "Captum: A unified and generic model interpretability
library for PyTorch", 2020). Hard decisions have no slope, so plain gradients through a gated model
say nothing of what its gates would do: ``frozen`` holds the decisions as they were, and
``straight_through`` gives them the slope of the sigmoid that training gave them. The two answer
different questions and differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from skipviz.families import Plan
from skipviz.families.gated_modules import Decide, gated_units
from skipviz.models import SkipModel
from skipviz.trace import Trace

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
BATCH = 8
"""Copies of the text run at once, if nothing else is asked."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is to be explained.

    Attributes
    ----------
    token
        Its place in the text.
    kind
        ``log_probability`` of the word that came next, or of ``word``; ``loss`` on it; ``contrast``
        of the logits of ``word`` and ``against``; ``score`` of the gate at ``site``.
    word, against
        Token ids; the word that came next if there is none.
    site
        Index of the site, for ``score``.
    """

    token: int
    kind: Literal["log_probability", "loss", "contrast", "score"] = "log_probability"
    word: int | None = None
    against: int | None = None
    site: int | None = None


@dataclass(frozen=True, eq=False)
class Attribution:
    """Shares of a target.

    Attributes
    ----------
    table
        One row a token (``token``, ``attribution``) or a cell (``token``, ``site``,
        ``from_skipped``, ``to_all``), in the target's unit: nats, or the gate's own scale.
    value
        The target on the text as it is.
    delta
        By how much the shares miss the difference that they should add up to; None for methods
        that promise no sum.
    """

    table: pl.DataFrame
    value: float
    delta: float | None


def attribute(
    model: SkipModel,
    trace: Trace,
    target: Target,
    *,
    method: Method = "integrated_gradients",
    gates: Gates = "frozen",
    steps: int = 64,
    batch: int = BATCH,
    seed: int = 0,
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
        Points of the path, or samples.
    batch
        Copies of the text run at once; memory grows with it.
    seed
        Seed of the sampling methods.

    Raises
    ------
    ImportError
        If Captum is not installed; says how to install it.
    ValueError
        If the target or the method does not exist, or the trace is of several sequences.
    """
    attr = _captum()
    _check(model, trace, target)
    target = _resolved(target, trace)
    if method not in METHODS:
        raise ValueError(f"method={method!r} is not one of {', '.join(METHODS)}.")
    ids = _ids(model, trace, target)
    table = model.model.get_input_embeddings().weight.detach()
    embedded = table[ids].float()
    away = table.float().mean(0).expand_as(embedded).contiguous()
    run = _runner(model, trace, target, gates)
    seen = ids.shape[1]
    groups = torch.arange(seen, device=ids.device)[None, :, None].expand_as(embedded).contiguous()
    delta = None
    with _seeded(seed), _training(model, on=gates == "straight_through"):
        value = float(run(embedded.to(table.dtype)).detach())
        if method == "integrated_gradients":
            shares, missed = attr.IntegratedGradients(run).attribute(
                embedded, away, n_steps=steps, internal_batch_size=batch,
                return_convergence_delta=True,
            )  # fmt: skip
            delta = float(missed.sum())
        elif method == "input_x_gradient":
            moved = (embedded - away).requires_grad_()
            shares = attr.InputXGradient(lambda part: run(part + away[:1])).attribute(moved)
        elif method == "gradient_shap":
            shares, missed = attr.GradientShap(run).attribute(
                embedded, torch.cat([away, away]), n_samples=steps, return_convergence_delta=True
            )
            delta = float(missed.mean())
        elif method == "feature_ablation":
            shares = attr.FeatureAblation(run).attribute(
                embedded, away, feature_mask=groups, perturbations_per_eval=batch
            )
        else:
            shares = attr.ShapleyValueSampling(run).attribute(
                embedded, away, feature_mask=groups, n_samples=steps, perturbations_per_eval=batch
            )
    summed = shares.detach()[0]
    # These give each of a token's dimensions the whole of the token's share.
    whole = method in ("feature_ablation", "shapley_sampling")
    per_token = summed[:, 0] if whole else summed.sum(-1)
    rows = {"token": list(range(seen)), "attribution": per_token.double().cpu().tolist()}
    return Attribution(pl.DataFrame(rows), value, delta)


def attribute_depth(
    model: SkipModel,
    trace: Trace,
    target: Target,
    *,
    steps: int = 32,
    batch: int = BATCH,
) -> Attribution:
    """Return what each (token, site) contributed to a target, by what it executed.

    The execution mask is the input: a unit and its skip path are mixed, and integrated gradients
    run along two straight paths, from all skipped to the decisions as they were, and from these to
    all run. The first gives shares to what executed and nothing to what skipped; the second the
    other way round.

    Parameters
    ----------
    model, trace, target, batch
        As for ``attribute``; the target is no gate's score.
    steps
        Points of each path.

    Returns
    -------
    Attribution
        ``from_skipped``: what executing added over skipping; ``to_all``: what executing would have
        added. ``delta`` is the larger miss of the two paths.

    Raises
    ------
    ImportError, ValueError
        As ``attribute``.
    """
    attr = _captum()
    _check(model, trace, target)
    if target.kind == "score":
        raise ValueError("Scores are decided on the way; attribute a loss or a word over depth.")
    target = _resolved(target, trace)
    ids = _ids(model, trace, target)
    executed = torch.from_numpy(trace.matrix("exec_count")[: ids.shape[1]] > 0).float()
    mask = executed.to(model.device)[None]

    def run(mix: Float[Tensor, "b t s"]) -> Float[Tensor, " b"]:
        with _mixed(model.model, mix):
            states = model.model.model(ids.expand(len(mix), -1), use_cache=False)
        return _prediction(model, states.last_hidden_state, target)

    paths = []
    for begin, end in ((torch.zeros_like(mask), mask), (mask, torch.ones_like(mask))):
        shares, missed = attr.IntegratedGradients(run).attribute(
            end, begin, n_steps=steps, internal_batch_size=batch, return_convergence_delta=True
        )
        paths.append((shares[0].double().cpu(), float(missed.sum())))
    token, site = (each.flatten() for each in torch.meshgrid(
        torch.arange(mask.shape[1]), torch.arange(mask.shape[2]), indexing="ij"
    ))  # fmt: skip
    table = pl.DataFrame(
        {
            "token": token.tolist(),
            "site": site.tolist(),
            "from_skipped": paths[0][0].flatten().tolist(),
            "to_all": paths[1][0].flatten().tolist(),
        }
    )
    with torch.no_grad():
        value = float(run(mask))
    return Attribution(table, value, max((missed for _, missed in paths), key=abs))


def _captum() -> Any:
    try:
        import captum.attr
    except ImportError as error:
        raise ImportError(
            "Attribution runs in Captum, which is not installed: pip install "
            "'skipviz[attribution]'."
        ) from error
    return captum.attr


def _ids(model: SkipModel, trace: Trace, target: Target) -> Int[Tensor, "1 t"]:
    """Return the text up to the target: what follows cannot contribute."""
    ids = trace.tokens["token_id"].to_list()[: target.token + 1]
    return torch.tensor([ids], device=model.device)


def _runner(
    model: SkipModel, trace: Trace, target: Target, gates: Gates
) -> Callable[[Float[Tensor, "b t d"]], Float[Tensor, " b"]]:
    ids = _ids(model, trace, target)
    frozen = gates == "frozen" and trace.sites.height > 0
    plan = Plan(trace.matrix("exec_count")[: ids.shape[1]] > 0) if frozen else None

    def run(embedded: Float[Tensor, "b t d"]) -> Float[Tensor, " b"]:
        embedded = embedded.to(model.model.dtype)
        with _heard(model.model, target) as scores:
            if plan is None:
                states = model.model.model(inputs_embeds=embedded, use_cache=False)
            else:
                with model.family.force(model.model, plan):
                    states = model.model.model(inputs_embeds=embedded, use_cache=False)
        if target.kind == "score":
            return scores[0][:, target.token]
        return _prediction(model, states.last_hidden_state, target)

    return run


def _resolved(target: Target, trace: Trace) -> Target:
    if target.word is not None or target.kind == "score":
        return target
    return replace(target, word=int(trace.tokens["token_id"][target.token + 1]))


def _prediction(
    model: SkipModel, states: Float[Tensor, "b t d"], target: Target
) -> Float[Tensor, " b"]:
    logits: Tensor = model.model.lm_head(states[:, target.token]).float()
    if target.kind == "contrast":
        return logits[:, target.word] - logits[:, target.against]
    log = logits.log_softmax(-1)[:, target.word]
    return -log if target.kind == "loss" else log


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
def _heard(model: Any, target: Target) -> Iterator[list[Tensor]]:
    """Keep the scores of the target's site."""
    scores: list[Tensor] = []
    if target.kind != "score":
        yield scores
        return
    unit = [each for _, _, each in gated_units(model)][target.site or 0]
    handle = unit.gate.register_forward_hook(lambda _, args, score: scores.append(score))
    try:
        yield scores
    finally:
        handle.remove()


@contextmanager
def _mixed(model: Any, mix: Float[Tensor, "b t s"]) -> Iterator[None]:
    """Let every gated unit give a mixture of unit and skip path."""
    handles = []

    def always(decide: Decide, args: Any, executed: Tensor) -> Tensor:
        return torch.ones_like(executed)

    for site, (_, kind, unit) in enumerate(gated_units(model)):
        skipped: list[Tensor] = []

        def keep(module: Any, args: Any, result: Tensor, skipped: list[Tensor] = skipped) -> None:
            skipped.append(result)

        def blend(
            module: Any, args: Any, result: Any, site: int = site, kind: str = kind,
            skipped: list[Tensor] = skipped,
        ) -> Any:  # fmt: skip
            output = result[0] if kind == "attn" else result
            share = mix[:, :, site, None].to(output.dtype)
            blended = share * output + (1 - share) * skipped.pop()
            return (blended, *result[1:]) if kind == "attn" else blended

        handles += [
            unit.decide.register_forward_hook(always),
            unit.adapter.register_forward_hook(keep),
            unit.register_forward_hook(blend),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _training(model: SkipModel, *, on: bool) -> Iterator[None]:
    """Put the gated units where they give decisions the slope of the sigmoid."""
    units = (
        [unit for _, _, unit in gated_units(model.model)] if model.family.name == "gated" else []
    )
    for unit in units:
        unit.training = on
    try:
        yield
    finally:
        for unit in units:
            unit.training = False


def _check(model: SkipModel, trace: Trace, target: Target) -> None:
    if trace.tokens["sequence"].n_unique() != 1:
        raise ValueError(
            f"The trace has {trace.tokens['sequence'].n_unique()} sequences; attribution takes one "
            "text at a time."
        )
    last = len(trace) - (1 if target.kind == "score" or target.word is not None else 2)
    if not 0 <= target.token <= last:
        raise ValueError(f"token={target.token} cannot be explained; choose one from 0 to {last}.")
    if target.kind == "contrast" and target.against is None:
        raise ValueError("A contrast needs the token id it is held against: Target(against=...).")
    if target.kind == "score" and (
        target.site is None or not 0 <= target.site < trace.sites.height
    ):
        raise ValueError(
            f"site={target.site} has no gate; choose one from 0 to {trace.sites.height - 1}."
        )
