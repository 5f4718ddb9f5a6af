"""What only some families can do. What needs a power asks for it, and says what is lacking.

A family has a power if it has the method: ``isinstance(family, CanFlip)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Int
from torch import Tensor, nn

from skipviz.errors import InputError
from skipviz.families.base import Family, Plan
from skipviz.families.settings import Setting


@runtime_checkable
class CanForce(Protocol):
    """Lets a plan decide instead of the gates."""

    def force(self, model: nn.Module, plan: Plan) -> AbstractContextManager[None]:
        """Make the decisions of a plan in this block and thread.

        Raises
        ------
        InputError
            If the plan does not fit the model's sites, or has fewer tokens than the model is given.
        """


def force(
    family: Family, model: nn.Module, plan: Plan, *, name: str
) -> AbstractContextManager[None]:
    """Make the decisions of a plan in this block, if the family can be forced.

    Parameters
    ----------
    family, model, plan
        Whose decisions, in which model, and which.
    name
        What the model is called in an error.

    Raises
    ------
    InputError
        If the family cannot be forced, or the plan does not fit.
    """
    if isinstance(family, CanForce):
        return family.force(model, plan)
    raise InputError(
        f"{name} is of the family {family.name}, whose decisions cannot be forced; load a model "
        "with gates or exits, or leave the plan out."
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class SkippableUnit:
    """Attention or MLP of a Llama layer that a gate of its own decides on, with a skip path.

    Attributes
    ----------
    layer, kind
        Where it is.
    module
        What the layer calls: it decides, and returns the output of ``dense`` or of ``adapter``.
    dense
        The attention or MLP itself.
    gate
        Scores normalised hidden states; what it returns goes to ``decide``.
    looks
        Whether the score comes from the token; False where rates are fixed.
    decide
        Returns where the unit executes: where the score is above its ``threshold``.
    adapter
        What a skipped token gets instead, from the same normalised hidden states.
    """

    layer: int
    kind: Literal["attn", "mlp"]
    module: nn.Module
    dense: nn.Module
    gate: nn.Module
    looks: bool
    decide: Any
    adapter: nn.Module


@runtime_checkable
class CanFlip(Protocol):
    """Decides on single units: what an audit flips, and attribution over depth mixes."""

    def units(self, model: nn.Module) -> list[SkippableUnit]:
        """Return the unit of each site, in the order of ``Family.sites``."""


@runtime_checkable
class CanSlope(Protocol):
    """Can give its hard decisions a slope, as training did."""

    def straight_through(self, model: nn.Module) -> AbstractContextManager[None]:
        """Let gradients pass through decisions in this block."""


@runtime_checkable
class CanDraw(Protocol):
    """May draw decisions at random, from seed, site, token and position."""

    def seed(self, model: nn.Module) -> int | None:
        """Return the seed that decisions are drawn by; None where nothing is drawn."""

    def drawing_as(self, model: nn.Module, ids: Int[Tensor, "1 t"]) -> AbstractContextManager[None]:
        """Let runs from embeddings draw as these tokens do, in this block and thread."""


@runtime_checkable
class CanDrawPlans(Protocol):
    """Can make up decisions that it could make itself, where not any will do."""

    def draw_plan(self, model: nn.Module, *, texts: int, tokens: int, seed: int) -> Plan:
        """Return decisions at random that the model could make, to try it on."""


@runtime_checkable
class CanGather(Protocol):
    """Can run a unit for executing tokens alone."""

    def gathers(self, model: nn.Module) -> bool:
        """Say whether it does."""

    def gather(self, model: nn.Module, *, gathered: bool) -> None:
        """Have a model run units for executing tokens alone, or for all and mask them."""

    def draw_plan(self, model: nn.Module, *, texts: int, tokens: int, seed: int) -> Plan:
        """Return decisions at random that the model could make, to try both ways on."""


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What must be known of a way of skipping before a model is run.

    Attributes
    ----------
    batchable
        Whether a text is decided in a batch as it is alone.
    in_backbone
        Whether all that skips lies within the backbone, so that losses may be made of its last
        hidden states. Otherwise they come from the whole model's forward.
    silent
        Whether a site may stay silent in a forward, as where a text has left before it.
    resumable
        Whether a forward may begin at any layer, from hidden states, keys and values of another:
        nothing else is carried from layer to layer or from token to token.
    predicts
        Whether the model predicts the next token. Encoders do not: they have no loss of tokens, and
        a text is run as the tokenizer writes it, with the tokens that it puts around it.
    decides
        Whether anything is decided; False where layers run as often as the configuration says.
    leaves
        Whether what does not run a layer has left before it, so that no layer above runs either.
    drafts
        Whether it skips only in drafting what is then verified. A text that is given runs every
        layer, so there is nothing to trace; ``record`` follows a generation.
    """

    batchable: bool
    in_backbone: bool
    silent: bool = False
    resumable: bool = False
    predicts: bool = True
    decides: bool = True
    leaves: bool = False
    drafts: bool = False


