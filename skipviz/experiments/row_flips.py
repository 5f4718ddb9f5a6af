"""Flips of single decisions as rows that share forwards, in models of the Llama layout.

A flip changes its token's hidden state from its layer upward, and through keys and values that of
later tokens; nothing before it and nothing below it. So one run gives the hidden states and keys
of the unflipped text, and each flip only runs its own token (and, with a longer horizon, the next
few) through the layers above. Flips share forwards: a row is a flip, and a layer runs all rows
that have begun.

Residuals, norms and attention are done here, as Llama does them. ``trial`` tries that on each model
against its own forward before it is used.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from skipviz.families import Plan
from skipviz.families.hooks import after, before, hooked
from skipviz.families.llama import attend_after, decoder_layers
from skipviz.families.powers import SkippableUnit, force
from skipviz.models import SkipModel
from skipviz.progress import Meter, check_stop
from skipviz.recording.statistics import next_token_losses


@dataclass(frozen=True, eq=False)
class UnflippedRun:
    """The unflipped run: what every layer was given, its keys and values, decisions and losses."""

    entered: list[Float[Tensor, "t d"]]
    """Hidden states before each layer."""
    between: list[Float[Tensor, "t d"]]
    """Hidden states between attention and MLP."""
    keys: list[Float[Tensor, "h t c"]]
    values: list[Float[Tensor, "h t c"]]
    executed: Bool[Tensor, "t s"]
    rotary: tuple[Float[Tensor, "t c"], Float[Tensor, "t c"]]
    targets: Int[Tensor, " n"]
    nll: Float[Tensor, " n"]

    @classmethod
    def of(
        cls,
        model: SkipModel,
        ids: Int[Tensor, "1 t"],
        decided: npt.NDArray[np.bool_],
        *,
        stop: threading.Event | None = None,
    ) -> UnflippedRun:
        """Run a text under the decisions that were made, [tokens, sites]."""
        layers: Any = decoder_layers(model.model)
        entered: list[Tensor] = []
        between: list[Tensor] = []
        hooks = [after(layer, lambda *_: check_stop(stop)) for layer in layers]
        hooks += [
            before(norm, lambda _, args, kept=kept: kept.append(args[0][0]))
            for layer in layers
            for norm, kept in (
                (layer.input_layernorm, entered),
                (layer.post_attention_layernorm, between),
            )
        ]
        with force(model.family, model.model, Plan(decided), name=model.name), hooked(hooks):
            result = model.model.model(ids, use_cache=True)
        positions = torch.arange(ids.shape[1], device=model.device)[None]
        cosine, sine = model.model.model.rotary_emb(entered[0][None], positions)
        cache = result.past_key_values
        targets = ids[0, 1:]
        return cls(
            entered=entered,
            between=between,
            keys=[layer.keys[0] for layer in cache.layers],
            values=[layer.values[0] for layer in cache.layers],
            executed=torch.from_numpy(decided).to(model.device),
            rotary=(cosine[0], sine[0]),
            targets=targets,
            nll=next_token_losses(model.model, result.last_hidden_state[0, :-1], targets),
        )


class RowFlips:
    """Runs some flips through the layers, from the lowest one upward.

    Parameters
    ----------
    model
        A causal LM of the Llama layout.
    units
        Its gated units, in running order.
    base
        The unflipped run.
    cells
        (token, site) of each flip, in order of site.
    reach
        Tokens that each flip runs, its own first.
    react
        Whether gates above may decide anew.
    """

    def __init__(
        self,
        model: Any,
        units: Sequence[SkippableUnit],
        base: UnflippedRun,
        cells: Sequence[tuple[int, int]],
        reach: int,
        *,
        react: bool,
    ) -> None:
        self._model = model
        self._gated: dict[tuple[int, str], tuple[int, SkippableUnit]] = {
            (each.layer, each.kind): (site, each) for site, each in enumerate(units)
        }
        self._base = base
        self._react = react
        device = base.executed.device
        self._site = torch.tensor([site for _, site in cells])
        first = torch.tensor([token for token, _ in cells], device=device)
        length = len(base.targets)
        reach = min(reach, length - int(first.min()))
        self._first = first
        # Rows near the end of the text run a token twice; the second is not counted.
        self._token = (first[:, None] + torch.arange(reach, device=device)).clamp(max=length - 1)
        self._counts = first[:, None] + torch.arange(reach, device=device) < length
        self._state = base.entered[0].new_empty(len(cells), reach, base.entered[0].shape[-1])
        self.margins = self._state.new_full((len(cells), len(units)), torch.inf)
        """How near each later gate that decided anew came to its threshold; infinity for others."""

    def run(self, meter: Meter) -> Float[Tensor, " r"]:
        """Return the loss of each flip over its horizon, in nats; each unit is counted as done."""
        base, begun = self._base, 0
        layers: Any = decoder_layers(self._model)
        for number, layer in enumerate(layers):
            for kind, module, norm, entering in (
                ("attn", layer.self_attn, layer.input_layernorm, base.entered),
                ("mlp", layer.mlp, layer.post_attention_layernorm, base.between),
            ):
                site, gated = self._gated.get((number, kind), (-1, None))
                starts = int((self._site == site).sum())
                flips = slice(begun, begun + starts)
                self._state[flips] = entering[number][self._token[flips]]
                begun += starts
                if not begun:
                    continue
                normed = norm(self._state[:begun])
                execute = self._decided(site, gated, normed, flips)
                unit = gated.dense if gated else module
                output = torch.empty_like(normed)
                if kind == "mlp":
                    output[execute] = unit(normed[execute])
                elif execute.any():
                    output[execute] = self._attended(unit, normed, execute, number)
                if gated:
                    output[~execute] = gated.adapter(normed[~execute])
                self._state[:begun] += output
                meter.advance(begun * self._token.shape[1])
        losses = self._state.new_zeros(self._token.shape)
        counted = self._counts
        losses[counted] = next_token_losses(
            self._model,
            self._model.model.norm(self._state[counted]),
            base.targets[self._token[counted]],
        )
        return losses.double().sum(1)

    def _decided(
        self,
        site: int,
        gated: SkippableUnit | None,
        normed: Float[Tensor, "r k d"],
        flips: slice,
    ) -> Bool[Tensor, "r k"]:
        """Return where a unit runs, of all rows that have begun; those of ``flips`` begin here."""
        if gated is None:
            return torch.ones(normed.shape[:2], dtype=torch.bool, device=normed.device)
        execute = self._base.executed[self._token[: len(normed)], site]
        if self._react and flips.start and gated.looks:
            score = gated.gate(normed[: flips.start])
            execute[: flips.start] = score > gated.decide.threshold
            self._note(site, score - gated.decide.threshold)
        execute[flips, 0] = ~execute[flips, 0]
        return execute

    def _note(self, site: int, margin: Float[Tensor, "r k"]) -> None:
        rows = len(margin)
        counted = margin.abs().masked_fill(~self._counts[:rows], torch.inf)
        self.margins[:rows, site] = counted.amin(1).to(self.margins)

    def _attended(
        self, unit: Any, normed: Float[Tensor, "r k d"], execute: Bool[Tensor, "r k"], layer: int
    ) -> Float[Tensor, "n d"]:
        """Return attention's output for the tokens that execute it."""
        base = self._base
        # Keys of tokens that skip are still seen by the next ones of their row.
        rows = execute.any(1)
        token = self._token[: len(normed)][rows]
        return attend_after(
            unit,
            normed[rows],
            rotary=(base.rotary[0][token], base.rotary[1][token]),
            text=(base.keys[layer], base.values[layer]),
            first=self._first[: len(normed)][rows],
            wanted=execute[rows],
        )


def rows_run(
    cells: Sequence[tuple[int, int]],
    units: Sequence[SkippableUnit],
    *,
    layers: int,
    length: int,
    reach: int,
) -> int:
    """Return how many rows some flips run, summed over the units of all layers.

    Parameters
    ----------
    cells
        (token, site) of each flip.
    units
        The gated units.
    layers, length
        Of the model, and tokens of the text that predict one.
    reach
        Tokens that each flip runs, at most.
    """
    begins = [2 * units[site].layer + (units[site].kind == "mlp") for _, site in cells]
    tokens = min(reach, length - min(token for token, _ in cells))
    return tokens * sum(2 * layers - begin for begin in begins)
