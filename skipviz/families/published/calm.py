"""CALM: a token leaves after the first layer at which the model is confident of the next token.

Schuster et al., "Confident adaptive language modeling", 2207.07061; the authors' code is of T5 in
JAX (google-research/t5x, ``t5x/contrib/calm``). Here it is put into a decoder in the Llama layout.
Rules are those of the paper, compared with ``util/skip_conf.py`` of FREE
(raymin0223/fast_robust_early_exit at a6503ba) and with ``economize`` 0.3.2, and every decision with
a loop over tokens and layers in plain Python (``tests/families/published/test_calm.py``).

After each layer but the last a token that has not left is asked how confident the model is:

- ``softmax``: the larger of its two largest probabilities less the other, by the model's own head;
- ``state``: the cosine between what the layer was given and what it made, from the second layer on;
- ``classifier``: the second of two probabilities that a module gives, as FREE's ``cm_head``.

At or above the threshold it leaves (FREE and ``economize``: above). The layers above compute keys
and values from the state it left with, and its prediction is made of it. With a temperature the
threshold of the t-th token is ``clip(0.9 threshold + 0.1 exp(-temperature t / length))``, from 0 to
1; FREE multiplies the second term by the threshold too. The tokens of a prompt, counted in
``prompt``, run every layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from skipviz.errors import InputError
from skipviz.families.base import EventSink, Plan
from skipviz.families.causal_lm import by_itself, last_hidden_states, same_logits, some_tokens
from skipviz.families.hooks import forced_now, forcing, observing
from skipviz.families.llama import (
    decoder_layers,
    places_given,
    states_given,
    states_made,
    stay_on_layers,
    tokens_held,
    with_states,
)
from skipviz.families.plan_run import PlanRun
from skipviz.families.powers import Exit, Traits
from skipviz.families.thread_state import ThreadState
from skipviz.schema import Site
from skipviz.text.arguments import check_types

Measure = Literal["softmax", "state", "classifier"]
Asked = tuple[Tensor, Tensor, Tensor]
"""Scores, thresholds and who is inside, each [b, t]."""


@dataclass(frozen=True, kw_only=True)
class CalmRule:
    """When a token leaves.

    Attributes
    ----------
    measure
        ``softmax``, ``state`` or ``classifier``.
    threshold
        The confidence from which a token leaves, 0 to 1.
    temperature
        How fast the threshold falls with the place of a token; None: it is the same for all.
    length
        The longest text that is written, in tokens: the threshold has fallen where it ends.
    prompt
        Tokens at the beginning of a text that run every layer; places are counted after them.
    """

    measure: Measure = "softmax"
    threshold: float = 0.9
    temperature: float | None = None
    length: int = 512
    prompt: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        if not 0 <= self.threshold <= 1:
            raise InputError(f"threshold={self.threshold} must lie between 0 and 1.")
        if self.temperature is not None and not 0 <= self.temperature < math.inf:
            raise InputError(
                f"temperature={self.temperature} must be a number of 0 or more, or None."
            )
        if self.length < 1 or self.prompt < 0:
            raise InputError(
                f"length={self.length} must be at least 1, and prompt={self.prompt} at least 0."
            )

    def thresholds(self, places: Int[Tensor, "b t"]) -> Float[Tensor, "b t"]:
        """Return the threshold of each token; infinite in the prompt."""
        after = (places - self.prompt).float()
        found = torch.full_like(after, self.threshold)
        if self.temperature is not None:
            falls = torch.exp(-self.temperature * after / self.length)
            found = (0.9 * self.threshold + 0.1 * falls).clamp(0.0, 1.0)
        return torch.where(after < 0, torch.inf, found)


class Remain(nn.Module):
    """Decides who stays inside; what a recorder reads and a plan overrides."""

    def forward(
        self,
        score: Float[Tensor, "b t"],
        threshold: Float[Tensor, "b t"],
        inside: Bool[Tensor, "b t"],
    ) -> Bool[Tensor, "b t"]:
        """Return True where a token that is still inside stays so."""
        return inside & (score < threshold)


class CalmExits(nn.Module):
    """The exits of a model, after every layer but the last.

    Parameters
    ----------
    model
        A Llama-layout causal LM; hooks are put on its layers.
    rule
        When a token leaves.
    classifier
        For the measure ``classifier``: gives two numbers for a hidden state, of which the second is
        to leave.
    """

    def __init__(self, model: Any, rule: CalmRule, classifier: nn.Module | None) -> None:
        super().__init__()
        self.rule = rule
        self.classifier = classifier
        count = len(decoder_layers(model))
        self.first = 1 if rule.measure == "state" else 0
        """The lowest layer after which a token may leave."""
        self.remains = nn.ModuleList(Remain() for _ in range(self.first, count - 1))
        # Not modules of this one: they belong to the model.
        self._shared = {"norm": model.model.norm, "head": model.lm_head}
        self._now = ThreadState()

    def start(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Let every token in again; a forward pre-hook of the decoder."""
        self._now.inside = None
        self._now.held = tokens_held(kwargs)

    def after_layer(
        self, layer: int, module: nn.Module, args: Any, kwargs: Any, result: Any
    ) -> Any:
        """Let those that left keep their state, and ask the others; a forward hook of a layer."""
        given, made, now = states_given(args, kwargs), states_made(result), self._now
        if now.inside is None:
            now.inside = torch.ones(given.shape[:2], dtype=torch.bool, device=given.device)
        else:
            made = torch.where(now.inside.unsqueeze(-1), made, given)
        if 0 <= layer - self.first < len(self.remains):
            score = self._score(given, made)
            limit = self.rule.thresholds(places_given(kwargs, given, held=now.held))
            now.inside = self.remains[layer - self.first](score, limit, now.inside)
        return with_states(result, made)

    def _score(
        self, given: Float[Tensor, "b t d"], made: Float[Tensor, "b t d"]
    ) -> Float[Tensor, "b t"]:
        if self.rule.measure == "state":
            alike: Tensor = F.cosine_similarity(made.float(), given.float(), dim=-1)
            return alike
        if self.classifier is not None:
            leaves: Tensor = self.classifier(made).float().softmax(-1)[..., 1]
            return leaves
        # Not called: hooks on them are for what leaves the model.
        logits: Tensor = self._shared["head"].forward(self._shared["norm"].forward(made))
        two: Tensor = logits.float().softmax(-1).topk(2, dim=-1).values
        return two[..., 0] - two[..., 1]


