"""From what a gate's module gave to its score and decision, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from skipviz.errors import InputError, RecordingError
from skipviz.families.described.spec import GateSpec

MOST_RANKED = 10**9
NEARLY_WHOLE = 0.02
"""How far a decision may be from a whole number: what rounding to bfloat16 makes of 1."""
FAR = 1e4
"""What a forced score is set to: a sigmoid or softmax of it is 0 or 1, also in half precision."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What one firing of a gate says, for each token of the forward.

    Attributes
    ----------
    score
        On the gate's own scale.
    ran
        True where the unit runs, or how often.
    threshold
        What the score is compared with, on its scale; None where with nothing.
    p_execute
        The score as a probability of executing; None where it defines none.
    """

    score: Float[Tensor, "b t"]
    ran: Tensor
    threshold: Tensor | None
    p_execute: Float[Tensor, "b t"] | None


def at_path(value: Any, path: str, *, field: str) -> Any:
    """Return what stands at a path of names, keys and numbers within a value.

    Raises
    ------
    RecordingError
        If there is nothing; names the part and what there is.
    """
    for part in filter(None, path.split(".")):
        try:
            if isinstance(value, Mapping) and not hasattr(value, part):
                value = value[part]
            elif part.lstrip("-").isdigit():
                value = value[int(part)]
            else:
                value = getattr(value, part)
        except (AttributeError, KeyError, IndexError, TypeError) as error:
            known = list(value) if isinstance(value, Mapping) else type(value).__name__
            raise RecordingError(
                f"GateSpec.{field}: there is no {part!r} on the path {path!r}; there is {known}."
            ) from error
    return value


def read_gate(
    spec: GateSpec,
    value: Any,
    *,
    shape: tuple[int, int],
    threshold: Any = None,
    k: Any = None,
    mask: Any = None,
) -> Reading:
    """Return what a gate says.

    Parameters
    ----------
    spec
        Its description.
    value
        What it emitted.
    shape
        Texts and tokens of the forward.
    threshold, k, mask
        What the description's fields point to, or hold.

    Raises
    ------
    RecordingError
        If what it emitted does not fit the description or the forward.
    """
    classes = _classes(spec, value)
    score = _score(spec, classes)
    activated = _activated(spec, score)
    ran, limit = _decided(spec, classes, activated, threshold, k)
    if mask is not None:
        ran = _masked(spec, mask, score)
    return Reading(
        score=_over_tokens(spec, score, shape, "read").float(),
        ran=_over_tokens(spec, ran, shape, "mask" if mask is not None else "read"),
        threshold=_on_scale(spec, limit),
        p_execute=_chance(spec, classes, activated, shape),
    )


def _classes(spec: GateSpec, given: Any) -> Float[Tensor, "b n c"]:
    """Return what was emitted as numbers per token, or per text: [texts, tokens or 1, numbers]."""
    if not isinstance(given, Tensor):
        raise RecordingError(
            f"GateSpec.read={spec.read!r} gives a {type(given).__name__}, not a tensor; point into "
            "it, as with 'output.0'."
        )
    several = spec.rule == "argmax" or spec.pick is not None
    value: Tensor = given.detach()
    if value.ndim == 3:
        return value
    if value.ndim == 2 and spec.scope == "token" and not several:
        return value[..., None]
    if value.ndim == 2 and spec.scope != "token":
        return value[:, None]
    if value.ndim == 1 and spec.scope != "token":
        return value[:, None, None] if not several else value[None, None]
    raise RecordingError(
        f"GateSpec.read={spec.read!r} gives a tensor of shape {tuple(value.shape)}; wanted is "
        "[texts, tokens] or [texts, tokens, numbers], or without tokens where scope is sequence."
    )


def _score(spec: GateSpec, classes: Float[Tensor, "b n c"]) -> Float[Tensor, "b n"]:
    picked: Any = classes
    count = classes.shape[-1]
    if spec.rule == "argmax":
        wanted = int(spec.executes)
        if not wanted < count > 1:
            raise RecordingError(f"GateSpec.executes={wanted} is not one of {count} classes.")
        others = [number for number in range(count) if number != wanted]
        score: Tensor = picked[..., wanted] - picked[..., others].amax(-1)
        return score
    if spec.pick == "difference":
        if count != 2:
            raise RecordingError(f"GateSpec.pick='difference' needs 2 numbers; there are {count}.")
        score = picked[..., 1] - picked[..., 0]
        return score
    if spec.pick is None and count != 1:
        raise RecordingError(
            f"GateSpec.pick is missing: {spec.read} has {count} numbers per token. Give the number "
            "of the score, 'difference', or the rule argmax."
        )
    pick = spec.pick or 0
    if not -count <= pick < count:
        raise RecordingError(f"GateSpec.pick={pick} is not one of {count} numbers.")
    score = picked[..., pick]
    return score


def _activated(spec: GateSpec, score: Tensor) -> Tensor:
    if spec.activation == "sigmoid":
        return torch.sigmoid(score)
    return torch.tanh(score) if spec.activation == "tanh" else score


def _decided(
    spec: GateSpec, classes: Tensor, activated: Tensor, threshold: Any, k: Any
) -> tuple[Tensor, Tensor | None]:
    """Return where the unit runs, and what the activated score was compared with."""
    if spec.rule == "sample":
        return torch.zeros_like(activated, dtype=torch.bool), None
    if spec.rule == "argmax":
        return classes.argmax(-1) == int(spec.executes), torch.zeros((), device=activated.device)
    signed = activated * spec.polarity
    if spec.rule == "topk":
        return _largest(spec, signed, k)
    if spec.rule == "quantile":
        limit = torch.quantile(signed.float(), float(k))
        return signed > limit, limit * spec.polarity
    limit = _as_tensor(threshold, "threshold", activated)
    if limit.isnan().any():
        raise RecordingError("GateSpec.threshold gives NaN, which no score is above.")
    if limit.numel() not in (1, activated.shape[0], activated.numel()):
        raise RecordingError(
            f"GateSpec.threshold gives {limit.numel()} numbers for {tuple(activated.shape)} tokens."
        )
    if limit.numel() == 1:
        limit = limit.reshape(())
    elif limit.numel() == activated.shape[0]:
        limit = limit.reshape(-1, 1)
    else:
        limit = limit.reshape(activated.shape)
    far = signed - limit.to(activated.dtype) * spec.polarity
    return (far >= 0 if spec.rule == "ge" else far > 0), limit


def _as_tensor(value: Any, field: str, beside: Tensor) -> Tensor:
    """Return numbers that a path led to as a tensor on the device of another."""
    try:
        return torch.as_tensor(value, device=beside.device).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise RecordingError(
            f"GateSpec.{field} gives a {type(value).__name__}; point to numbers."
        ) from error


def _largest(spec: GateSpec, signed: Float[Tensor, "b t"], k: Any) -> tuple[Tensor, Tensor]:
    tokens, given = signed.shape[1], _as_tensor(k, "k", signed)
    share = given.is_floating_point()
    if given.numel() != 1 or not 0 < given <= (1 if share else MOST_RANKED):
        raise RecordingError(
            f"GateSpec.k gives {k!r:.60}; it must be a whole number from 1, or a share of the "
            "tokens with a decimal point, above 0 and at most 1.0."
        )
    # As it was given: in float32, 0.7 of 10 tokens would be 6.
    count = min(max(1, int(float(k) * tokens) if share else int(k)), tokens)
    best = signed.topk(count, dim=1)
    limit = best.values[:, -1:]
    if spec.strict:
        ran = signed > limit if count > 1 else signed >= limit
    else:
        ran = torch.zeros_like(signed, dtype=torch.bool).scatter(1, best.indices, True)
    return ran, between(signed, ran) * spec.polarity


def between(signed: Float[Tensor, "b t"], ran: Bool[Tensor, "b t"]) -> Float[Tensor, "b 1"]:
    """Return the middle between the lowest score that runs and the highest that does not.

    NaN where all tokens run or none does, since nothing is then compared.
    """
    lowest = signed.masked_fill(~ran, torch.inf).amin(dim=1, keepdim=True)
    highest = signed.masked_fill(ran, -torch.inf).amax(dim=1, keepdim=True)
    middle = (lowest + highest) / 2
    return torch.where(middle.isfinite(), middle, torch.nan)


def _masked(spec: GateSpec, mask: Any, score: Tensor) -> Tensor:
    found = _as_tensor(mask, "mask", score)
    if found.ndim == 3 and found.shape[-1] == 1:
        found = found[..., 0]
    if found.numel() != score.numel():
        raise RecordingError(
            f"GateSpec.mask gives values of shape {tuple(found.shape)} for scores of shape "
            f"{tuple(score.shape)}; point to one value for each."
        )
    whole = found.float().round()
    # A mask through which gradients pass is 0 or 1 but for rounding.
    if not ((found.float() - whole).abs() <= NEARLY_WHOLE).all() or (whole < 0).any():
        raise RecordingError(
            "GateSpec.mask has values that are not 0, 1 or how often the unit ran. Point to the "
            "decisions, not to weights."
        )
    counts = whole.to(torch.int64)
    if spec.mask_executes == 0:
        if counts.numel() and counts.amax() > 1:
            raise RecordingError("GateSpec.mask has values above 1, and mask_executes is 0.")
        counts = 1 - counts
    return counts if counts.ndim == 2 else counts.reshape(score.shape)


def _over_tokens(spec: GateSpec, values: Tensor, shape: tuple[int, int], field: str) -> Tensor:
    """Return values for each token of the forward."""
    wanted = shape if spec.scope == "token" else (*values.shape[:1], 1)
    if tuple(values.shape) != wanted or values.shape[0] not in (1, shape[0]):
        raise RecordingError(
            f"GateSpec.{field} gives values of shape {tuple(values.shape)} in a forward of "
            f"{shape[0]} texts of {shape[1]} tokens, of scope {spec.scope}."
        )
    return values.expand(shape)


def _on_scale(spec: GateSpec, limit: Tensor | None) -> Tensor | None:
    """Return a threshold of activated scores on the scale of the scores."""
    if limit is None:
        return None
    limit = limit.float()
    if spec.activation == "sigmoid":
        limit = torch.logit(limit)
    elif spec.activation == "tanh":
        limit = torch.atanh(limit)
    if spec.rule in ("topk", "quantile"):  # between activated scores that rounding made alike
        return torch.where(limit.isfinite(), limit, torch.nan)
    return limit


def _chance(
    spec: GateSpec, classes: Tensor, activated: Tensor, shape: tuple[int, int]
) -> Tensor | None:
    if spec.activation == "softmax":
        chance = classes.float().softmax(-1)[..., int(spec.executes)]
    elif spec.activation == "sigmoid":
        chance = activated.float() if spec.polarity == 1 else 1 - activated.float()
    else:
        return None
    return _over_tokens(spec, chance, shape, "read")


def with_decisions(
    spec: GateSpec,
    value: Tensor,
    wanted: Bool[Tensor, "b t"],
    *,
    change: Bool[Tensor, "b t"],
    threshold: Any = None,
) -> Tensor:
    """Return what a gate is to emit instead, so that its unit runs where it is wanted.

    Parameters
    ----------
    spec, value
        The gate's description, and what it emitted.
    wanted
        Where the unit is to run.
    change
        Where what it emitted is replaced; elsewhere it stays to the last bit.
    threshold
        What an activated score is compared with.

    Raises
    ------
    InputError
        If a decision is of a whole text and the plan says otherwise for some of its tokens.
    """
    if spec.scope != "token":
        if not (wanted == wanted[:, :1]).all() or not (change == change[:, :1]).all():
            raise InputError(
                f"One decision is taken for a whole {spec.scope} here, and the plan differs from "
                "token to token; give the same for all of them."
            )
        wanted, change = wanted[:, :1], change[:, :1]
    classes = _classes(spec, value)
    high = (wanted if spec.polarity == 1 else ~wanted)[..., None]
    up, down = _ends(spec, classes, threshold)
    if spec.rule == "argmax" or spec.pick == "difference":
        one = int(spec.executes) if spec.rule == "argmax" else 1
        favoured = torch.arange(classes.shape[-1], device=value.device) == one
        made = torch.where(favoured == high, up, down)
    else:
        picked = torch.arange(classes.shape[-1], device=value.device) == (
            (spec.pick or 0) % classes.shape[-1]
        )
        made = torch.where(picked, torch.where(high, up, down), classes)
    return torch.where(change[..., None], made.to(classes.dtype), classes).reshape(value.shape)


def _ends(spec: GateSpec, classes: Tensor, threshold: Any) -> tuple[float, float]:
    """Return a high and a low number to emit; 1 and 0 where a gate emits probabilities."""
    if spec.activation is None and spec.rule in ("gt", "ge"):
        limit = torch.as_tensor(threshold)
        inside = ((classes >= 0) & (classes <= 1)).all() and ((limit > 0) & (limit < 1)).all()
        if inside:
            return 1.0, 0.0
    return FAR, -FAR
