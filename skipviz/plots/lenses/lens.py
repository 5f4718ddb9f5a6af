"""A lens: numbers of tokens or cells, with name, unit and scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from skipviz.errors import InputError
from skipviz.plots.style.palette import CATEGORY_COLOURS, RAMPS

Scale = Literal["sequential", "diverging", "categories"]
Ends = tuple[float, float]

STRETCHED_SHARES = (0.05, 0.95)
"""Between which shares of a text's values its scale is stretched."""
UTILITY_LENS = "utility"
"""The lens of an audit, from which the canvas says what flipping a decision would do."""
OTHER = "other"
"""What categories beyond those with a colour of their own become."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Lens:
    """Numbers of tokens or cells that the text and the map can be painted with.

    Attributes
    ----------
    name
        What the numbers are.
    unit
        Their unit; empty for categories.
    values
        Of shape [tokens], or [tokens, sites] for one number a cell; NaN where unknown. Of
        categories, the index into ``categories``. Of a user's own, in 64 bits: all their digits.
    scale
        ``sequential``; ``diverging``, around 0; or ``categories``.
    ends
        The fixed scale, the same for every text, or one of a few where no one scale fits all;
        values beyond take the colour of the end.
    categories
        Their names.
    colours
        What the colours mean: a key of ``RAMPS``.
    note
        What the sign or the size means, in a few words.
    site_scales
        Whether each site has a scale of its own, as gates have: a stretched map then stretches
        each site to itself.

    Raises
    ------
    ValueError
        If the parts do not fit one another.
    """

    name: str
    unit: str
    values: npt.NDArray[np.float32] | npt.NDArray[np.float64]
    scale: Scale
    ends: Ends
    categories: tuple[str, ...] = ()
    colours: str = "own"
    note: str = ""
    site_scales: bool = False

    def __post_init__(self) -> None:
        if self.values.ndim not in (1, 2):
            raise InputError(
                f"The values of lens {self.name!r} have {self.values.ndim} dimensions; give one "
                "number per token, or one per token and site."
            )
        if not self.ends[0] < self.ends[1]:
            raise InputError(
                f"The ends {self.ends} of lens {self.name!r} are not in ascending order; give the "
                "lower end first."
            )
        if self.scale == "diverging" and self.ends[0] != -self.ends[1]:
            raise InputError(
                f"The ends {self.ends} of lens {self.name!r} are not the same on both sides of 0, "
                "as those of a diverging scale must be."
            )
        if self.colours not in RAMPS:
            raise InputError(f"colours={self.colours!r} is not one of {', '.join(RAMPS)}.")
        if (self.scale == "categories") != bool(self.categories):
            raise InputError(
                f"Lens {self.name!r} has scale {self.scale!r} and {len(self.categories)} "
                "categories; give names exactly if the scale is 'categories'."
            )
        if len(self.categories) > len(CATEGORY_COLOURS) + 1:
            raise InputError(
                f"Lens {self.name!r} has {len(self.categories)} categories; only "
                f"{len(CATEGORY_COLOURS)} and {OTHER!r} can be told apart."
            )

    @property
    def of_cells(self) -> bool:
        """Whether there is one number a cell."""
        return self.values.ndim == 2

    def stretched(self, *, site: int | None = None) -> Ends:
        """Return the ends of a scale stretched to these values.

        Between the ends lie nine tenths of the values; a diverging scale keeps 0 in its centre.
        Values that are all the same, or all unknown, keep the fixed scale.

        Parameters
        ----------
        site
            Stretch to the values of one site; to all if None.
        """
        values = self.values if site is None else self.values[:, site]
        known = values[np.isfinite(values)].astype(np.float64)
        if self.scale == "categories" or not len(known):
            return self.ends
        if self.scale == "diverging":
            most = float(np.quantile(np.abs(known), STRETCHED_SHARES[1] - STRETCHED_SHARES[0]))
            return (-most, most) if most > 0 else self.ends
        low, high = (float(end) for end in np.quantile(known, STRETCHED_SHARES))
        return (low, high) if low < high else self.ends
