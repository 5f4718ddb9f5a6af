"""What every family offers: where its gates are, how to read them, how to force them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from skipviz.errors import InputError
from skipviz.schema import Site


@runtime_checkable
class EventSink(Protocol):
    """Receives gate events, in the order in which sites fire."""

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
        """Take one firing of a site, which may fire never, once or often in a forward.

        If it fires for a token again, times run add up, and the last score stands. A token that no
        firing names did not run there.

        Parameters
        ----------
        site
            Index of the site in ``Family.sites``.
        ran
            True where the unit ran, or how often, 0 to 255.
        score
            What the gate emitted, on its own scale; None: nothing.
        threshold
            What scores were compared with: one for all, of shape [], one per row, [b, 1], or one
            per token; None: with nothing, as where decisions are sampled.
        p_execute
            The probability that the unit runs, where the family defines one.
        positions
            Which tokens of this forward were asked, [b, n]; None: all, and n is their number.
        forced
            True where a plan decided instead of the gate; None where none did anywhere.
        """


@dataclass(frozen=True)
class Plan:
    """Decisions to make instead of the gates.

    Attributes
    ----------
    execute
        True where the unit is to run, of shape [tokens, sites] for one sequence, or
        [batch, tokens, sites], as an array or what becomes one. A plan is used up in order: prefill
        first, then each decoded token.
    forced
        Where the plan applies, of the same shape; elsewhere the gate decides. None: everywhere.

    Raises
    ------
    ValueError
        If they are not booleans, or the shapes differ or are not of two or three dimensions.

    Examples
    --------
    >>> import numpy as np
    >>> every = skipviz.Plan(np.ones((len(trace), trace.sites.height), dtype=bool))
    >>> full = skipviz.trace(model, "".join(trace.tokens["text"]), plan=every)
    >>> full.tokens["layers_used"].unique().to_list()
    [6.0]
    """

    execute: npt.NDArray[np.bool_]
    forced: npt.NDArray[np.bool_] | None = None

    def __repr__(self) -> str:
        where = "everywhere" if self.forced is None else f"{int(self.forced.sum()):,} decisions"
        return f"Plan({self.execute.shape}, {self.execute.mean():.0%} run, forced {where})"

    def __post_init__(self) -> None:
        object.__setattr__(self, "execute", _booleans(self.execute, "execute"))
        if self.forced is None:
            return
        object.__setattr__(self, "forced", _booleans(self.forced, "forced"))
        if self.forced.shape != self.execute.shape:
            raise InputError(
                f"forced has shape {self.forced.shape} and execute {self.execute.shape}; "
                "they must be the same."
            )


def _booleans(values: Any, name: str) -> npt.NDArray[np.bool_]:
    """Return a part of a plan, which may be lists or a tensor, as an array."""
    try:
        found = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
    except ValueError:  # rows of different lengths
        found = np.asarray(values, dtype=np.object_)
    if found.ndim not in (2, 3) or found.dtype != np.bool_:
        raise InputError(
            f"{name} of a plan is a boolean array [tokens, sites] or [batch, tokens, sites]; this "
            f"one has shape {found.shape} and type {found.dtype}."
        )
    return found


@runtime_checkable
class Family(Protocol):
    """One way of skipping."""

    name: str

    def detect(self, model: nn.Module) -> bool:
        """Say whether the model is of this family."""

    def sites(self, model: nn.Module) -> list[Site]:
        """Return the places of decision, in the order in which they run."""

    def observe(self, model: nn.Module, sink: EventSink) -> AbstractContextManager[None]:
        """Read every decision made in this thread, without changing a bit of the output."""
