"""Gate events of one forward, and the dense matrices they become."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from skipviz.errors import RecordingError
from skipviz.traces import NUMPY

MOST_RUNS = 255
"""How often a unit may run for a token; a trace keeps it in a byte."""


@dataclass(eq=False, kw_only=True, slots=True)
class _Firing:
    """One firing of a site, as ``EventSink.on_gate`` takes it; frozen ones are slow to make."""

    ran: Tensor
    score: Tensor | None
    threshold: Tensor | None
    p_execute: Tensor | None
    positions: Tensor | None
    forced: Tensor | None

    @property
    def plain(self) -> bool:
        """Whether every token was asked, and scores compared with one threshold for all."""
        return (
            self.positions is None
            and self.p_execute is None
            and self.score is not None
            and self.threshold is not None
            and self.threshold.ndim == 0
        )


@dataclass
class GateEvents:
    """Decisions of one forward, by site; tensors are kept as they are until it is over."""

    firings: dict[int, list[_Firing]] = field(default_factory=dict)

    def on_gate(
        self,
        site: int,
        *,
        ran: Bool[Tensor, "b n"] | Int[Tensor, "b n"],
        score: Float[Tensor, "b n"] | None = None,
        threshold: Float[Tensor, "*b"] | None = None,
        p_execute: Float[Tensor, "b n"] | None = None,
        positions: Int[Tensor, "b n"] | None = None,
        forced: Bool[Tensor, "b n"] | None = None,
    ) -> None:
        """Keep one firing of a site."""
        self.firings.setdefault(site, []).append(
            _Firing(
                ran=ran,
                score=score,
                # A threshold is a buffer that may be set again later; the others are fresh.
                threshold=None if threshold is None else threshold.clone(),
                p_execute=p_execute,
                positions=positions,
                forced=forced,
            )
        )

    def clear(self) -> None:
        """Forget the forward."""
        self.firings.clear()

    def ran(self, site: int) -> Tensor:
        """Return what a site said last, [b, n]: where its unit ran, or how often.

        Raises
        ------
        RecordingError
            If it has not fired.
        """
        if site not in self.firings:
            raise RecordingError(f"Site {site} has not fired in this forward.")
        return self.firings[site][-1].ran

    def scores_all(self, site: int) -> bool:
        """Return whether a site said a score for every token of the forward."""
        firings = self.firings.get(site, [])
        return bool(firings) and all(
            each.score is not None and each.positions is None for each in firings
        )

    def matrices(
        self, sites: int, keep: Bool[Tensor, "b t"], *, silent: bool = False
    ) -> dict[str, npt.NDArray[Any]]:
        """Return the dense matrices of the tokens to keep, row by row of the batch.

        Parameters
        ----------
        sites
            How many sites the model has.
        keep
            False where a token is padding.
        silent
            Whether a site may stay silent, as where tokens have left before it.

        Raises
        ------
        RecordingError
            If a site did not fire that must, or a unit ran too often.
        """
        if not sites:
            return empty_matrices(int(keep.sum()))
        if len(self.firings) != sites and not silent:
            raise RecordingError(
                f"{len(self.firings)} of {sites} sites fired in a forward of the model: something "
                "replaced its layers while it was being recorded."
            )
        each = [self.firings.get(site, []) for site in range(sites)]
        plain = all(len(firings) == 1 and firings[0].plain for firings in each)
        made = _stacked([first for first, *_ in each], keep) if plain else _filled(each, keep)
        forced = np.zeros(made["score"].shape, dtype=np.bool_)
        for site, firings in enumerate(each):
            for firing in firings:
                if firing.forced is not None:
                    where = _spread(firing, firing.forced, keep, fill=0.0)
                    forced[:, site] |= where[keep].cpu().numpy()
        return made | {"forced": forced}


def empty_matrices(tokens: int) -> dict[str, npt.NDArray[Any]]:
    """Return the matrices of a model without sites."""
    return {name: np.zeros((tokens, 0), dtype=kind) for name, kind in NUMPY.items()}


def _stacked(firings: list[_Firing], keep: Bool[Tensor, "b t"]) -> dict[str, npt.NDArray[Any]]:
    """Return the matrices of sites that fired once, for every token, with one threshold each."""

    def gather(values: list[Any]) -> npt.NDArray[Any]:
        kept = torch.stack(values, dim=-1)[keep]
        # NumPy has no bfloat16, in which scores are under autocast.
        return (kept.float() if kept.is_floating_point() else kept).cpu().numpy()

    score = gather([firing.score for firing in firings]).astype(np.float32, copy=False)
    limits: list[Any] = [firing.threshold for firing in firings]
    threshold = torch.stack(limits).float().cpu().numpy()
    return {
        "score": score,
        "p_execute": np.full(score.shape, np.nan, dtype=np.float32),
        "threshold": np.broadcast_to(threshold, score.shape).copy(),
        "exec_count": gather([firing.ran for firing in firings]).astype(np.uint8),
    }


def _filled(each: list[list[_Firing]], keep: Bool[Tensor, "b t"]) -> dict[str, npt.NDArray[Any]]:
    """Return the matrices of sites that fired in any way."""
    shape = (int(keep.sum()), len(each))
    count = np.zeros(shape, dtype=np.int64)
    known = {
        name: np.full(shape, np.nan, dtype=np.float32)
        for name in ("score", "p_execute", "threshold")
    }
    for site, firings in enumerate(each):
        for firing in firings:
            ran = _spread(firing, firing.ran, keep, fill=0.0)
            count[:, site] += ran[keep].cpu().numpy().astype(np.int64)
            for name, matrix in known.items():
                values = getattr(firing, name)
                if values is not None:
                    spread = _spread(firing, values, keep, fill=torch.nan)[keep]
                    said = spread.float().cpu().numpy()
                    matrix[:, site] = np.where(np.isnan(said), matrix[:, site], said)
    if (count < 0).any() or (count > MOST_RUNS).any():
        raise RecordingError(f"A unit ran {count.max()} times for a token; at most {MOST_RUNS}.")
    return known | {"exec_count": count.astype(np.uint8)}


def _spread(firing: _Firing, values: Tensor, keep: Bool[Tensor, "b t"], *, fill: float) -> Tensor:
    """Return values of a firing for every token of the forward, [b, t]."""
    values = values.expand(firing.ran.shape)
    if firing.positions is None:
        return values.expand(keep.shape)
    whole = torch.full(keep.shape, fill, dtype=values.dtype, device=values.device)
    return whole.scatter(1, firing.positions, values)
