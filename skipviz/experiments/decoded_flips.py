"""Flips of single decisions by the model's own forward, as in decoding; for any architecture.

The flips of one token run as a batch: the token, and with a longer horizon those after it, follow
the keys and values of the unflipped text before it, with all decisions forced but those that may
react. Every layer runs, also below a flip, so it takes longer than ``row_flips``, but nothing of a
layer is done here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from skipviz.families import Plan
from skipviz.families.causal_lm import backbone_of, layer_list
from skipviz.families.hooks import Hook, after, before, hooked
from skipviz.families.powers import SkippableUnit, force
from skipviz.models import SkipModel
from skipviz.progress import Meter, check_stop
from skipviz.recording.statistics import next_token_losses

BATCH_BYTES = 256 << 20
"""Of a layer's keys and values, copied for every flip of a batch."""


@dataclass(frozen=True, eq=False)
class CachedRun:
    """The unflipped run: keys and values of every layer, decisions and losses."""

    ids: Int[Tensor, "1 t"]
    decided: npt.NDArray[np.bool_]
    cache: DynamicCache
    nll: Float[Tensor, " n"]

    @classmethod
    def of(
        cls,
        model: SkipModel,
        ids: Int[Tensor, "1 t"],
        decided: npt.NDArray[np.bool_],
        *,
        stop: threading.Event | None = None,
    ) -> CachedRun:
        """Run a text under the decisions that were made, [tokens, sites]."""
        cache = DynamicCache()  # whole, also where a layer sees a window
        layers = layer_list(model.model) or ()
        with (
            force(model.family, model.model, Plan(decided), name=model.name),
            hooked(after(layer, lambda *_: check_stop(stop)) for layer in layers),
        ):
            states = backbone_of(model.model)(ids, past_key_values=cache, use_cache=True)[0]
        return cls(
            ids=ids,
            decided=decided,
            cache=cache,
            nll=next_token_losses(model.model, states[0, :-1], ids[0, 1:]),
        )


def decoded_flips(
    model: SkipModel,
    units: Sequence[SkippableUnit],
    base: CachedRun,
    cells: Sequence[tuple[int, int]],
    reach: int,
    *,
    react: bool,
    meter: Meter,
) -> tuple[Float[Tensor, " r"], Float[Tensor, "r s"]]:
    """Return the loss of each flip over its horizon, in nats, and how near later gates came.

    Parameters
    ----------
    model
        The gated model.
    units
        Its gated units, in running order.
    base
        The unflipped run.
    cells
        (token, site) of each flip.
    reach
        How many next-token predictions count, at most.
    react
        Whether gates above a flip may decide anew.
    meter
        Counts the flips that are done.
    """
    losses = torch.zeros(len(cells), dtype=torch.float64)
    margins = torch.full((len(cells), len(units)), torch.inf)
    tokens = np.array([token for token, _ in cells])
    for token in np.unique(tokens):
        places = np.flatnonzero(tokens == token)
        for part in np.array_split(places, _parts(base, int(token), len(places))):
            sites = [cells[place][1] for place in part]
            near: list[Tensor] = []
            noting = hooked(_noting(units, near) if react else [])
            with _advancing(model, meter, flips=len(sites)), noting:
                found = _flipped(model, units, base, int(token), sites, reach, react=react)
            losses[part] = found.double().cpu()
            if near:
                later = torch.arange(len(units)) > torch.tensor(sites)[:, None]
                looks = torch.tensor([unit.looks for unit in units])
                seen = torch.stack(near, dim=1).float().cpu()
                margins[part] = seen.masked_fill(~(later & looks), torch.inf)
    return losses, margins


def _noting(units: Sequence[SkippableUnit], near: list[Tensor]) -> Iterator[Hook]:
    """Return hooks that note how near each row's scores come to the threshold, site by site."""

    def note(decide: Any, args: Any) -> None:
        near.append((args[0] - decide.threshold).abs().amin(1))

    return (before(unit.decide, note) for unit in units)


def rescored(
    model: SkipModel, units: Sequence[SkippableUnit], base: CachedRun, token: int
) -> Float[Tensor, " s"]:
    """Return a token's scores when it runs alone after the text before it, decisions as made.

    They differ from those of the whole text by rounding only.
    """
    scores: list[Tensor] = []
    hooks = [before(unit.decide, lambda _, args: scores.append(args[0][0, 0])) for unit in units]
    cache = Cache(layers=[TextBefore(layer, token) for layer in base.cache.layers])
    plan = Plan(base.decided[token : token + 1])
    with force(model.family, model.model, plan, name=model.name), hooked(hooks):
        ids = base.ids[:, token : token + 1]
        backbone_of(model.model)(ids, past_key_values=cache, use_cache=True)
    return torch.stack(scores)


def _advancing(model: SkipModel, meter: Meter, *, flips: int) -> AbstractContextManager[None]:
    """Count some flips layer by layer."""
    layers = list(layer_list(model.model) or [backbone_of(model.model)])
    return hooked(after(layer, lambda *_: meter.advance(flips / len(layers))) for layer in layers)


def _parts(base: CachedRun, token: int, flips: int) -> int:
    layer: Any = base.cache.layers[0]
    keys: Tensor = layer.keys
    copied = 2 * keys[:, :, : max(token, 1)].nbytes * flips
    return int(min(flips, 1 + copied // BATCH_BYTES))


def _flipped(
    model: SkipModel,
    units: Sequence[SkippableUnit],
    base: CachedRun,
    token: int,
    sites: list[int],
    reach: int,
    *,
    react: bool,
) -> Float[Tensor, " r"]:
    """Return the losses of one token's flips."""
    stop = min(token + reach, base.ids.shape[1] - 1)
    execute = np.repeat(base.decided[None, token:stop], len(sites), axis=0)
    rows = np.arange(len(sites))
    execute[rows, 0, sites] = ~execute[rows, 0, sites]
    held = np.ones_like(execute)
    if react:
        looks = np.array([unit.looks for unit in units])
        held &= (np.arange(len(units)) <= np.array(sites)[:, None])[:, None] | ~looks
    ids = base.ids[:, token:stop].expand(len(sites), -1)
    targets = base.ids[0, token + 1 : stop + 1].repeat(len(sites))
    cache = Cache(layers=[TextBefore(layer, token) for layer in base.cache.layers])
    with force(model.family, model.model, Plan(execute, held), name=model.name):
        states = backbone_of(model.model)(ids, past_key_values=cache, use_cache=True)[0]
    losses = next_token_losses(model.model, states.flatten(0, 1), targets)
    return losses.view(len(sites), -1).double().sum(1)


class TextBefore(DynamicLayer):  # type: ignore[no-untyped-call]
    """A layer's keys and values of the text before a token, for every row; nothing is added."""

    def __init__(self, layer: Any, token: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(layer.keys, layer.values)
        self.keys, self.values = layer.keys[:, :, :token], layer.values[:, :, :token]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return them with those of the tokens that follow."""
        rows = len(key_states)
        keys: Any = self.keys
        values: Any = self.values
        return (
            torch.cat([keys.expand(rows, -1, -1, -1), key_states], dim=-2),
            torch.cat([values.expand(rows, -1, -1, -1), value_states], dim=-2),
        )
