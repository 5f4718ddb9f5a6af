"""What every transformers causal LM has, whatever its layers are: a backbone, and what follows it.

Losses come from the model's own output. A long text's logits never exist all at once, so a model's
own forward is run on last hidden states, a few at a time, with the backbone taken out. What it does
after its head (Granite and Cohere scale logits, Gemma 2 caps them) is done. That this gives what
the whole model gives is tried once on every model, before the first figure.
"""

from __future__ import annotations

import copy
import threading
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from skipviz.errors import ModelError

TRIED_TOKENS = 6
"""Tokens that a model is tried on."""
LOGIT_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}
"""How much logits may differ by rounding, as a share of the largest; more in shorter types."""
ROUGH_LOGITS = 2e-2

_LOCK = threading.Lock()
_APART: WeakKeyDictionary[nn.Module, nn.Module | None] = WeakKeyDictionary()
_CAUSAL: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def backbone_of(model: Any) -> nn.Module:
    """Return the part of a causal LM that gives its last hidden states."""
    found: nn.Module | None = getattr(model, "base_model", None)
    if found is None or found is model:
        raise ModelError(
            f"{type(model).__name__} is not a transformers causal LM: it has no backbone apart "
            "from its head. Give a model that AutoModelForCausalLM loads."
        )
    return found


def layer_list(model: Any) -> nn.ModuleList | None:
    """Return a model's layers where they can be found: one list, as long as it has layers."""
    count = getattr(model.config, "num_hidden_layers", None)
    lists = [
        module
        for module in backbone_of(model).modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    return lists[0] if lists else None


def last_hidden_states(model: Any, **inputs: Any) -> Float[Tensor, "b t d"]:
    """Return what the backbone gives the head, for inputs as the backbone takes them."""
    states: Tensor = backbone_of(model)(**inputs, use_cache=False)[0]
    return states


def logits_of(model: Any, states: Float[Tensor, "*n d"]) -> Float[Tensor, "*n v"]:
    """Return the logits that a model itself makes of its last hidden states.

    Parameters
    ----------
    model
        A causal LM.
    states
        What ``last_hidden_states`` returned, or a part of it.

    Raises
    ------
    ModelError
        If this model's logits are not a function of its last hidden states alone.
    """
    apart = _apart(model)
    if apart is None:
        raise ModelError(
            f"The logits of {type(model).__name__} cannot be computed from its last hidden states: "
            "on a few tokens they differ from those of its own forward. skipviz can record and "
            "trace this model; experiments that change hidden states cannot be run on it."
        )
    return _forward(model, apart, states)


def has_logits_apart(model: Any) -> bool:
    """Return whether ``logits_of`` gives what the whole model gives; tried once per model."""
    return _apart(model) is not None


def is_causal(model: Any) -> bool:
    """Return whether a later token leaves the logits of earlier ones alone; tried once."""
    if model not in _CAUSAL:
        _CAUSAL[model] = by_itself(_later_tokens_change_nothing, model)
    return _CAUSAL[model]


def tried_as(model: nn.Module, copied: nn.Module) -> None:
    """Take over for a copy that shares a model's weights what was tried on the model."""
    with _LOCK:
        if model in _APART:
            _APART[copied] = None if _APART[model] is None else _without_backbone(copied)
    if model in _CAUSAL:
        _CAUSAL[copied] = _CAUSAL[model]


class _Given(nn.Module):
    """Stands for the backbone and returns the states that it was given."""

    @property
    def decoder(self) -> nn.Module:
        """OPT calls its backbone's decoder."""
        return self

    def forward(self, *args: Any, inputs_embeds: Tensor, **kwargs: Any) -> Any:
        return _States(last_hidden_state=inputs_embeds)


class _States(dict[str, Any]):
    """The last hidden states as any backbone's output; whatever else is asked of it is None."""

    def __getattr__(self, name: str) -> Any:
        return self.get(name)

    def __getitem__(self, key: Any) -> Any:
        return self["last_hidden_state"] if key == 0 else super().__getitem__(key)


def _apart(model: Any) -> nn.Module | None:
    with _LOCK:
        if model not in _APART:
            shell = _without_backbone(model)
            _APART[model] = shell if by_itself(_gives_the_same, model, shell) else None
        return _APART[model]


def _without_backbone(model: Any) -> nn.Module:
    """Return the model with its backbone taken out; everything else is shared."""
    shell = copy.copy(model)
    shell.__dict__["_modules"] = {**model._modules, model.base_model_prefix: _Given()}
    return shell  # type: ignore[no-any-return]


def _forward(model: Any, shell: nn.Module, states: Tensor) -> Tensor:
    # Called by its class: hooks on the whole model are not for parts of a text.
    rows = states.reshape(1, -1, states.shape[-1])
    logits: Tensor = type(model).forward(shell, inputs_embeds=rows, use_cache=False).logits
    return logits.reshape(*states.shape[:-1], -1)


def _gives_the_same(model: Any, shell: nn.Module) -> bool:
    ids = some_tokens(model)
    whole = model(input_ids=ids, use_cache=False).logits
    try:
        apart = _forward(model, shell, last_hidden_states(model, input_ids=ids))
    except (AttributeError, KeyError, TypeError, RuntimeError, ValueError):
        return False  # it asks more of its backbone than last hidden states
    return same_logits(apart, whole)


def _later_tokens_change_nothing(model: Any) -> bool:
    ids = some_tokens(model)
    other = ids.clone()
    other[:, -1] = ids[:, 0]
    first = model(input_ids=ids, use_cache=False).logits
    second = model(input_ids=other, use_cache=False).logits
    return same_logits(first[:, :-1], second[:, :-1])


def same_logits(found: Tensor, wanted: Tensor) -> bool:
    """Return whether logits are the same but for rounding."""
    if found.shape != wanted.shape:
        return False
    finite = found.isfinite() & wanted.isfinite()  # the rest is for the run itself to report
    if not finite.any():
        return True
    far, largest = (found - wanted)[finite].abs().amax(), wanted[finite].abs().amax()
    return bool(far <= LOGIT_TOLERANCE.get(wanted.dtype, ROUGH_LOGITS) * largest.clamp(min=1.0))


def some_tokens(model: Any) -> Int[Tensor, "1 t"]:
    """Return a few tokens, from all over the vocabulary, to try a model on."""
    count = int(model.config.get_text_config().vocab_size)
    spread = torch.linspace(0, count - 1, TRIED_TOKENS).long()
    return spread[None].to(next(model.parameters()).device)


def by_itself(work: Any, *arguments: Any) -> Any:
    """Do work in a thread of its own, where no recording or forcing of a caller's is on."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            # A model that draws takes its numbers from the caller's generator.
            with torch.inference_mode(), torch.random.fork_rng():
                outcome.append((work(*arguments), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    result, error = outcome[0]
    if error is not None:
        raise error
    return result