def install_calm(
    model: Any, rule: CalmRule | None = None, *, classifier: nn.Module | None = None
) -> CalmExits:
    """Let tokens leave a dense model by CALM's rules, in place.

    Parameters
    ----------
    model
        A Llama-layout causal LM.
    rule
        When a token leaves; None: by ``softmax`` at 0.9, the same for all.
    classifier
        For the measure ``classifier``: a module that gives two numbers for a hidden state, of which
        the second is to leave, such as ``cm_head`` of FREE.

    Returns
    -------
    CalmExits
        What was put into the model, as ``model.calm``.

    Raises
    ------
    InputError
        If the model is laid out otherwise, has exits already, or makes its logits otherwise than by
        norm and head; or the classifier is missing, or given to another measure.

    Examples
    --------
    >>> exits = install_calm(dense.model, CalmRule(threshold=0.2, temperature=4.0))
    >>> skipviz.from_parts(dense.model, dense.tokenizer).family.name
    'calm'
    """
    rule = CalmRule() if rule is None else rule
    layers = decoder_layers(model)
    if hasattr(model, "calm") or hasattr(model, "exits"):
        raise InputError("This model has exits already; load it anew to give it others.")
    if (classifier is None) == (rule.measure == "classifier"):
        raise InputError(
            f"measure={rule.measure!r} and classifier={type(classifier).__name__}: the measure "
            "classifier needs a module, and no other takes one."
        )
    if not by_itself(_head_predicts, model):
        raise InputError(
            f"{type(model).__name__} makes more of its logits than its norm and head do, so "
            "confidence in the middle of it would be another. Give a model that does not scale "
            "or cap its logits."
        )
    exits = CalmExits(model, rule, classifier).to(next(model.parameters()).device)
    model.calm = exits.train(model.training)
    stay_on_layers(model, exits, {number: number for number in range(len(layers))})
    return exits


