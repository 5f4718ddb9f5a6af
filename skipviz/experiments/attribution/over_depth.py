"""Which units over the depth a loss comes from, and how exact flips of them compare."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from skipviz.errors import InputError
from skipviz.experiments.attribution.target import (
    TOKENS_AT_ONCE,
    Attribution,
    ScoredRun,
    Target,
    check_one_text,
    check_steps,
    check_target,
    copies,
    ids_until,
    prediction,
    resolved,
    watched,
)
from skipviz.experiments.decision_audit import audit
from skipviz.experiments.same_model import check_own_trace
from skipviz.families.hooks import Hook, after, hooked
from skipviz.families.powers import CanFlip, SkippableUnit
from skipviz.models import SkipModel
from skipviz.models.runtimes import with_runtime
from skipviz.progress import Progress, no_progress
from skipviz.recording.statistics import HEAD_ROWS, next_token_losses
from skipviz.text.arguments import checked
from skipviz.traces import Trace

POINTS = 8
"""Points of one piece of a path, where steps grow."""
GROWTH = 16
"""Of how many times the steps asked for a path may have, until its shares add up."""
NEAR_ENOUGH = 0.05
"""What the shares of a path may miss of the difference that they should add up to."""
_ROUNDING = 1e-5
"""What single precision leaves of a loss: a miss below this share of it is as good as 0."""
SAMPLE = 192
"""Cells flipped through all of the text that follows: the work of some 50 runs of it."""


@checked
def attribute_depth(
    model: SkipModel,
    trace: Trace,
    target: Target | None = None,
    *,
    steps: int = 32,
    within: float = NEAR_ENOUGH,
    rows: int = TOKENS_AT_ONCE,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> Attribution:
    """Return what each (token, site) contributed to a target, by what it executed.

    The execution mask is the input: a unit and its skip path are mixed, and integrated gradients
    run along two straight paths, from all skipped to the decisions as they were, and from these to
    all run. The first gives shares to what executed and nothing to what skipped; the second the
    other way round.

    Shares of a path add up to what the loss differs by between its ends, if there are points enough
    where the path bends. So a path is cut where its pieces miss most, and each cut adds points,
    until the pieces together miss at most 5%. Shares of a path that does not get there are null.

    Parameters
    ----------
    model
        The gated model that was traced.
    trace
        Its trace of one text that fits the context.
    target
        What is to be explained, no gate's score; None for the loss of the whole text, the sum over
        its tokens.
    steps
        Points of each path at first; at most sixteen times as many are taken.
    within
        What the pieces of a path may miss together, as a part of what its shares should add up to;
        infinity keeps the shares whatever they miss.
    rows
        Tokens to run at once, at least one copy of the text; memory grows with it.
    progress
        Called with the share of the work done, 0 to 1.
    stop
        Set it from another thread to stop.

    Returns
    -------
    Attribution
        Its table has one row per ``token`` and ``site``. ``from_skipped``: what executing added
        over skipping; ``to_all``: what executing would have added; null where the shares of the
        path do not add up. ``deltas`` are the misses of the two paths, in this order, ``due`` what
        their shares should add up to, and ``steps`` the points that were taken.

    Raises
    ------
    ValueError
        If the target does not exist, or the trace is of several sequences, or of a model without
        gated units.
    Stopped
        If ``stop`` was set.

    Examples
    --------
    >>> found = skipviz.attribute_depth(model, trace, skipviz.Target(token=5), steps=8)
    >>> found.table.columns
    ['token', 'site', 'from_skipped', 'to_all']
    >>> max(abs(miss) for miss in found.deltas) < 0.5  # what the shares miss of the difference
    True
    """
    check_own_trace(model, trace)
    model = with_runtime(model, "masked")  # whose units can be taken apart
    if target is not None and target.kind == "score":
        raise InputError("Scores are decided on the way; attribute a loss or a word over depth.")
    if target is None:
        check_one_text(trace)
        _check_length(model, trace)
    else:
        check_target(model, trace, target)
        target = resolved(target, trace)
    check_steps(steps)
    if not within >= 0:
        raise InputError(f"within={within} must be 0 or more.")
    if not trace.sites.height or not isinstance(model.family, CanFlip):
        raise InputError(
            f"{model.name} has no gated units to give shares to; take a model that has them."
        )
    units = model.family.units(model.model)
    ids = ids_until(model, trace, len(trace) - 2 if target is None else target.token)
    following = torch.tensor(trace.tokens["token_id"].to_list()[1 : ids.shape[1] + 1])
    executed = torch.from_numpy(trace.matrix("exec_count")[: ids.shape[1]] > 0).float()
    mask = executed.to(model.device)[None]

    def plain(mix: Float[Tensor, "b t s"]) -> Float[Tensor, " b"]:
        with _mixed(units, mix):
            states = model.model.model(ids.expand(len(mix), -1), use_cache=False)
        if target is None:
            return _text_loss(model, states.last_hidden_state, following.to(model.device))
        return prediction(model, states.last_hidden_state, target)

    most = 2 * GROWTH * (steps + 2)
    run = watched(model, plain, total=most, progress=_ever_nearer(progress), stop=stop)
    at_once = copies(rows, ids.shape[1])
    nothing, everything = torch.zeros_like(mask), torch.ones_like(mask)
    paths = [
        _along(run, begin, end, steps=steps, within=within, at_once=at_once)
        for begin, end in ((nothing, mask), (mask, everything))
    ]
    token, site = np.indices(mask.shape[1:]).reshape(2, -1)
    table = pl.DataFrame(
        {
            "token": token,
            "site": site,
            "from_skipped": pl.Series(paths[0].values(), dtype=pl.Float64),
            "to_all": pl.Series(paths[1].values(), dtype=pl.Float64),
        }
    )
    with torch.no_grad():
        value = float(run(mask))
    progress(1.0)
    return Attribution(
        table, value, tuple(path.missed for path in paths),
        due=tuple(path.due for path in paths), steps=tuple(path.points for path in paths),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Path:
    """Shares along a straight path, and whether they add up."""

    shares: Float[Tensor, "t s"]
    missed: float
    due: float
    points: int
    adds_up: bool

    def values(self) -> list[float | None]:
        """Return the shares, or none of them."""
        flat = self.shares.flatten().tolist()
        return flat if self.adds_up else [None] * len(flat)


def _along(
    run: ScoredRun,
    begin: Float[Tensor, "1 t s"],
    end: Float[Tensor, "1 t s"],
    *,
    steps: int,
    within: float,
    at_once: int,
) -> _Path:
    """Integrate gradients along a path, cut anew where its pieces miss most."""
    from captum import attr  # slow to import

    gradients = attr.IntegratedGradients(run)
    points = min(POINTS, steps)

    def piece(low: float, high: float) -> tuple[float, float, float, float, Tensor]:
        ends = (torch.lerp(begin, end, place) for place in (high, low))
        shares, missed = gradients.attribute(
            *ends, n_steps=points, internal_batch_size=at_once, return_convergence_delta=True
        )
        miss = float(missed.sum())
        return -abs(miss), low, high, miss, shares[0].double().cpu()

    with torch.no_grad():
        first, last = float(run(begin)), float(run(end))
    enough = max(within * abs(last - first), _ROUNDING * max(abs(first), abs(last)))
    places = np.linspace(0, 1, -(-steps // points) + 1).tolist()
    # No two pieces begin at one place, so that tensors are never compared.
    pieces = [piece(low, high) for low, high in pairwise(places)]
    heapq.heapify(pieces)
    taken = points * len(pieces)
    while -sum(each[0] for each in pieces) > enough and taken + 2 * points <= GROWTH * steps:
        _, low, high, _, _ = heapq.heappop(pieces)
        middle = (low + high) / 2
        for part in ((low, middle), (middle, high)):
            heapq.heappush(pieces, piece(*part))
        taken += 2 * points
    return _Path(
        shares=torch.stack([each[4] for each in pieces]).sum(0),
        missed=sum(each[3] for each in pieces),
        due=last - first,
        points=taken,
        adds_up=-sum(each[0] for each in pieces) <= enough,
    )


def _ever_nearer(progress: Progress) -> Progress:
    """Return progress that is half way when the steps asked for are taken, and then moves on."""
    return lambda share: progress(1 - 2 ** (-GROWTH * share))


def flips_beside(
    model: SkipModel,
    trace: Trace,
    token: int | None = None,
    *,
    sample: int = SAMPLE,
    seed: int = 0,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> pl.DataFrame:
    """Return exact flips to compare the shares over depth of the same loss with.

    Parameters
    ----------
    model, trace
        As for ``attribute_depth``.
    token
        The token whose loss got the shares: all of its own decisions are flipped. None for the
        whole text: of all decisions as many as ``sample`` are drawn, and count for all of the text
        that follows.
    sample
        How many to draw.
    seed
        Seed of the draw.
    progress, stop
        As for ``attribute_depth``.

    Returns
    -------
    pl.DataFrame
        What ``skipviz.audit`` returns.
    """
    sites = trace.sites.height
    if token is not None:
        cells = [(token, site) for site in range(sites)]
        return audit(model, trace, cells=cells, progress=progress, stop=stop)
    every = (len(trace) - 1) * sites
    drawn = np.random.default_rng(seed).choice(every, min(sample, every), replace=False)
    cells = [divmod(int(cell), sites) for cell in np.sort(drawn)]
    return audit(model, trace, cells=cells, horizon=None, progress=progress, stop=stop)


def _text_loss(
    model: SkipModel, states: Float[Tensor, "b t d"], following: Int[Tensor, " t"]
) -> Float[Tensor, " b"]:
    """Return the summed loss of each copy; logits are computed again for the gradient, not kept."""
    rows = states.flatten(0, 1).split(HEAD_ROWS)
    words = following.repeat(len(states)).split(HEAD_ROWS)
    losses = [
        checkpoint(next_token_losses, model.model, some, wanted, use_reentrant=False)
        for some, wanted in zip(rows, words, strict=True)
    ]
    summed: Tensor = torch.cat(losses).view(len(states), -1).sum(1)
    return summed


def _check_length(model: SkipModel, trace: Trace) -> None:
    if not 2 <= len(trace) <= model.context:
        raise InputError(
            f"The text has {len(trace)} tokens; its loss is attributed where it has at least 2 and "
            f"at most the {model.context} that the model sees at once."
        )


@contextmanager
def _mixed(units: Sequence[SkippableUnit], mix: Float[Tensor, "b t s"]) -> Iterator[None]:
    """Let every gated unit give a mixture of unit and skip path."""
    hooks: list[Hook] = []

    def always(decide: nn.Module, args: Any, executed: Tensor) -> Tensor:
        return torch.ones_like(executed)

    for site, unit in enumerate(units):
        skipped: list[Tensor] = []

        def keep(module: Any, args: Any, result: Tensor, skipped: list[Tensor] = skipped) -> None:
            skipped.append(result)

        def blend(
            module: Any, args: Any, result: Any, site: int = site, kind: str = unit.kind,
            skipped: list[Tensor] = skipped,
        ) -> Any:  # fmt: skip
            output = result[0] if kind == "attn" else result
            share = mix[:, :, site, None].to(output.dtype)
            blended = share * output + (1 - share) * skipped.pop()
            return (blended, *result[1:]) if kind == "attn" else blended

        hooks += [after(unit.decide, always), after(unit.adapter, keep), after(unit.module, blend)]
    with hooked(hooks):
        yield
