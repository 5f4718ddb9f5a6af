"""The run that a trace is of, kept so that another can begin where the two first differ.

A changed decision changes nothing below its layer and nothing before its token. So a run under
other decisions begins at the first layer that has one, with the hidden states that it was given
before, and runs the tokens from the first that has one, after the keys and values of those before.
The layers themselves are run by the model's own forward, in which those below are replaced by what
they gave. Whether that gives what the whole forward gives is tried on every text; where it does
not, or the family says that its layers share more than hidden states, everything is run again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache

from skipviz.errors import InputError
from skipviz.experiments.counterfactuals.compared import log_probabilities
from skipviz.experiments.decoded_flips import TextBefore
from skipviz.families import Plan
from skipviz.families.causal_lm import (
    LOGIT_TOLERANCE,
    ROUGH_LOGITS,
    backbone_of,
    has_logits_apart,
    last_hidden_states,
    layer_list,
)
from skipviz.families.hooks import Hook, after, before, hooked
from skipviz.families.llama import states_given
from skipviz.families.powers import force, traits_of
from skipviz.models import SkipModel
from skipviz.recording.events import GateEvents
from skipviz.recording.tracing import drawing_from
from skipviz.traces import Trace

KEPT_BYTES = 512 * 2**20
"""Of hidden states, keys and values that are kept of a text; longer ones are run whole."""
KEPT_PREDICTIONS = 128 * 2**20
"""Bytes of predictions that are kept of a text; those of longer ones are made for each question."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Ran:
    """What a run from some layer and token gave.

    Attributes
    ----------
    matrices
        As of a trace, of the tokens that ran; of sites that did not, nothing.
    made
        Last hidden states of those tokens, or their logits.
    """

    matrices: dict[str, Any]
    made: Float[Tensor, "n d"]


@dataclass(frozen=True, eq=False, kw_only=True)
class KeptRun:
    """A run under the decisions of a trace.

    Attributes
    ----------
    ids
        The text.
    made
        Last hidden states, or logits where these cannot be made of hidden states.
    states
        What each layer was given; empty where nothing can be reused.
    cache
        Keys and values of every layer; None where nothing can be reused.
    predictions
        ``log_probabilities`` of all next tokens; None where they take too much.
    """

    ids: Int[Tensor, "1 t"]
    made: Float[Tensor, "t d"]
    states: list[Float[Tensor, "t d"]]
    cache: DynamicCache | None
    predictions: Float[Tensor, "t v"] | None

    @classmethod
    def of(
        cls, model: SkipModel, trace: Trace, *, each_layer: Callable[[], None] = lambda: None
    ) -> KeptRun:
        """Run a text again under the decisions that were made.

        Parameters
        ----------
        model, trace
            The model that was traced, and its trace.
        each_layer
            Called after each layer.

        Raises
        ------
        InputError
            If the model scores the text otherwise than the trace says.
        """
        ids = torch.tensor([trace.tokens["token_id"].to_list()], device=model.device)
        plan = Plan(trace.matrix("exec_count") > 0)
        states: list[Tensor] = []
        keeps = _can_resume(model, ids.shape[1])
        cache = DynamicCache() if keeps else None
        layers = list(layer_list(model.model) or ())
        hooks = [after(layer, lambda *_: each_layer()) for layer in layers]
        if keeps:
            hooks += [_keeping(layer, states) for layer in layers]
        ran = _run(model, ids, plan, trace, hooks=hooks, cache=cache)
        _check_same_model(model, trace, ran.matrices)
        predictions = None
        if (
            ids.shape[1] * int(model.model.config.get_text_config().vocab_size) * 4
            <= KEPT_PREDICTIONS
        ):
            predictions = log_probabilities(model, ran.made, apart=makes_states(model))
        kept = cls(ids=ids, made=ran.made, states=states, cache=cache, predictions=predictions)
        resumes = not keeps or kept._resumes_right(model, trace)
        return kept if resumes else replace(kept, states=[], cache=None)

    @property
    def can_resume(self) -> bool:
        """Whether a run may begin anywhere but at the start."""
        return self.cache is not None

    def run(
        self,
        model: SkipModel,
        trace: Trace,
        plan: Plan | None,
        *,
        layer: int = 0,
        token: int = 0,
        each_layer: Callable[[], None] = lambda: None,
    ) -> Ran:
        """Run the text under other decisions, from a layer and a token on.

        Parameters
        ----------
        model
            A handle on the same weights.
        trace
            The trace that this run is of.
        plan
            What is forced; None: nothing.
        layer, token
            Where to begin: all decisions of lower layers, and of tokens before, are as they were.
        each_layer
            Called after each layer.
        """
        hooks = [after(each, lambda *_: each_layer()) for each in layer_list(model.model) or ()]
        if plan is not None:
            forced = None if plan.forced is None else plan.forced[token:]
            plan = Plan(plan.execute[token:], forced)
        past = None
        if token and self.cache is not None:
            past = Cache(layers=[TextBefore(each, token) for each in self.cache.layers])
        given = self.states[layer][token:] if layer else None
        return _run(
            model, self.ids[:, token:], plan, trace, hooks=hooks, cache=past, begin=(layer, given)
        )

    def _resumes_right(self, model: SkipModel, trace: Trace) -> bool:
        """Return whether a run from the middle gives what the whole run gave, on this text."""
        layer, token = len(self.states) // 2, self.ids.shape[1] // 2
        plan = Plan(trace.matrix("exec_count") > 0)
        try:
            again = self.run(model, trace, plan, layer=layer, token=token)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
            return False  # its layers are called in another way
        above = trace.sites["layer"].to_numpy() >= layer
        scores = [
            torch.from_numpy(np.ascontiguousarray(each[:, above]))
            for each in (again.matrices["score"], trace.matrix("score")[token:])
        ]
        return _near(again.made, self.made[token:]) and _near(*scores)


