"""LayerSkip: the first layers of a model draft tokens, and all its layers verify them.

Elhoushi et al., "LayerSkip: enabling early exit inference and self-speculative decoding",
2404.16710, in the form of transformers' ``generate(assistant_early_exit=E)``; read from
``generation/candidate_generator.py`` (``EarlyExitCandidateGenerator``) and ``generation/utils.py``
(``_assisted_decoding``) of transformers 5.23.0. To draft, it sets the number of layers in the
configuration to E, so that norm and head follow on layer E - 1; drafts have a cache of their own.
Then one forward of all layers verifies the drafts, and those behind the first that is wrong are
rejected. What is written is what plain decoding writes.

Any causal LM of transformers can be run so, and one that is given a text runs all its layers. So
no model is recognised by itself: the family is given to ``from_parts``, for ``record`` alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from skipviz.errors import InputError
from skipviz.families.base import EventSink
from skipviz.families.causal_lm import backbone_of, layer_list
from skipviz.families.hooks import hooked
from skipviz.families.layer_calls import call_hooks
from skipviz.families.llama import states_made
from skipviz.families.powers import Place, Traits
from skipviz.schema import Site

DRAFT, VERIFY = 0, 1
"""The visits of a layer."""


class LayerSkip:
    """Drafts by the first layers, verified by all.

    Examples
    --------
    >>> from skipviz.families.published.layer_skip import LayerSkip
    >>> mine = skipviz.from_parts(dense.model, dense.tokenizer, family=LayerSkip())
    >>> inputs = mine.tokenizer("The quick brown", return_tensors="pt")
    >>> with skipviz.record(mine) as recording:
    ...     _ = mine.model.generate(**inputs, assistant_early_exit=2, max_new_tokens=6)
    >>> recording.trace.tokens["phase"].unique().sort().to_list()
    ['decode', 'draft', 'prefill']
    """

    name = "layerskip"

    def detect(self, model: nn.Module) -> bool:
        """Say whether the model can be run so: its layers are one list."""
        try:
            return layer_list(model) is not None and hasattr(model, "generate")
        except AttributeError:
            return False

    def sites(self, model: nn.Module) -> list[Site]:
        """Return every layer twice: as it drafts, and as it verifies."""
        return [
            Site(
                layer=layer,
                unit="block",
                visit=visit,
                rule="schedule",
                polarity=None,
                skip_path="identity",
                kv="absent",
                computed_anyway=False,
                scope="batch",
            )
            for visit in (DRAFT, VERIFY)
            for layer in range(len(_layers(model)))
        ]

    def places(self, model: nn.Module) -> list[Place]:
        """Return the module of each layer, for both visits."""
        return [Place(each, around=each) for _ in (DRAFT, VERIFY) for each in _layers(model)]

    def layer_count(self, model: nn.Module) -> int:
        """Return the number of layers; the configuration has fewer while it drafts."""
        return len(_layers(model))

    def traits(self, model: nn.Module) -> Traits:
        """Return what holds of drafts: there are none but where a text is written."""
        return Traits(batchable=False, in_backbone=True, silent=True, drafts=True)

    @contextmanager
    def observe(self, model: nn.Module, sink: EventSink) -> Iterator[None]:
        """Tell of each layer that it ran, and whether it drafted."""
        layers, config = _layers(model), _configuration_of(model)

        def tell(layer: int, result: Any) -> None:
            states = states_made(result)
            drafts = int(config.num_hidden_layers) < len(layers)
            site = (DRAFT if drafts else VERIFY) * len(layers) + layer
            ran = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
            sink.on_gate(site, ran=ran)

        with hooked(call_hooks(layers, tell)):
            yield


def _configuration_of(model: Any) -> Any:
    """Return what drafting sets the number of layers in."""
    return getattr(backbone_of(model), "config", model.config)


def _layers(model: nn.Module) -> list[nn.Module]:
    found = layer_list(model)
    if found is None:
        raise InputError(
            f"The layers of {type(model).__name__} are not one list as long as its configuration "
            "says, so it cannot draft with the first of them."
        )
    return list(found)
