"""Models whose layers run several times for every token, as HRM-Text does: nothing is decided.

The configuration says how often, in words of each architecture's own. So a trial on a few tokens
counts the calls of each layer; only models whose lists of layers are not as long as their
configuration says, or that have modules of other code than that of transformers, are tried.
"""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from skipviz.errors import ModelError
from skipviz.families.base import EventSink
from skipviz.families.causal_lm import backbone_of, by_itself, layer_list, some_tokens
from skipviz.families.hooks import hooked
from skipviz.families.layer_calls import call_hooks, observing_calls
from skipviz.families.powers import Traits
from skipviz.schema import Site

_REPEATED: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


class Looped:
    """Layers that the model runs again and again."""

    name = "looped"

    def detect(self, model: nn.Module) -> bool:
        """Say whether a layer is called more than once in a forward; tried once per model."""
        if model not in _REPEATED:
            _REPEATED[model] = _may_repeat(model) and _repeats(model)
        return _REPEATED[model]

    def sites(self, model: nn.Module) -> list[Site]:
        """Return every layer once, stack after stack; how often it ran is counted."""
        return [
            Site(
                layer=layer,
                unit="block",
                rule="schedule",
                polarity=None,
                skip_path=None,
                kv=None,
                computed_anyway=False,
                scope="batch",
                gate_flops=0,
                skip_flops=None,
            )
            for layer in range(self.layer_count(model))
        ]

    def layer_count(self, model: nn.Module) -> int:
        """Return how many layers there are; a configuration may count their runs."""
        return len(_layers(model))

    def traits(self, model: nn.Module) -> Traits:
        """Return what holds of loops: how long they run may depend on the batch."""
        return Traits(batchable=False, in_backbone=True, decides=False)

    def observe(self, model: nn.Module, sink: EventSink) -> AbstractContextManager[None]:
        """Count how often each layer is called in a forward of the backbone."""
        return observing_calls(backbone_of(model), _layers(model), sink)


def _may_repeat(model: nn.Module) -> bool:
    """Return whether a model is worth a trial, which costs a forward."""
    try:
        known = layer_list(model) is not None
    except (AttributeError, ModelError):
        return False
    kinds = {type(module).__module__.partition(".")[0] for module in model.modules()}
    return bool(_layers(model)) and not (known and kinds <= {"torch", "transformers"})


def _repeats(model: nn.Module) -> bool:
    try:
        return bool(by_itself(_called_most, model) > 1)
    except Exception:  # whatever a model's own code raises; then nothing is known
        return False


def _called_most(model: Any) -> int:
    """Return how often the layer was called that was called most often in one forward."""
    calls: Counter[int] = Counter()
    with hooked(call_hooks(_layers(model), lambda layer, _: calls.update([layer]))):
        model(input_ids=some_tokens(model), use_cache=False)
    return max(calls.values(), default=0)


def _layers(model: nn.Module) -> list[nn.Module]:
    """Return what stands in lists that no other list holds: the layers of all stacks, in order."""
    found: list[nn.Module] = []
    inside: tuple[str, ...] = ()
    for name, module in backbone_of(model).named_modules():
        if isinstance(module, nn.ModuleList) and not name.startswith(inside or ("\0",)):
            inside = (*inside, f"{name}.")
            found += [each for each in module if _has_weights(each)]
    return found


def _has_weights(module: nn.Module) -> bool:
    """Return whether a part is more than one linear map or norm, as layers are."""
    return any(True for _ in module.children()) and any(True for _ in module.parameters())
