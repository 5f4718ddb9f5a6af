"""A plan under way, for every family that can be forced."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from skipviz.errors import InputError
from skipviz.families.base import Plan


@dataclass
class PlanRun:
    """A plan under way: how many of its tokens have been used, and what it forced last."""

    execute: Bool[Tensor, "b n s"]
    forced: Bool[Tensor, "b n s"]
    used: int = 0
    last_forced: tuple[nn.Module, Tensor] | None = None

    @classmethod
    def of(cls, plan: Plan, *, device: torch.device) -> PlanRun:
        """Start at the first token of a plan."""
        execute = torch.from_numpy(plan.execute.copy()).to(device)
        forced = (
            torch.ones_like(execute)
            if plan.forced is None
            else torch.from_numpy(plan.forced.copy()).to(device)
        )
        if execute.ndim == 2:
            execute, forced = execute[None], forced[None]
        return cls(execute=execute, forced=forced)

    def apply(self, decide: nn.Module, site: int, natural: Tensor, *, last: bool) -> Tensor:
        """Return the decisions of one firing; ``last`` is the last site of a forward."""
        stop = self.used + natural.shape[1]
        if len(self.execute) not in (1, len(natural)):
            raise InputError(
                f"The plan decides for {len(self.execute)} texts and the model has been given "
                f"{len(natural)} at once; give a plan of one, or of as many."
            )
        if stop > self.execute.shape[1]:
            raise InputError(
                f"The plan decides {self.execute.shape[1]} tokens and the model has been given "
                f"{stop}; give a plan of one row for each token, prefill and decode together."
            )
        forced = self.forced[:, self.used : stop, site].expand_as(natural)
        planned = self.execute[:, self.used : stop, site].expand_as(natural)
        self.last_forced = (decide, forced)
        if last:
            self.used = stop
        return torch.where(forced, planned, natural)
