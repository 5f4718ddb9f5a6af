"""How decisions are carried out: masked or gathered; the second is tried before it is trusted."""

from __future__ import annotations

import threading
import weakref
from dataclasses import replace
from typing import Any, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import StaticCache

from skipviz.errors import InputError, ModelError
from skipviz.families.causal_lm import by_itself
from skipviz.families.powers import CanForce, CanGather
from skipviz.models.handle import Runtime, SkipModel, sharing_weights
from skipviz.text.arguments import checked

TRIED_LENGTH = 136
"""More than queries that attend at once."""
SAME_LOGITS = 1e-4
"""How far logits of both runtimes may lie apart in float32, over the largest."""
SAME_SPREAD = {torch.bfloat16: 0.25, torch.float16: 0.04}
"""How far those of a token may on average, over their spread, in three quarters of the tokens.

In these types rounding alone moves the logits of some tokens by more than their spread: the masked
runtime lies about as far from itself in float32 as from the gathered one (a test).
"""

_LOCK = threading.Lock()
_TRIED: dict[tuple[Any, ...], str] = {}
"""What came of the trial, by the weights, which all handles of a model share, and how they run."""


@checked
def with_runtime(model: SkipModel, runtime: Runtime) -> SkipModel:
    """Return a handle on the same weights that carries decisions out in another way.

    Parameters
    ----------
    model
        A model with gates, fixed rates or exits, as ``load`` returned it.
    runtime
        ``masked``: every unit is computed for every token, and what is skipped is discarded.
        ``gathered``: a unit is computed for the tokens that execute, and keys and values for all.
        A token that has left at an exit costs its keys and values.

    Returns
    -------
    SkipModel
        Another handle; the weights are shared.

    Raises
    ------
    InputError
        If there is no such runtime, or the family of the model cannot gather.
    ModelError
        If on a few tokens, in a batch or from a cache, both runtimes differ for this model.

    Examples
    --------
    >>> fast = skipviz.with_runtime(model, "gathered")
    >>> fast.runtime, model.runtime
    ('gathered', 'masked')
    """
    if runtime not in get_args(Runtime):
        raise InputError(f"runtime={runtime!r} is not one of {', '.join(get_args(Runtime))}.")
    if runtime == model.runtime:
        return model
    family = model.family
    if not isinstance(family, CanGather) or not isinstance(family, CanForce):
        raise InputError(
            f"{model.name} is of the family {family.name}, whose units cannot be run for some "
            "tokens alone; use runtime='masked'."
        )
    own = sharing_weights(model.model)
    family.gather(own, gathered=runtime == "gathered")
    made = replace(model, model=own, runtime=runtime)
    if runtime == "gathered":
        _check_same(model, made)
    return made


def _check_same(masked: SkipModel, gathered: SkipModel) -> None:
    """Raise ``ModelError`` unless both runtimes give the same logits on a few tokens."""
    weights = list(masked.model.parameters())
    config = masked.model.config.get_text_config()
    tried = (
        hash(tuple(map(id, weights))),
        str(masked.model.dtype),
        str(masked.device),
        getattr(config, "_attn_implementation", None),
    )
    with _LOCK:
        if tried not in _TRIED:
            _TRIED[tried] = by_itself(_difference, masked, gathered)
            weakref.finalize(weights[0], _TRIED.pop, tried, None)
        problem = _TRIED[tried]
    if problem:
        raise ModelError(
            f"{masked.name} cannot be run gathered: {problem}. Use runtime='masked', which runs "
            "the model's own units."
        )


def _difference(masked: SkipModel, gathered: SkipModel) -> str:
    """Return in which way the runtimes differ, or nothing."""
    config = masked.model.config.get_text_config()
    count = int(config.vocab_size)
    spread = torch.linspace(0, count - 1, 2 * TRIED_LENGTH).long().view(2, -1).to(masked.device)
    mask = torch.ones_like(spread)
    mask[1, : TRIED_LENGTH // 3] = 0  # padding on the left, as in generating
    ways: dict[str, dict[str, Any]] = {
        "a text alone": {"input_ids": spread[:1]},
        "a text with a static cache": {"input_ids": spread[:1], "static": True},
        "a padded batch": {"input_ids": spread, "attention_mask": mask},
    }
    for words, given in ways.items():
        try:
            both = [_logits(model, **given) for model in (masked, gathered)]
        except torch.OutOfMemoryError:
            raise  # of the moment, and nothing that the model is
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            return f"{words} does not run ({type(error).__name__}: {error!s:.120})"
        kept = given.get("attention_mask", torch.ones_like(given["input_ids"])).bool()
        if far := _apart(both[0][kept], both[1][kept], masked.model.dtype):
            return f"on {words} its logits differ from the masked ones by {far}"
    return ""


def _apart(masked: Float[Tensor, "n v"], gathered: Float[Tensor, "n v"], dtype: torch.dtype) -> str:
    """Return how far logits lie apart, or nothing if that is rounding."""
    apart = masked - gathered
    if dtype not in SAME_SPREAD:
        far = apart.abs().max()
        return "" if far <= SAME_LOGITS * masked.abs().max().clamp(min=1.0) else f"{far:.2g}"
    share = spread_apart(masked, gathered)
    return "" if share <= SAME_SPREAD[dtype] else f"{share:.2g} of their spread"


def spread_apart(first: Float[Tensor, "n v"], second: Float[Tensor, "n v"]) -> float:
    """Return how far logits lie apart, over a token's spread, in three quarters of the tokens."""
    shares = (first - second).pow(2).mean(-1).sqrt() / first.std(-1).clamp(min=1e-6)
    return float(shares.quantile(0.75))


def _logits(
    model: SkipModel,
    input_ids: Int[Tensor, "b t"],
    attention_mask: Int[Tensor, "b t"] | None = None,
    *,
    static: bool = False,
) -> Float[Tensor, "b t v"]:
    """Return logits under decisions at random: of one forward, then two tokens from a cache."""
    texts, length = input_ids.shape
    first, parts = length - 2, []
    cache = StaticCache(config=model.model.config, max_cache_len=length + 8) if static else None
    family: Any = model.family
    plan = family.draw_plan(model.model, texts=texts, tokens=length, seed=0)
    with family.force(model.model, plan):
        for start, stop in ((0, first), (first, first + 1), (first + 1, length)):
            more = {
                "input_ids": input_ids[:, start:stop], "past_key_values": cache, "use_cache": True,
            }  # fmt: skip
            if attention_mask is not None:
                more["attention_mask"] = attention_mask[:, :stop]
                places = (attention_mask.cumsum(-1) - 1).clamp(min=0)
                more["position_ids"] = places[:, start:stop]
            output = model.model(**more)
            cache = output.past_key_values
            parts.append(output.logits.float())
    return torch.cat(parts, dim=1)
