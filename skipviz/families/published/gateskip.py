"""GateSkip: a gate on what attention or MLP gives; the tokens it lets through least skip the unit.

Laitenberger et al., "GateSkip", 2510.13876; read from the reference code (Thiggel/GateSkip,
``experiment/models/gating/GatedWrapper.py`` at 17a0bd5, ``experiment/utils/threshold_finder.py`` at
3dc3280). The mean of a gate's values is a token's importance. Those at or under a quantile of the
importances of all tokens of the batch, padding and ends of texts apart, get zeros instead of the
unit's output. The unit is computed for all of them. Keys and values stay; where a cache of an older
transformers is given, the code copies those of the layer below.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from skipviz.errors import InputError
from skipviz.families.base import EventSink, Plan
from skipviz.families.hooks import Hook, after, forced_now, forcing, hooked
from skipviz.families.llama import states_made
from skipviz.families.plan_run import PlanRun
from skipviz.schema import Site, Unit


class GateSkip:
    """Gates around attention and MLPs that rank the tokens of a batch."""

    name = "gateskip"

    def detect(self, model: nn.Module) -> bool:
        """Say whether attention or MLPs are wrapped with such a gate."""
        return bool(_wrapped(model))

    def sites(self, model: nn.Module) -> list[Site]:
        """Return every wrapped unit."""
        return [
            Site(
                layer=each.layer_idx,
                unit=_unit(each),
                rule="sample" if each.config.randomly_skip else "quantile",
                polarity=1,
                skip_path="zero",
                kv="computed",
                # What it does where it gathers depends on how many tokens skip.
                computed_anyway=None if getattr(each.config, "physically_skip", False) else True,
                scope="token",
                gate_flops=None,
            )
            for each in _wrapped(model)
        ]

    @contextmanager
    def force(self, model: nn.Module, plan: Plan) -> Iterator[None]:
        """Give or withhold the output of units where ``plan`` says.

        A unit is computed for every token, so what it gives is at hand. Importances and thresholds
        stay as they are.

        Raises
        ------
        InputError
            If units are run for some tokens alone (``physically_skip``); or the plan has another
            number of sites or fewer tokens than the model is given.
        """
        wrapped = _wrapped(model)
        if any(getattr(each.config, "physically_skip", False) for each in wrapped):
            raise InputError(
                "With physically_skip a unit is not computed for tokens that skip it; set it to "
                "False to force decisions."
            )
        if plan.execute.shape[-1] != len(wrapped):
            raise InputError(
                f"The plan decides {plan.execute.shape[-1]} sites; the model has {len(wrapped)}."
            )
        run = PlanRun.of(plan, device=next(model.parameters()).device)
        made: dict[int, Tensor] = {}

        def keep(site: int) -> Any:
            def hook(_: nn.Module, args: Any, result: Any) -> None:
                made[site] = states_made(result)

            return hook

        def override(site: int) -> Any:
            def hook(wrapper: Any, args: Any, result: Any) -> Any:
                natural = wrapper.current_token_importance > float(wrapper.threshold)
                wanted = run.apply(wrapper, site, natural, last=site == len(wrapped) - 1)
                _DECIDED.runs[id(wrapper)] = wanted
                given = wrapper.current_gate_value * made.pop(site)
                main = torch.where(wanted[..., None], given, torch.zeros_like(given))
                return (main, *result[1:]) if isinstance(result, tuple) else main

            return hook

        parts = [after(each.module, keep(site)) for site, each in enumerate(wrapped)]
        hooks = [(each, override(site)) for site, each in enumerate(wrapped)]
        try:
            with hooked(parts), forcing(run, hooks):
                yield
        finally:
            _DECIDED.runs.clear()

    @contextmanager
    def observe(self, model: nn.Module, sink: EventSink) -> Iterator[None]:
        """Tell the importances that a wrapper has kept, and the threshold that they make."""

        def tell(site: int) -> Any:
            def hook(wrapper: Any, args: Any, result: Any) -> None:
                importance = wrapper.current_token_importance.detach()
                limit = float(wrapper.threshold)
                # Minus infinity: nothing is to be skipped.
                compared = torch.as_tensor(limit) if math.isfinite(limit) else None
                forced = forced_now(wrapper)
                ran = importance > limit if forced is None else _DECIDED.runs[id(wrapper)]
                sink.on_gate(site, ran=ran, score=importance, threshold=compared, forced=forced)

            return hook

        hooks: list[Hook] = [after(each, tell(site)) for site, each in enumerate(_wrapped(model))]
        with hooked(hooks):
            yield


class _Decided(threading.local):
    """What a plan of this thread decided last at each wrapper."""

    def __init__(self) -> None:
        self.runs: dict[int, Tensor] = {}


_DECIDED = _Decided()


def _wrapped(model: nn.Module) -> list[Any]:
    """Return the wrappers by layer, attention before MLP."""
    found: list[Any] = [
        module
        for module in model.modules()
        if hasattr(module, "current_token_importance") and hasattr(module, "current_gate_value")
    ]
    return sorted(found, key=lambda each: (each.layer_idx, _unit(each)))


def _unit(wrapper: Any) -> Unit:
    return "attn" if "attn" in wrapper.module_name else "mlp"
