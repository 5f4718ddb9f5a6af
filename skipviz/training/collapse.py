"""Notices a gate that no longer chooses."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from skipviz.errors import TrainingError


class CollapseWatch:
    """Stops training when a gate has run for all tokens, or for none, of so many steps.

    Parameters
    ----------
    labels
        Names of the sites, in running order.
    steps
        Consecutive steps that are too many; 0 never stops.

    Attributes
    ----------
    since
        For each site, the first of the latest run of steps in which it did not choose, or -1.

    Notes
    -----
    A run that is taken up again has so many steps anew, or no other learning rate could mend it.
    """

    def __init__(self, labels: Sequence[str], *, steps: int) -> None:
        self._labels = labels
        self._steps = steps
        self.since = [-1] * len(labels)
        self._seen = 0

    def see(self, step: int, rates: Float[Tensor, " sites"]) -> None:
        """Take a step's execution rates.

        Raises
        ------
        TrainingError
            Naming the site, what it does and since when.
        """
        self._seen += 1
        patient = not self._steps or self._seen < self._steps
        for site, rate in enumerate(rates.tolist()):
            if 0 < rate < 1:
                self.since[site] = -1
            elif self.since[site] < 0:
                self.since[site] = step
            first = self.since[site]
            if not patient and first >= 0 and step + 1 - first >= self._steps:
                what = "runs for every token" if rate == 1 else "runs for no token"
                raise TrainingError(
                    f"The gate of {self._labels[site]} {what} since step {first}, "
                    f"{step + 1 - first} steps ago: it has collapsed. Lower --gate-lr, or let it "
                    "be with --collapse-after 0."
                )