@runtime_checkable
class HasTraits(Protocol):
    """Says what holds of the way it skips; of a family that does not, the least is taken on."""

    def traits(self, model: nn.Module) -> Traits:
        """Return what holds for this model."""


def traits_of(family: Family, model: nn.Module) -> Traits:
    """Return what holds of a family's way of skipping in a model."""
    if isinstance(family, HasTraits):
        return family.traits(model)
    sites = family.sites(model)
    ranked = {"topk", "quantile", "cumsum"}
    alone = any(site.scope != "token" or site.rule in ranked for site in sites)
    return Traits(batchable=not alone, in_backbone=False, leaves=isinstance(family, HasExits))


@runtime_checkable
class CountsLayers(Protocol):
    """Knows how many layers there are where the configuration counts something else."""

    def layer_count(self, model: nn.Module) -> int:
        """Return the number of layers, each once."""


def layer_count_of(family: Family, model: Any) -> int:
    """Return how many layers a model has, each counted once."""
    if isinstance(family, CountsLayers):
        return family.layer_count(model)
    return int(model.config.num_hidden_layers)


@dataclass(frozen=True, eq=False)
class Place:
    """Where in a model the unit of a site is.

    Attributes
    ----------
    layer
        The layer that holds it.
    around
        What is given the states of all tokens and returns them: those differ that the unit added
        something to. None: there is nothing of the kind.
    """

    layer: nn.Module
    around: nn.Module | None


@runtime_checkable
class KnowsPlaces(Protocol):
    """Knows the layer of each site where it is not that of its number in one list."""

    def places(self, model: nn.Module) -> list[Place]:
        """Return the place of each site, in the order of ``Family.sites``."""


@runtime_checkable
class CanThreshold(Protocol):
    """Decides by one threshold for every site, above which a token executes."""

    def threshold(self, value: float) -> Setting:
        """Return the setting at which a score above ``value`` executes."""


@runtime_checkable
class CanMoveThresholds(Protocol):
    """Compares the score of each site with a threshold, which can be set site by site."""

    def thresholds(self, model: nn.Module) -> list[float]:
        """Return the threshold of each site, in the order of ``Family.sites``."""

    def at_thresholds(self, model: nn.Module, thresholds: Sequence[float]) -> Setting:
        """Return the setting that compares each site's scores with a threshold of its own.

        Raises
        ------
        InputError
            If sites that share a decision would have thresholds that differ.
        """


@runtime_checkable
class SharesDecisions(Protocol):
    """Takes one decision for several sites."""

    def decided_together(self, model: nn.Module) -> list[list[int]]:
        """Return the sites of each decision, by their index in ``Family.sites``."""


@dataclass(frozen=True, eq=False)
class Exit:
    """A place where tokens may leave.

    Attributes
    ----------
    layer
        The layer they leave after.
    translator
        Makes of its hidden state what the last norm and the head predict from.
    """

    layer: int
    translator: nn.Module


@runtime_checkable
class HasExits(Protocol):
    """Lets tokens leave: all layers above an exit are skipped."""

    def exits(self, model: nn.Module) -> list[Exit]:
        """Return the exits, the lowest first."""