class CALM:
    """Tokens that leave once the model is confident; every layer above the first exit is a site."""

    name = "calm"

    def detect(self, model: nn.Module) -> bool:
        """Say whether ``install_calm`` put exits into the model."""
        return isinstance(getattr(model, "calm", None), CalmExits)

    def sites(self, model: nn.Module) -> list[Site]:
        """Return the layers above the first exit: each runs if the exit before it lets go on."""
        exits = _calm(model)
        return [
            Site(
                layer=layer,
                unit="block",
                rule="ge",
                polarity=-1,
                skip_path="identity",
                kv="propagated",
                computed_anyway=True,
                scope="token",
                gate_flops=_asking_flops(model),
            )
            for layer in range(exits.first + 1, exits.first + 1 + len(exits.remains))
        ]

    def traits(self, model: nn.Module) -> Traits:
        """Return what holds of exits."""
        return Traits(batchable=True, in_backbone=True, leaves=True)

    def exits(self, model: nn.Module) -> list[Exit]:
        """Return the layers after which tokens may leave; their states are taken as they are."""
        exits = _calm(model)
        return [Exit(exits.first + n, nn.Identity()) for n in range(len(exits.remains))]

    def draw_plan(self, model: nn.Module, *, texts: int, tokens: int, seed: int) -> Plan:
        """Return exits at random: as many tokens leave at each as stay to the end."""
        count = len(_calm(model).remains)
        leaves = np.random.default_rng(seed).integers(count + 1, size=(texts, tokens, 1))
        return Plan(np.arange(count) < leaves)

    def observe(self, model: nn.Module, sink: EventSink) -> AbstractContextManager[None]:
        """Pass every decision made in this thread to ``sink``; who has left is asked no more."""

        def observer(site: int) -> Callable[[nn.Module, Asked, Tensor], None]:
            def hook(remain: nn.Module, args: Asked, stays: Tensor) -> None:
                score, threshold, inside = args
                sink.on_gate(
                    site,
                    score=torch.where(inside, score.detach(), torch.nan),
                    threshold=threshold,
                    ran=stays,
                    forced=forced_now(remain),
                )

            return hook

        remains = _calm(model).remains
        return observing([(each, observer(site)) for site, each in enumerate(remains)])

    def force(self, model: nn.Module, plan: Plan) -> AbstractContextManager[None]:
        """Let tokens leave where ``plan`` says.

        Raises
        ------
        InputError
            If the plan has another number of sites or fewer tokens than the model is given, or
            forces every decision and lets a token come back that has left.
        """
        remains = list(_calm(model).remains)
        if plan.execute.shape[-1] != len(remains):
            raise InputError(
                f"The plan decides {plan.execute.shape[-1]} sites; the model has {len(remains)}."
            )
        whole = plan.forced is None or plan.forced.all()
        if whole and (plan.execute[..., 1:] & ~plan.execute[..., :-1]).any():
            raise InputError("The plan lets a token come back that has left; it cannot.")
        run = PlanRun.of(plan, device=next(model.parameters()).device)

        def override(site: int) -> Callable[[nn.Module, Asked, Tensor], Tensor]:
            def hook(remain: nn.Module, args: Asked, stays: Tensor) -> Tensor:
                # Where exits decide some sites, they may let go a token the plan keeps.
                return run.apply(remain, site, stays, last=site == len(remains) - 1) & args[2]

            return hook

        return forcing(run, [(each, override(site)) for site, each in enumerate(remains)])


def _calm(model: Any) -> CalmExits:
    exits: Any = getattr(model, "calm", None)
    if isinstance(exits, CalmExits):
        return exits
    raise InputError("This model has no exits by CALM's rules; install_calm puts them in.")


def _asking_flops(model: Any) -> int | None:
    """Return what one question costs a token: the whole head, three products, or the classifier."""
    exits, width = _calm(model), int(model.config.hidden_size)
    if exits.rule.measure == "softmax":
        return 2 * width * int(model.lm_head.weight.shape[0])
    if exits.classifier is None:
        return 6 * width
    parts = [each for each in exits.classifier.modules() if not list(each.children())]
    if any(list(each.parameters()) and not isinstance(each, nn.Linear) for each in parts):
        return None
    return sum(2 * each.weight.numel() for each in parts if isinstance(each, nn.Linear))


def _head_predicts(model: Any) -> bool:
    ids = some_tokens(model)
    made = model.lm_head(last_hidden_states(model, input_ids=ids))
    return same_logits(made, model(input_ids=ids, use_cache=False).logits)
