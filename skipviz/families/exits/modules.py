"""Early exits: tokens may leave after some layers, and the layers above no longer change them.

At an exit a low-rank translator turns the hidden state into an estimate of the last one (the tuned
lens of Belrose et al., "Eliciting latent predictions from transformers with the tuned lens",
2023), and a rule looks at the prediction it gives (Schuster et al., "Confident adaptive language
modeling", 2022). A token that leaves is predicted from its translated state. Its untranslated
state stays as it was, and the layers above compute keys and values from it, so that later tokens
have something to attend to: the keys and values are propagated.

A head over a large vocabulary costs as much as several layers, so rules read it through its leading
directions. The prediction of a token that leaves goes through the whole head, once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from skipviz.errors import InputError
from skipviz.families.freezing import freeze
from skipviz.families.llama import decoder_layers, states_given, stay_on_layers
from skipviz.families.thread_state import ThreadState
from skipviz.families.weights import weights_identity

ExitRule = Literal["confidence", "entropy", "patience"]
EXIT_RULES: tuple[ExitRule, ...] = ("confidence", "entropy", "patience")


@dataclass(frozen=True, kw_only=True)
class ExitConfig:
    """Shape of the exits of one model.

    Attributes
    ----------
    exits
        Layers after which a token may leave, ascending.
    adapter_rank
        Rank of the translators.
    head_rank
        How many directions of the shared head the rules read.
    """

    exits: tuple[int, ...]
    adapter_rank: int
    head_rank: int

    def __post_init__(self) -> None:
        if not self.exits or list(self.exits) != sorted(set(self.exits)) or self.exits[0] < 0:
            raise InputError(f"exits={self.exits} must be layers in ascending order, as (9, 14).")
        if self.adapter_rank < 1 or self.head_rank < 1:
            raise InputError(
                f"adapter_rank={self.adapter_rank} and head_rank={self.head_rank} must be at "
                "least 1."
            )


class Translator(nn.Module):
    """Maps a layer's hidden state to an estimate of the last layer's.

    Parameters
    ----------
    width
        Width of the hidden state.
    rank
        Rank of what is added to it.
    """

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, state: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Return the state with the low-rank correction added, in float32 inside."""
        translated: Tensor = state.float() + self.up(self.down(state.float()))
        return translated.to(state.dtype)


class Stay(nn.Module):
    """Turns a rule's score into a decision; what a recorder reads and a plan overrides.

    The score is the largest probability for ``confidence`` (leave at or above the threshold), the
    entropy in nats for ``entropy`` (leave below it), and for ``patience`` how many exits in a row
    agreed on the most likely token (leave at or above it).
    """

    threshold: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("threshold", torch.full((), torch.inf), persistent=False)
        self.rule: ExitRule = "confidence"

    def forward(
        self, score: Float[Tensor, "b t"], inside: Bool[Tensor, "b t"]
    ) -> Bool[Tensor, "b t"]:
        """Return True where a token that is still inside stays so."""
        if self.rule == "entropy":
            return inside & (score >= self.threshold)
        return inside & (score < self.threshold)


