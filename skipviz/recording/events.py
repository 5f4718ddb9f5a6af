"""Gate events of one forward, and the dense matrices they become."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from skipviz.errors import RecordingError
from skipviz.traces import NUMPY


@dataclass
class GateEvents:
    """Decisions of one forward, by site; tensors are kept as they are until it is over."""

    score: dict[int, Tensor] = field(default_factory=dict)
    executed: dict[int, Tensor] = field(default_factory=dict)
    threshold: dict[int, Tensor] = field(default_factory=dict)
    forced: dict[int, Tensor] = field(default_factory=dict)

    def on_gate(
        self,
        site: int,
        *,
        score: Float[Tensor, "b t"],
        threshold: Float[Tensor, ""],
        executed: Bool[Tensor, "b t"],
        forced: Bool[Tensor, "b t"] | None,
    ) -> None:
        """Keep one firing of a site."""
        self.score[site] = score
        self.executed[site] = executed
        # A threshold is a buffer that may be set again later; scores and decisions are fresh.
        self.threshold[site] = threshold.clone()
        if forced is not None:
            self.forced[site] = forced

    def clear(self) -> None:
        """Forget the forward."""
        for events in (self.score, self.executed, self.threshold, self.forced):
            events.clear()

    def matrices(self, sites: int, keep: Bool[Tensor, "b t"]) -> dict[str, npt.NDArray[Any]]:
        """Return the dense matrices of the tokens to keep, row by row of the batch."""
        tokens = int(keep.sum())
        if not sites:
            return empty_matrices(tokens)
        if len(self.score) != sites:
            raise RecordingError(
                f"{len(self.score)} of {sites} sites fired in a forward of the model: something "
                "replaced its layers while it was being recorded."
            )

        def gather(events: dict[int, Tensor]) -> npt.NDArray[Any]:
            stacked = torch.stack([events[site] for site in range(sites)], dim=-1)
            kept = stacked[keep]
            # NumPy has no bfloat16, in which scores are under autocast.
            return (kept.float() if kept.is_floating_point() else kept).cpu().numpy()

        score = gather(self.score)
        limits = torch.stack([self.threshold[site] for site in range(sites)]).float().cpu().numpy()
        forced = np.zeros(score.shape, dtype=np.bool_)
        for site, mask in self.forced.items():
            forced[:, site] = mask.expand_as(keep)[keep].cpu().numpy()
        return {
            "score": score.astype(np.float32, copy=False),
            "p_execute": np.full(score.shape, np.nan, dtype=np.float32),
            "threshold": np.broadcast_to(limits, score.shape).copy(),
            "exec_count": gather(self.executed).astype(np.uint8),
            "forced": forced,
        }


def empty_matrices(tokens: int) -> dict[str, npt.NDArray[Any]]:
    """Return the matrices of a model without sites."""
    return {name: np.zeros((tokens, 0), dtype=kind) for name, kind in NUMPY.items()}
