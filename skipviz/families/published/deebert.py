"""DeeBERT: a text leaves an encoder behind the first layer whose exit is sure of its class.

Xin et al., "DeeBERT: dynamic early exiting for accelerating BERT inference", 2004.12993; read from
the reference code (castorini/DeeBERT, ``transformers/modeling_highway_bert.py`` at 563eac1).
Behind every layer an exit, a *highway*, predicts the class. Where the entropy of its prediction is
below the threshold of its layer, the encoder raises an exception that carries the prediction, and
no further layer is called. So what ran is told by the calls of layers, and scores are the
entropies, computed of the exit's logits as the code does. A batch of several texts fails in the
reference code. A plan decides by the thresholds that the encoder looks up in
``early_exit_entropy``: for the thread that forces, the list has others.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from skipviz.families.base import EventSink, Plan
from skipviz.families.hooks import Hook, after, hooked
from skipviz.families.powers import Traits
from skipviz.families.published.sequence_exits import (
    OF_ENCODERS,
    asked,
    exit_sites,
    leaving_by_lot,
    one_exit,
    reached,
)
from skipviz.schema import Site


class DeeBERT:
    """Exits behind the layers of an encoder, by entropy."""

    name = "deebert"

    def detect(self, model: nn.Module) -> bool:
        """Say whether an encoder has a highway for each layer."""
        return _encoder(model) is not None

    def sites(self, model: nn.Module) -> list[Site]:
        """Return every layer behind the first; a high entropy goes on."""
        layers = len(_layers(model))
        return exit_sites(layers, rule="ge", polarity=1, scope="sequence")

    def layer_count(self, model: nn.Module) -> int:
        """Return the number of layers."""
        return len(_layers(model))

    def traits(self, model: nn.Module) -> Traits:
        """Return what holds of encoders."""
        return OF_ENCODERS

    def draw_plan(self, model: nn.Module, *, texts: int, tokens: int, seed: int) -> Plan:
        """Return a plan by which each text leaves somewhere, or at the end."""
        return leaving_by_lot(len(_layers(model)) - 1, texts=texts, tokens=tokens, seed=seed)

    @contextmanager
    def force(self, model: nn.Module, plan: Plan) -> Iterator[None]:
        """Have the text leave where ``plan`` says.

        Raises
        ------
        InputError
            If the plan has another number of sites, tokens that differ, or lets a text come back.
        """
        encoder: Any = _encoder(model)
        runs, forced = one_exit(plan, len(_layers(model)) - 1)
        limits = {
            layer: -math.inf if run else math.inf
            for layer, (run, here) in enumerate(zip(runs, forced, strict=True))
            if here
        }
        with _LOCK:
            natural = encoder.early_exit_entropy
            if not isinstance(natural, _Thresholds):
                encoder.early_exit_entropy = natural = _Thresholds(natural)
            natural.blocks += 1
        outer, natural.here.limits = natural.here.limits, {**natural.here.limits, **limits}
        try:
            yield
        finally:
            natural.here.limits = outer
            with _LOCK:
                natural.blocks -= 1
                if not natural.blocks:
                    encoder.early_exit_entropy = list(natural)

    @contextmanager
    def observe(self, model: nn.Module, sink: EventSink) -> Iterator[None]:
        """Tell which layers are reached, and what the exits before them found."""
        encoder: Any = _encoder(model)

        def ask(layer: int) -> Hook:
            def hook(_: nn.Module, args: Any, result: Any) -> None:
                # As it is for all, though a plan may look it up otherwise.
                limits = list(encoder.early_exit_entropy)
                limit = torch.as_tensor(float(limits[layer]))
                texts, tokens, _ = args[0][0].shape
                found = encoder.early_exit_entropy
                forced = isinstance(found, _Thresholds) and layer in found.here.limits
                shape = (texts, tokens)
                asked(sink, layer, entropy(result[0]), limit, shape=shape, forced=forced)

            return after(encoder.highway[layer], hook)

        # Behind the last layer there is nothing left to skip.
        exits = [ask(layer) for layer in range(len(encoder.highway) - 1)]
        with hooked([*reached(_layers(model), sink), *exits]):
            yield


class _Limits(threading.local):
    """The thresholds that a plan of this thread sets, by layer."""

    def __init__(self) -> None:
        self.limits: dict[int, float] = {}


class _Thresholds(list[float]):
    """The thresholds of an encoder, looked up otherwise in a thread that forces."""

    def __init__(self, natural: list[float]) -> None:
        super().__init__(natural)
        self.here = _Limits()
        self.blocks = 0

    def __getitem__(self, layer: Any) -> Any:
        return self.here.limits.get(layer, super().__getitem__(layer))


_LOCK = threading.Lock()


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy of predictions in nats, operation for operation as the code has it."""
    chances = torch.softmax(logits.detach(), dim=-1)
    return -torch.sum(chances * torch.log(chances), dim=-1)


def _encoder(model: nn.Module) -> nn.Module | None:
    for module in model.modules():
        highway, layers = getattr(module, "highway", None), getattr(module, "layer", None)
        if (
            isinstance(highway, nn.ModuleList)
            and isinstance(layers, nn.ModuleList)
            and hasattr(module, "early_exit_entropy")
            and len(highway) == len(layers) > 1
        ):
            return module
    return None


def _layers(model: nn.Module) -> list[nn.Module]:
    encoder: Any = _encoder(model)
    return list(encoder.layer)
