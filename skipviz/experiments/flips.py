"""Which way of flipping decisions gives what a model's own forward gives; tried once per model."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from skipviz.errors import InputError
from skipviz.experiments.decoded_flips import CachedRun, decoded_flips
from skipviz.experiments.row_flips import RowFlips, UnflippedRun, rows_run
from skipviz.families import Plan
from skipviz.families.llama import decoder_layers
from skipviz.families.powers import SkippableUnit, force
from skipviz.models import SkipModel
from skipviz.progress import Meter, no_progress

FLIP_TRIAL_TOKENS = 12
TRIED_FLIPS = 6
LOSS_TOLERANCE = {torch.float32: 5e-4, torch.float64: 1e-6}
ROUGH_LOSSES = 0.1
"""How much losses over the trial may differ by rounding, in nats; more in shorter types."""

_LOCK = threading.Lock()
_WAYS: WeakKeyDictionary[nn.Module, type[Flips] | None] = WeakKeyDictionary()


class Flips(ABC):
    """A text whose decisions can be flipped."""

    _run: Callable[..., UnflippedRun | CachedRun]
    """Runs the text as it was decided."""

    def __init__(
        self,
        model: SkipModel,
        units: Sequence[SkippableUnit],
        ids: Int[Tensor, "1 t"],
        decided: npt.NDArray[np.bool_],
        *,
        stop: threading.Event | None = None,
    ) -> None:
        self._model, self._units = model, units
        self._base: Any = type(self)._run(model, ids, decided, stop=stop)

    @property
    def nll(self) -> Float[Tensor, " n"]:
        """Losses of the unflipped run, in nats."""
        found: Tensor = self._base.nll
        return found

    @abstractmethod
    def losses(
        self, cells: Sequence[tuple[int, int]], reach: int, *, react: bool, meter: Meter
    ) -> tuple[Float[Tensor, " r"], Float[Tensor, "r s"]]:
        """Return the loss of each flip over its horizon, in nats, and how near gates came.

        The second is, for each site whose gate decided anew after the flip, the smallest distance
        of its scores from the threshold over the flip's tokens; infinity where it did not. The
        meter counts ``work``.
        """

    @abstractmethod
    def work(self, cells: Sequence[tuple[int, int]], reach: int) -> int:
        """Return how much there is to do, in a unit of its own."""


class _ByRows(Flips):
    """Flips by ``row_flips``."""

    _run = UnflippedRun.of

    def losses(
        self, cells: Sequence[tuple[int, int]], reach: int, *, react: bool, meter: Meter
    ) -> tuple[Float[Tensor, " r"], Float[Tensor, "r s"]]:
        flips = RowFlips(self._model.model, self._units, self._base, cells, reach, react=react)
        return flips.run(meter), flips.margins

    def work(self, cells: Sequence[tuple[int, int]], reach: int) -> int:
        layers = len(decoder_layers(self._model.model))
        return rows_run(cells, self._units, layers=layers, length=len(self.nll), reach=reach)


class _ByDecoding(Flips):
    """Flips by ``decoded_flips``."""

    _run = CachedRun.of

    def losses(
        self, cells: Sequence[tuple[int, int]], reach: int, *, react: bool, meter: Meter
    ) -> tuple[Float[Tensor, " r"], Float[Tensor, "r s"]]:
        return decoded_flips(
            self._model, self._units, self._base, cells, reach, react=react, meter=meter
        )

    def work(self, cells: Sequence[tuple[int, int]], reach: int) -> int:
        return len(cells)


def flips_of(
    model: SkipModel,
    units: Sequence[SkippableUnit],
    ids: Int[Tensor, "1 t"],
    decided: npt.NDArray[np.bool_],
    *,
    stop: threading.Event | None = None,
) -> Flips:
    """Return what flips decisions of a text, in the quickest way that is right for this model.

    Parameters
    ----------
    model
        The gated model.
    units
        Its gated units, in running order.
    ids
        The text.
    decided
        The decisions that were made, [tokens, sites].
    stop
        Set it from another thread to stop.

    Raises
    ------
    InputError
        If no way gives the losses of the model's own forward.
    """
    return _way(model, units, ids, decided)(model, units, ids, decided, stop=stop)


def _way(
    model: SkipModel,
    units: Sequence[SkippableUnit],
    ids: Int[Tensor, "1 t"],
    decided: npt.NDArray[np.bool_],
) -> type[Flips]:
    config = model.model.config
    windows = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
    if any(window is not None and window < ids.shape[1] for window in windows):
        return _ByDecoding  # rows see the whole text, layers do not
    with _LOCK:
        if model.model not in _WAYS:
            # A shorter text is repeated: what follows hardly anything shows little.
            times = -(-FLIP_TRIAL_TOKENS // ids.shape[1])
            longer, more = ids.repeat(1, times), np.tile(decided, (times, 1))
            some = (model, units, longer[:, :FLIP_TRIAL_TOKENS], more[:FLIP_TRIAL_TOKENS])
            _WAYS[model.model] = next(
                (way for way in (_ByRows, _ByDecoding) if _right(way, *some)), None
            )
        way = _WAYS[model.model]
    if way is None:
        raise InputError(
            f"{model.name} cannot be audited: on a few tokens of this text, flips run by skipviz "
            f"do not give the losses of {type(model.model).__name__}'s own forward."
        )
    return way


def _right(
    way: type[Flips],
    model: SkipModel,
    units: Sequence[SkippableUnit],
    ids: Int[Tensor, "1 t"],
    decided: npt.NDArray[np.bool_],
) -> bool:
    """Return whether unflipped losses and a few flips are those of whole forced forwards."""
    length, sites = ids.shape[1] - 1, decided.shape[1]
    spread = np.linspace(0, length * sites - 1, TRIED_FLIPS).astype(int)
    cells = sorted({divmod(int(cell), sites) for cell in spread}, key=lambda cell: cell[1])
    execute = np.repeat(decided[None], len(cells) + 1, axis=0)
    for row, (token, site) in enumerate(cells):
        execute[row, token, site] = ~execute[row, token, site]
    with force(model.family, model.model, Plan(execute), name=model.name):
        logits = model.model(ids.expand(len(execute), -1), use_cache=False).logits[:, :-1]
    each = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).double(), ids[0, 1:].repeat(len(execute)), reduction="none"
    ).view(len(execute), -1)
    whole = torch.stack([each[row, token:].sum() for row, (token, _) in enumerate(cells)])
    try:
        flips = way(model, units, ids, decided)
        meter = Meter(1, no_progress, None)
        found = flips.losses(cells, length, react=False, meter=meter)[0].to(whole)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return False  # its layers are of another kind
    allowed = LOSS_TOLERANCE.get(model.model.dtype, ROUGH_LOSSES)
    return bool(
        (flips.nll.double() - each[-1].to(flips.nll.device)).abs().amax() <= allowed
        and (found - whole).abs().amax() <= allowed * max(1.0, float(whole.abs().amax()) ** 0.5)
    )
