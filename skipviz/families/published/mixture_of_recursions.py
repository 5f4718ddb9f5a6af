"""Mixture-of-Recursions: a few shared layers that run again for some of the tokens.

Bae et al., "Mixture-of-Recursions", 2507.10524; read from the reference code
(raymin0223/mixture_of_recursions, ``model/mor_model/expert_choice_router.py`` at 82c97f2; the files
beside it from a copy, anxi710/mixture_of_recursions at 9ae22b7 and 8ca2f12). Each recursion is a
visit of the shared layers, and all of them share its decision. Recursions have layer modules of
their own, whose weights are tied.

*Expert choice*: every recursion has a router, which ranks the tokens that the one before took; the
k highest run. *Token choice*: one router says for each token after how many recursions it stops;
all run the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from skipviz.families.base import EventSink
from skipviz.families.described.reading import between
from skipviz.families.hooks import Hook, after, hooked
from skipviz.families.powers import Place, Traits
from skipviz.schema import Site


class MixtureOfRecursions:
    """Shared layers that tokens visit again and again."""

    name = "mixture-of-recursions"

    def detect(self, model: nn.Module) -> bool:
        """Say whether layers are recursions with a router."""
        return bool(_recursions(model))

    def sites(self, model: nn.Module) -> list[Site]:
        """Return the shared layers of each recursion, in running order."""
        first = _first_shared(model)
        return [
            Site(
                layer=first + number,
                unit="block",
                visit=each.visit,
                rule="topk" if each.router.mor_type == "expert" else "argmax",
                polarity=1,
                skip_path="identity",
                kv="shared" if _shares_keys(each.router) else "absent",
                # With shared keys and values each recursion runs whole, and some of it is taken.
                computed_anyway=_shares_keys(each.router),
                scope="token",
                gate_flops=None,
            )
            for each in _recursions(model)
            for number in range(len(each.layers))
        ]

    def layer_count(self, model: nn.Module) -> int:
        """Return the number of layers, shared ones once; the configuration counts their visits."""
        every = _recursions(model)
        routers = {id(each.router) for each in every}
        return len(_layers(model)) - len(routers) + len(every[0].layers)

    def places(self, model: nn.Module) -> list[Place]:
        """Return the module of each visit; of expert choice a recursion's own states around it."""
        return [
            Place(layer, around=each.router if each.router.mor_type == "expert" else None)
            for each in _recursions(model)
            for layer in each.layers
        ]

    def traits(self, model: nn.Module) -> Traits:
        """Return what holds: how many are taken depends on the length of the longest text."""
        return Traits(batchable=False, in_backbone=True)

    @contextmanager
    def observe(self, model: nn.Module, sink: EventSink) -> Iterator[None]:
        """Tell which tokens each recursion takes, as it returns them, by the scores of its router.

        Of token choice, which returns no decisions, they are made of the scores as the code does.
        """
        every, scores = _recursions(model), _LastScores()
        hooks: list[Hook] = []
        for router in {id(each.router): each.router for each in every}.values():
            mine = [each for each in every if each.router is router]
            hooks.append(after(router.mor_router, scores.keep))
            tell = _tell_expert if router.mor_type == "expert" else _tell_token
            hooks.append(after(router, _Teller(tell, mine, scores, sink), with_kwargs=True))
        with hooked(hooks):
            yield


@dataclass(frozen=True, eq=False)
class _Recursion:
    """One visit of the shared layers."""

    visit: int
    router: Any
    layers: list[nn.Module]

    @property
    def sites(self) -> range:
        return range(self.visit * len(self.layers), (self.visit + 1) * len(self.layers))


class _LastScores:
    """What the router that fired last emitted."""

    emitted: Tensor

    def keep(self, module: nn.Module, args: Any, result: Tensor) -> None:
        self.emitted = result.detach()


@dataclass(frozen=True, eq=False)
class _Teller:
    """Tells a sink what a module that routes has just decided."""

    tell: Any
    recursions: list[_Recursion]
    scores: _LastScores
    sink: EventSink

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        self.tell(self.recursions, self.scores.emitted, kwargs, result, self.sink)


def _tell_expert(
    recursions: list[_Recursion],
    emitted: Float[Tensor, "b n 1"],
    kwargs: dict[str, Any],
    result: Any,
    sink: EventSink,
) -> None:
    (recursion,) = recursions
    # Places in the text, of those that were asked and of those that are taken.
    asked: Tensor | None = kwargs.get("prev_selected_tokens")
    taken: Int[Tensor, "b k"] = result.selected_tokens[..., 0]
    score = emitted[..., 0]
    places = torch.arange(score.shape[1], device=score.device).expand(score.shape)
    if asked is not None:
        places = asked[..., 0]
    ran = (places[:, :, None] == taken[:, None, :]).any(-1)
    for site in recursion.sites:
        sink.on_gate(site, ran=ran, score=score, threshold=between(score, ran), positions=places)


def _tell_token(
    recursions: list[_Recursion],
    emitted: Float[Tensor, "b t r"],
    kwargs: dict[str, Any],
    result: Any,
    sink: EventSink,
) -> None:
    compared = _compared(recursions[0].router, emitted)
    last: Int[Tensor, "b t"] = compared.topk(1, dim=-1, sorted=False).indices[..., 0]
    for recursion in recursions:
        visit = recursion.visit
        # To go on is worth more than to have stopped; nothing decides on the first recursion.
        score = compared[..., visit:].amax(-1) - compared[..., :visit].amax(-1) if visit else None
        limit = None if score is None else torch.zeros((), device=score.device)
        for site in recursion.sites:
            sink.on_gate(site, ran=last >= visit, score=score, threshold=limit)


def _compared(router: Any, emitted: Float[Tensor, "b t r"]) -> Float[Tensor, "b t r"]:
    """Return what the code takes the largest of, to the last bit: ties are its own."""
    settings = router.cfg.mor.token
    if settings.get("router_func") == "sigmoid":
        chances = torch.sigmoid(emitted) * settings.get("alpha", 0.1)
    else:
        chances = emitted.softmax(dim=-1) * settings.get("alpha", 1.0)
    if settings.balancing == "loss_free":
        chances = chances + router.router_bias
    found: Tensor = chances
    return found


def _recursions(model: nn.Module) -> list[_Recursion]:
    """Return every visit, in running order; none if the model is of another kind."""
    found: list[_Recursion] = []
    for module in _layers(model):
        if not getattr(module, "mor", False) or not hasattr(module, "mor_router"):
            continue
        kind = getattr(module, "mor_type", None)
        blocks = [module.block] if kind == "expert" else []
        blocks = list(module.block_list) if kind == "token" else blocks
        for block in blocks:
            found.append(_Recursion(len(found), module, list(block)))
    return found


def _layers(model: Any) -> list[Any]:
    layers = getattr(getattr(model, "model", None), "layers", None)
    return list(layers) if isinstance(layers, nn.ModuleList) else []


def _first_shared(model: nn.Module) -> int:
    """Return how many layers stand before the shared ones."""
    return _layers(model).index(_recursions(model)[0].router)


def _shares_keys(router: Any) -> bool:
    sharing = router.cfg.get("kv_sharing")
    return bool(sharing is not None and sharing.get("enable"))
