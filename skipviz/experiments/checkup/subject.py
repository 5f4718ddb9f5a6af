"""A model under check, and its runs of one short text."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from skipviz.experiments.checkup.units import added_by_units, places_of, rows_by_site
from skipviz.families import Plan
from skipviz.families.powers import CanDrawPlans, CanFlip, CanForce, Place, traits_of
from skipviz.models import SkipModel
from skipviz.recording.events import GateEvents
from skipviz.recording.text_class import logits_in
from skipviz.recording.tracing import trace
from skipviz.schema import Site
from skipviz.traces import Trace

TIED = 1e-5
"""A decision whose score lies so near to its threshold is a tie: rounding decides it."""


@dataclass(frozen=True, eq=False)
class Run:
    """One forward.

    Attributes
    ----------
    logits
        What the model predicts, [texts, tokens, words], or [texts, classes].
    count
        How often each unit ran, [tokens of all texts, sites].
    score
        What gates emitted; NaN where nothing.
    margin
        By how much each score speaks for executing; NaN where that is unknown.
    """

    logits: Float[Tensor, ...]
    count: npt.NDArray[np.uint8]
    score: npt.NDArray[np.float32]
    margin: npt.NDArray[np.float32]

    @property
    def ties(self) -> npt.NDArray[np.bool_]:
        """Where rounding decides."""
        found: npt.NDArray[np.bool_] = np.abs(self.margin) <= TIED
        return found


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and a text.

    Attributes
    ----------
    model
        The model.
    ids
        The tokens of the text.
    """

    model: SkipModel
    ids: Int[Tensor, "1 t"]

    @cached_property
    def trace(self) -> Trace:
        """What ``skipviz.trace`` says of the text."""
        return trace(self.model, self.ids[0].tolist())

    @cached_property
    def sites(self) -> list[Site]:
        """The places of decision."""
        return self.model.family.sites(self.model.model)

    @cached_property
    def own(self) -> Run:
        """The text as the model runs it."""
        return self.run(self.ids)

    @cached_property
    def reseeded(self) -> list[Run]:
        """The text under the seeds 1, 2 and 3; its own run is under 0."""
        return [self.run(self.ids, seed=seed) for seed in (1, 2, 3)]

    @property
    def drawn(self) -> bool:
        """Whether decisions change with the seed, so that no two other runs can be compared."""
        return any(moved(self.own, other)[0] for other in self.reseeded)

    @cached_property
    def places(self) -> list[Place]:
        """Where the unit of each site is; empty where that is not known."""
        return places_of(self.model.family, self.model.model)

    @cached_property
    def rows(self) -> dict[int, int]:
        """How many tokens linear layers of each site's unit are given, where that is known."""
        return rows_by_site(self.sites, self.places, lambda: self.run(self.ids))

    @cached_property
    def added(self) -> dict[int, npt.NDArray[np.bool_]]:
        """For which tokens the unit of each site adds anything, where that is known."""
        units = [site.unit for site in self.sites]
        return added_by_units(units, self.places, lambda: self.run(self.ids))

    @property
    def predicts(self) -> bool:
        """Whether the model predicts the next token."""
        return traits_of(self.model.family, self.model.model).predicts

    def seconds(self, plan: npt.NDArray[np.bool_]) -> float:
        """Return how long one forward with forced decisions, [tokens, sites], takes."""
        model, family = self.model.model, self.model.family
        assert isinstance(family, CanForce)
        with torch.inference_mode(), family.force(model, Plan(plan)):
            began = time.perf_counter()
            output = model(input_ids=self.ids, **({"use_cache": False} if self.predicts else {}))
            logits_in(output).flatten()[-1].item()  # waits for the device
            return time.perf_counter() - began

    @property
    def forcible(self) -> bool:
        """Whether decisions can be made instead of the gates."""
        return isinstance(self.model.family, CanForce) and bool(self.sites)

    @cached_property
    def other_plan(self) -> tuple[npt.NDArray[np.bool_], str]:
        """Decisions unlike its own that the model could make, [tokens, sites], and their name.

        The opposite ones, or drawn by the family where units cannot be flipped one by one.
        """
        family, ran = self.model.family, self.own.count > 0
        if isinstance(family, CanFlip) or not isinstance(family, CanDrawPlans):
            return ~ran, "The opposite"
        drawn = family.draw_plan(self.model.model, texts=1, tokens=len(ran), seed=0)
        return drawn.execute.reshape(ran.shape), "Others at random"

    def run(
        self,
        ids: Int[Tensor, "b t"],
        *,
        mask: Bool[Tensor, "b t"] | None = None,
        plan: npt.NDArray[np.bool_] | None = None,
        seed: int = 0,
        observed: bool = True,
        **more: Any,
    ) -> Run:
        """Run tokens through the whole model.

        Parameters
        ----------
        ids
            The tokens.
        mask
            False where a token is padding.
        plan
            Decisions to force, [tokens, sites].
        seed
            Of what is drawn.
        observed
            Whether decisions are read; without, there are none.
        more
            Passed on to the model's forward.
        """
        model, family, events = self.model.model, self.model.family, GateEvents()
        predicts = traits_of(family, model).predicts
        given: dict[str, Any] = ({"use_cache": False} if predicts else {}) | more
        if mask is not None:
            given["attention_mask"] = mask.long()
        keep = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        with torch.inference_mode(), torch.random.fork_rng():
            torch.manual_seed(seed)
            if plan is not None and isinstance(family, CanForce):
                with family.force(model, Plan(plan)), family.observe(model, events):
                    output = model(input_ids=ids, **given)
            elif observed:
                with family.observe(model, events):
                    output = model(input_ids=ids, **given)
            else:
                output = model(input_ids=ids, **given)
        silent = traits_of(family, model).silent
        found = events.matrices(len(self.sites) if observed else 0, keep, silent=silent)
        signs = np.array([site.polarity or np.nan for site in self.sites], dtype=np.float32)
        margin = (found["score"] - found["threshold"]) * (signs if observed else 1)
        return Run(
            logits=logits_in(output),
            count=found["exec_count"],
            score=found["score"],
            margin=margin.astype(np.float32),
        )


def moved(first: Run, second: Run, rows: slice = slice(None)) -> tuple[int, int]:
    """Return how many decisions differ between runs, ties apart, and of how many."""
    clear = ~(first.ties | second.ties)[rows]
    differs = (first.count != second.count)[rows] & clear
    return int(differs.sum()), int(clear.sum())