class EarlyExits(nn.Module):
    """The exits of a model: translators, rules, and which tokens have left.

    Parameters
    ----------
    model
        A Llama-layout causal LM; hooks are put on its layers and its last norm.
    config
        Where tokens may leave.
    """

    def __init__(self, model: Any, config: ExitConfig) -> None:
        super().__init__()
        width = int(model.config.hidden_size)
        self.config = config
        self.translators = nn.ModuleList(
            Translator(width, config.adapter_rank) for _ in config.exits
        )
        self.stays = nn.ModuleList(Stay() for _ in config.exits)
        # Not modules of this one: they belong to the model.
        self._shared = {"norm": model.model.norm, "head": model.lm_head}
        self._found: tuple[nn.Parameter, Any, tuple[Tensor, Tensor]] | None = None
        self.directions()
        self._now = ThreadState()
        self.gathered = False
        """Whether layers run for the tokens inside alone; False: for all, and are masked."""

    def start(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Let every token in again; a forward pre-hook of the decoder."""
        self._now.inside = None

    def after_layer(
        self, number: int | None, module: nn.Module, args: Any, kwargs: Any, result: Any
    ) -> Any:
        """Let those that left keep their state; a forward hook of a layer.

        ``number`` is that of the exit after the layer, None where there is none.
        """
        before = states_given(args, kwargs)
        now = self._now
        if now.inside is None:
            now.inside = torch.ones(before.shape[:2], dtype=torch.bool, device=before.device)
            now.left, now.streak, now.predicted, now.rows = None, None, None, None
        state = result
        if now.left is not None and not self.gathered:
            state = torch.where(now.inside.unsqueeze(-1), result, before)
        if number is not None:
            self._ask(number, state)
        return state

    def before_norm(self, module: nn.Module, args: Any) -> Any:
        """Put the translated states of those that left in place; a pre-hook of the last norm."""
        now = self._now
        if now.left is None:
            return None
        return (torch.where(now.inside.unsqueeze(-1), args[0], now.left),)

    def directions(self) -> tuple[Float[Tensor, "d r"], Float[Tensor, "r v"]]:
        """Return the head's leading directions, found anew where it was loaded or trained since."""
        head, found = self._shared["head"].weight, self._found
        if found is None or found[0] is not head or found[1] != weights_identity(head):
            with torch.inference_mode(False), torch.autocast(head.device.type, enabled=False):
                both = leading_directions(head, self.config.head_rank)
            self._found = found = head, weights_identity(head), both
        return found[2]

    def inside(self) -> tuple[Bool[Tensor, "b t"], Int[Tensor, " n"]] | None:
        """Return which tokens have not left, and their rows in a batch laid flat.

        None where none has left yet, or layers are not run for some tokens alone.
        """
        rows: Tensor | None = getattr(self._now, "rows", None)
        return None if rows is None else (self._now.inside, rows)

    def _ask(self, number: int, state: Float[Tensor, "b t d"]) -> None:
        now, stay = self._now, cast(Stay, self.stays[number])
        if now.rows is not None and not len(now.rows):
            unasked = torch.full(state.shape[:2], torch.nan, device=state.device)
            now.inside = stay(unasked, now.inside)  # for those that listen
            return
        if now.rows is None:
            translated = self.translators[number](state)
        else:
            some = self.translators[number](state.flatten(0, 1).index_select(0, now.rows))
            translated = _put(some, now.rows, now.left)
        if self.training:  # no token leaves, and nothing has to be asked
            return
        score = self._score(translated, stay.rule)
        inside = stay(score, now.inside)
        leaves = (now.inside & ~inside).unsqueeze(-1)
        now.left = translated if now.left is None else torch.where(leaves, translated, now.left)
        now.inside = inside
        if self.gathered:
            rows = inside.flatten().nonzero().squeeze(1)
            now.rows = None if len(rows) == inside.numel() else rows

    def _score(self, translated: Float[Tensor, "b t d"], rule: ExitRule) -> Float[Tensor, "b t"]:
        """Return the scores; where tokens that left are asked no more, not a number for them."""
        now, asked = self._now, translated.flatten(0, 1)
        if now.rows is not None:
            asked = asked.index_select(0, now.rows)
        into, out = self.directions()
        # Not called: the hook on it is for what leaves the model.
        low = self._shared["norm"].forward(asked).float() @ into
        found = []
        for rows in low.split(_ROWS):
            logits = rows @ out
            if rule == "patience":
                found.append(logits.argmax(-1))
                continue
            log = logits.log_softmax(-1)
            found.append(log.amax(-1).exp() if rule == "confidence" else -(log.exp() * log).sum(-1))
        joined = torch.cat(found)
        if now.rows is not None:
            others = now.predicted
            if rule != "patience":
                others = torch.full_like(now.inside, torch.nan, dtype=joined.dtype)
            joined = _put(joined, now.rows, others)
        joined = joined.view(translated.shape[:2])
        return self._agreed(joined) if rule == "patience" else joined

    def _agreed(self, predicted: Tensor) -> Float[Tensor, "b t"]:
        now = self._now
        same = torch.zeros_like(predicted) if now.predicted is None else predicted == now.predicted
        now.streak = same * (1 + (0 if now.streak is None else now.streak))
        now.predicted = predicted
        return cast(Tensor, now.streak.float())


def _put(some: Tensor, rows: Int[Tensor, " n"], others: Tensor) -> Tensor:
    """Return values of all tokens: those of some rows, and those that the others had."""
    return others.flatten(0, 1).index_copy(0, rows, some).view_as(others)


_ROWS = 64
"""Rows of low-rank logits at once, so that they stay in a core's cache."""


def leading_directions(
    head: Float[Tensor, "v d"], rank: int
) -> tuple[Float[Tensor, "d r"], Float[Tensor, "r v"]]:
    """Return factors of the best approximation of a head by that rank, after centring.

    The mean over the vocabulary changes no probability, so it is taken out first.
    """
    weights = head.detach().float()
    weights = weights - weights.mean(0)
    _, vectors = torch.linalg.eigh(weights.T @ weights)
    into = vectors[:, -rank:]
    return into, (weights @ into).T.contiguous()


def install_exits(model: Any, config: ExitConfig) -> EarlyExits:
    """Give a model exits, in place, with every threshold such that no token leaves.

    Parameters
    ----------
    model
        A Llama-layout causal LM.
    config
        Where tokens may leave; not after the last layer.

    Raises
    ------
    ValueError
        If the model is laid out otherwise or has fewer layers.
    """
    layers = decoder_layers(model)
    if config.exits[-1] >= len(layers) - 1:
        raise InputError(
            f"An exit after layer {config.exits[-1]} saves nothing: the model's last layer is "
            f"{len(layers) - 1}. Choose layers below it."
        )
    freeze(model)
    exits = EarlyExits(model, config).to(next(model.parameters()).device)
    model.exits = exits.train(model.training)
    places = {number: place for place, number in enumerate(config.exits)}
    after = range(config.exits[0], len(layers))
    stay_on_layers(model, exits, {number: places.get(number) for number in after})
    model.model.norm.register_forward_pre_hook(exits.before_norm)
    return exits


def set_exit_rule(model: Any, rule: ExitRule, threshold: float, *, only: int | None = None) -> None:
    """Say when tokens leave.

    Parameters
    ----------
    model
        A model with exits.
    rule
        ``confidence``, ``entropy`` or ``patience``.
    threshold
        A probability, nats, or a number of agreeing exits after the first.
    only
        The exit whose threshold it is, counted from 0; None: every one.

    Raises
    ------
    ValueError
        If there is no such rule.
    """
    exit_rule(rule)
    for number, stay in enumerate(model.exits.stays):
        stay.rule = rule
        if only in (None, number):
            stay.threshold.fill_(threshold)


def exit_rule(name: str) -> ExitRule:
    """Return a rule by its name.

    Raises
    ------
    InputError
        If there is no such rule.
    """
    if name in EXIT_RULES:
        return name
    raise InputError(f"rule={name!r} is not one of {', '.join(EXIT_RULES)}.")


def exit_parameters(model: Any) -> dict[str, nn.Parameter]:
    """Return the translators' parameters by the name they are stored under."""
    return {
        f"{layer}.exit.adapter.{name}": parameter
        for layer, translator in zip(model.exits.config.exits, model.exits.translators, strict=True)
        for name, parameter in translator.named_parameters()
    }
