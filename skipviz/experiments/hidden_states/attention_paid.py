"""How much attention goes to tokens that skipped the layer, and what their keys and values give.

A token that runs a layer's attention reads keys and values of tokens that skipped it, where the
family computes them. The share of attention that goes there says how much they are looked at; the
loss with them hidden says what they are worth.

The first token of a text takes much of the attention whatever it is (Xiao et al., "Efficient
streaming language models with attention sinks", 2024), so it is counted apart and never hidden.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from skipviz.arrays import Floats, Ints
from skipviz.errors import InputError
from skipviz.experiments.hidden_states.states import (
    SAMPLED_TOKENS,
    check_decisions,
    sampled_tokens,
    trace_windows,
)
from skipviz.experiments.same_model import check_own_trace
from skipviz.families import Plan
from skipviz.families.hooks import Hook, after, before, hooked
from skipviz.families.llama import (
    attention_mix,
    attention_scores,
    decoder_layers,
    projected,
    states_given,
    states_made,
)
from skipviz.families.powers import CanFlip, force
from skipviz.models import SkipModel
from skipviz.models.runtimes import with_runtime
from skipviz.progress import Meter, Progress, no_progress
from skipviz.recording.events import GateEvents
from skipviz.recording.statistics import next_token_losses
from skipviz.traces import Trace

OUTPUT_TOLERANCE = {
    torch.float64: 1e-6,
    torch.float32: 1e-3,
    torch.bfloat16: 5e-2,
    torch.float16: 1e-2,
}
"""By how much of its length a token's attention output may differ; more in shorter types."""
QUERIES_AT_ONCE = 128
"""Tokens whose attention is there at once: 9 heads over 8,192 tokens are 38 MB."""
LAYERS = {
    "layer": pl.Int64,
    "tokens": pl.Int64,
    "first": pl.Float64,
    "own": pl.Float64,
    "earlier": pl.Float64,
    "paid": pl.Float64,
    "blind": pl.Float64,
    "changed": pl.Float64,
}
LOSSES = {
    "token": pl.Int64,
    "sequence": pl.Int64,
    "nll": pl.Float64,
    "hidden_nll": pl.Float64,
}


@dataclass(frozen=True, eq=False)
class AttentionPaid:
    """What tokens that ran attention saw of those that skipped it.

    Attributes
    ----------
    layers
        One row per layer whose attention some token ran and could have skipped: ``layer``;
        ``tokens`` that ran it, those that have two before them; the mean shares of their attention
        that go to the ``first`` token of the text, to their ``own`` and to all ``earlier`` ones
        between, summing to 1; ``paid``, the share of the last that goes to tokens that skipped
        this attention, and ``blind``, what it would be if attention looked at all earlier tokens
        alike, both 0 to 1, null without any; ``changed``, by how much attention's output would
        change with the keys and values of those that skipped it hidden, as a share of its length,
        the mean over tokens.
    losses
        One row per token whose next one is known: ``token``; ``sequence``, its text; ``nll``, its
        loss in nats, and ``hidden_nll``, that with the keys and values of skipping tokens hidden
        at every layer, all decisions held.
    """

    layers: pl.DataFrame
    losses: pl.DataFrame