def makes_states(model: SkipModel) -> bool:
    """Say whether runs of a model end in hidden states, which its head makes logits of."""
    return traits_of(model.family, model.model).in_backbone and has_logits_apart(model.model)


def _can_resume(model: SkipModel, tokens: int) -> bool:
    layers = layer_list(model.model)
    if layers is None or not traits_of(model.family, model.model).resumable:
        return False
    if not (has_logits_apart(model.model) and _name_of(model.model, layers)):
        return False
    width = int(model.model.config.get_text_config().hidden_size)
    # Keys and values take no more than hidden states do, each.
    held: int = 3 * len(layers) * tokens * width * model.model.dtype.itemsize
    return held <= KEPT_BYTES


def _name_of(model: Any, layers: nn.ModuleList) -> str | None:
    """Return what the backbone calls its list of layers, if it holds it itself."""
    parts = backbone_of(model)._modules.items()
    return next((name for name, part in parts if part is layers), None)


def _keeping(layer: nn.Module, states: list[Tensor]) -> Hook:
    def keep(_: nn.Module, args: Any, kwargs: Any) -> None:
        states.append(states_given(args, kwargs)[0])

    return before(layer, keep, with_kwargs=True)


class _Known(nn.Module):
    """Stands for a layer and returns known hidden states; in all else it is that layer."""

    def __init__(self, layer: nn.Module, states: Tensor) -> None:
        super().__init__()
        self.__dict__["known"] = (layer, states[None])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["known"][0], name)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        states: Tensor = self.__dict__["known"][1]
        return states


def _from_layer(model: Any, layer: int, states: Tensor) -> nn.Module:
    """Return the backbone with the layers below one replaced by what it was given."""
    backbone = backbone_of(model)
    layers = layer_list(model)
    if layers is None:
        raise InputError("This model's layers cannot be found.")
    known = [_Known(each, states) for each in layers[:layer]]
    shell = copy.copy(backbone)
    shell.__dict__["_modules"] = {
        **backbone._modules,
        str(_name_of(model, layers)): nn.ModuleList([*known, *layers[layer:]]),
    }
    return shell


def _run(
    model: SkipModel,
    ids: Int[Tensor, "1 n"],
    plan: Plan | None,
    trace: Trace,
    *,
    hooks: list[Hook],
    cache: Any = None,
    begin: tuple[int, Tensor | None] = (0, None),
) -> Ran:
    events = GateEvents()
    layer, given = begin
    family = model.family
    seed = trace.run["seed"].item() or 0
    apart = makes_states(model)
    forcing = nullcontext() if plan is None else force(family, model.model, plan, name=model.name)
    with drawing_from(seed), hooked(hooks), family.observe(model.model, events), forcing:
        if given is not None or cache is not None:
            whole = model.model
            backbone = backbone_of(whole) if given is None else _from_layer(whole, layer, given)
            made = backbone(ids, past_key_values=cache, use_cache=cache is not None)[0]
        elif apart:
            made = last_hidden_states(model.model, input_ids=ids)
        else:
            made = model.model(input_ids=ids, use_cache=False).logits
    everyone = torch.ones(ids.shape, dtype=torch.bool, device=ids.device)
    silent = layer > 0 or traits_of(family, model.model).silent
    return Ran(matrices=events.matrices(trace.sites.height, everyone, silent=silent), made=made[0])


def _near(found: Tensor, wanted: Tensor) -> bool:
    """Return whether numbers differ by no more than rounding."""
    known = wanted.isfinite() & found.isfinite()
    if not torch.equal(wanted.isfinite(), found.isfinite()):
        return False
    if not known.any():
        return True
    allowed = LOGIT_TOLERANCE.get(wanted.dtype, ROUGH_LOGITS)
    far = (found.to(wanted) - wanted)[known].abs().amax()
    return bool(far <= allowed * wanted[known].abs().amax().clamp(min=1.0))


def _check_same_model(model: SkipModel, trace: Trace, matrices: dict[str, Any]) -> None:
    """Raise ``InputError`` unless scores and thresholds are those of the trace."""
    rough = model.dtype not in ("float32", "float64")
    for name, allowed in (("score", 0.1 if rough else 1e-3), ("threshold", 1e-6)):
        was, now = trace.matrix(name), matrices[name]
        known = np.isfinite(was) & np.isfinite(now)
        if not known.any():
            continue
        far, largest = np.abs(was - now)[known].max(), np.abs(was[known]).max()
        if far > allowed * largest:
            raise InputError(
                f"The trace is of another model or setting: its {name}s lie up to {far:.3g} from "
                f"those of {model.name} as it is given. Give the model that was traced "
                f"({trace.run['model'].item()}), at the same budget, or trace the text again."
            )