def attention_paid(
    model: SkipModel,
    trace: Trace,
    *,
    most: int = SAMPLED_TOKENS,
    seed: int = 0,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> AttentionPaid:
    """Run the texts of a trace twice more, and return what keys and values of skipping tokens do.

    Parameters
    ----------
    model
        The model that was traced, at the same budget.
    trace
        Its trace.
    most
        Of how many tokens the attention is looked at; of a longer trace they are drawn. Losses are
        those of all tokens.
    seed
        Seed of the draw.
    progress
        Called with the share of the work done, 0 to 1.
    stop
        Set it from another thread to stop.

    Raises
    ------
    ValueError
        If no attention of the model can be skipped, the trace has no tokens, or the model decides
        otherwise than the trace says.
    Stopped
        If ``stop`` was set.
    """
    check_own_trace(model, trace)
    model = with_runtime(model, "masked")  # whose units can be taken apart
    gated = _gated_attention(model)
    if not len(trace):
        raise InputError("The trace has 0 tokens, so nothing attends to anything; trace a text.")
    kept = sampled_tokens(trace, most, seed=seed)
    sums = {layer: _Sums() for layer in gated}
    parts = [pl.DataFrame(schema=LOSSES)]
    windows = list(trace_windows(trace))
    sequence, decided = trace.tokens["sequence"].to_numpy(), trace.matrix("exec_count") > 0
    steps = len(windows) * 2 * len(decoder_layers(model.model))
    meter, otherwise = Meter(steps, progress, stop), 0
    with torch.inference_mode():
        for tokens, report in windows:
            wanted = np.isin(tokens, kept) & (np.arange(len(tokens)) >= max(report, 2))
            window = _Window.of(model, trace, tokens, report)
            executed, losses = window.run(sums, torch.from_numpy(wanted), gated, meter)
            otherwise += int((executed.numpy() != decided[tokens])[report:].sum())
            hidden = window.run_hidden(executed, gated, meter)
            columns = {
                "token": window.token,
                "sequence": sequence[window.token],
                "nll": losses,
                "hidden_nll": hidden,
            }
            parts.append(pl.DataFrame(columns, schema=LOSSES))
    check_decisions(trace, otherwise)
    rows = [{"layer": layer, **each.row()} for layer, each in sums.items() if each.tokens]
    return AttentionPaid(pl.DataFrame(rows, schema=LAYERS), pl.concat(parts))


def _gated_attention(model: SkipModel) -> dict[int, int]:
    """Return, for each layer whose attention can be skipped, the site that decides."""
    sites = model.family.sites(model.model)
    found = {s.layer: number for number, s in enumerate(sites) if s.unit in ("attn", "block")}
    if not found:
        raise InputError(
            f"No attention of {model.name} can be skipped, so there are no skipping tokens to "
            "attend to; give a model with gates on attention or on whole layers."
        )
    return found


@dataclass
class _Sums:
    """What is added up over the tokens of one layer."""

    tokens: int = 0
    first: float = 0.0
    own: float = 0.0
    earlier: float = 0.0
    paid: float = 0.0
    blind: float = 0.0
    changed: float = 0.0

    def row(self) -> dict[str, float | int | None]:
        means = {name: getattr(self, name) / self.tokens for name in ("first", "own", "earlier")}
        shares = {
            name: getattr(self, name) / self.earlier if self.earlier else None
            for name in ("paid", "blind")
        }
        changed = self.changed / self.tokens
        return {"tokens": self.tokens, **means, **shares, "changed": changed}


@dataclass(frozen=True, eq=False)
class _Window:
    """A stretch of a text that runs at once.

    Attributes
    ----------
    token
        Tokens whose losses are reported.
    rows
        Where they are in the window.
    targets
        What follows each.
    """

    model: SkipModel
    ids: Int[Tensor, "1 t"]
    token: Ints
    rows: Int[Tensor, " n"]
    targets: Int[Tensor, " n"]
    events: GateEvents = field(default_factory=GateEvents)

    @classmethod
    def of(cls, model: SkipModel, trace: Trace, tokens: Ints, report: int) -> _Window:
        ids, sequence = trace.tokens["token_id"].to_numpy(), trace.tokens["sequence"].to_numpy()
        inside = np.arange(report, len(tokens))
        follows = tokens[inside] + 1 < len(ids)
        after = np.minimum(tokens[inside] + 1, len(ids) - 1)
        rows = inside[follows & (sequence[after] == sequence[tokens[inside]])]
        return cls(
            model=model,
            ids=torch.from_numpy(ids[tokens])[None].to(model.device),
            token=tokens[rows],
            rows=torch.from_numpy(rows).to(model.device),
            targets=torch.from_numpy(ids[tokens[rows] + 1]).to(model.device),
        )

    def run(
        self,
        sums: dict[int, _Sums],
        wanted: Bool[Tensor, " t"],
        gated: dict[int, int],
        meter: Meter,
    ) -> tuple[Bool[Tensor, "t s"], Floats]:
        """Run as the gates decide, add to the sums, and return decisions and losses."""

        def look(layer: int) -> Callable[..., None]:
            def hook(attention: Any, args: Any, kwargs: Any, result: Any) -> None:
                ran = self.events.ran(gated[layer])[0].cpu()
                try:
                    _add(sums[layer], attention, args, kwargs, result, ran, wanted)
                except (AttributeError, KeyError, RuntimeError, TypeError) as error:
                    raise _not_taken_apart(self.model, attention) from error
                except _Differs as error:
                    raise _not_taken_apart(self.model, attention) from error

            return hook

        hooks = [
            after(attention, look(layer), with_kwargs=True)
            for layer, attention in _attentions(self.model)
            if layer in gated
        ]
        with (
            self.model.family.observe(self.model.model, self.events),
            hooked(hooks + _advancing(self.model, meter)),
        ):
            losses = self._losses()
        fired = [self.events.ran(site)[0] for site in range(len(self.events.firings))]
        return torch.stack(fired, dim=-1).cpu(), losses

    def run_hidden(
        self, executed: Bool[Tensor, "t s"], gated: dict[int, int], meter: Meter
    ) -> Floats:
        """Run with the same decisions and without keys of tokens that skip, and return losses."""

        def hide(layer: int) -> Callable[..., Any]:
            def hook(attention: Any, args: Any, kwargs: Any) -> Any:
                gone = _hideable(executed[:, gated[layer]])
                if not gone.any():
                    return None
                seen = _seen(kwargs.get("attention_mask"), torch.arange(len(gone)), len(gone))
                seen &= ~gone | torch.eye(len(gone), dtype=torch.bool)
                states = states_given(args, kwargs)
                # Numbers to add, which every implementation of attention takes.
                mask = torch.zeros(seen.shape, dtype=states.dtype)
                mask = mask.masked_fill_(~seen, torch.finfo(states.dtype).min)
                return args, kwargs | {"attention_mask": mask[None, None].to(states.device)}

            return hook

        hooks = [
            before(attention, hide(layer), with_kwargs=True)
            for layer, attention in _attentions(self.model)
            if layer in gated
        ]
        plan = Plan(executed.numpy())
        with (
            force(self.model.family, self.model.model, plan, name=self.model.name),
            hooked(hooks + _advancing(self.model, meter)),
        ):
            return self._losses()

    def _losses(self) -> Floats:
        output = self.model.model.model(input_ids=self.ids, use_cache=False)
        states = output.last_hidden_state[0, self.rows]
        if not len(states):
            return np.zeros(0)
        losses = next_token_losses(self.model.model, states, self.targets)
        found: Floats = losses.double().cpu().numpy()
        return found


def _attentions(model: SkipModel) -> Iterator[tuple[int, Any]]:
    family = model.family
    units = family.units(model.model) if isinstance(family, CanFlip) else []
    gated = {unit.layer: unit.dense for unit in units if unit.kind == "attn"}
    for layer, module in enumerate(decoder_layers(model.model)):
        yield layer, gated.get(layer, module.self_attn)


def _advancing(model: SkipModel, meter: Meter) -> list[Hook]:
    """Return hooks that say when a layer is done."""
    return [after(layer, lambda *_: meter.advance()) for layer in decoder_layers(model.model)]


def _hideable(ran: Bool[Tensor, " t"]) -> Bool[Tensor, " t"]:
    """Return which tokens of a window skipped, the first left out."""
    gone = ~ran
    gone[0] = False
    return gone


def _seen(mask: Tensor | None, rows: Int[Tensor, " n"], keys: int) -> Bool[Tensor, "n k"]:
    """Return which keys some tokens may see: those the model's mask lets through, or all before."""
    if mask is None:
        return rows[:, None] >= torch.arange(keys)
    rule = mask[0, 0, rows.to(mask.device), :keys].cpu()
    return rule if rule.dtype == torch.bool else rule >= 0


class _Differs(Exception):
    """Attention as computed here is not what the model's own module returned."""


def _not_taken_apart(model: SkipModel, attention: Any) -> InputError:
    return InputError(
        f"Attention paid cannot be measured in {model.name}: computed from queries, keys and "
        "values as Llama does, the output is not that of the model's own "
        f"{type(attention).__name__}."
    )


def _add(
    sums: _Sums,
    attention: Any,
    args: Any,
    kwargs: Any,
    result: Any,
    ran: Bool[Tensor, " t"],
    wanted: Bool[Tensor, " t"],
) -> None:
    """Add the attention of the wanted tokens that ran it to the sums of its layer."""
    states = states_given(args, kwargs)
    query, key, value = (
        part[0] for part in projected(attention, states, kwargs["position_embeddings"])
    )
    gone = _hideable(ran)
    places = torch.arange(len(ran))
    for rows in torch.nonzero(ran & wanted)[:, 0].split(QUERIES_AT_ONCE):
        if not len(rows):
            return
        # Nothing sees what comes later.
        keys = int(rows[-1]) + 1
        seen = _seen(kwargs.get("attention_mask"), rows, keys)
        scores = attention_scores(query[rows.to(states.device)], key[:keys], attention.scaling)
        device = scores.device
        weights = scores.masked_fill(~seen.to(device)[:, None], -torch.inf).softmax(-1)
        kept = seen & ~gone[:keys]
        left = scores.masked_fill(~kept.to(device)[:, None], -torch.inf).softmax(-1)
        before, after = (
            attention.o_proj(attention_mix(each, value[:keys]).to(states.dtype)).float()
            for each in (weights, left)
        )
        own_output = states_made(result)[0, rows.to(states.device)].float()
        far = (before - own_output).norm(dim=-1)
        if not (
            far <= OUTPUT_TOLERANCE[states.dtype] * own_output.norm(dim=-1).clamp_min(1e-3)
        ).all():
            raise _Differs
        change = (after - before).norm(dim=-1) / before.norm(dim=-1).clamp_min(1e-12)
        mean = weights.mean(1).double().cpu()
        own = mean.gather(1, rows[:, None])[:, 0]
        between = seen & (places[:keys] > 0) & (places[:keys] < rows[:, None])
        earlier = (mean * between).sum(1)
        share = (between & gone[:keys]).sum(1) / between.sum(1).clamp_min(1)
        sums.tokens += len(rows)
        sums.first += float(mean[:, 0].sum())
        sums.own += float(own.sum())
        sums.earlier += float(earlier.sum())
        sums.paid += float((mean * (between & gone[:keys])).sum())
        sums.blind += float((earlier * share).sum())
        sums.changed += float(change.double().sum())
