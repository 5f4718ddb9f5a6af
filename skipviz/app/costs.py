"""How long runs take on this machine, as far as it was measured."""

from __future__ import annotations

import math
import threading
from collections import defaultdict, deque
from dataclasses import dataclass

KEPT_MEASUREMENTS = 16
"""Of each kind of run, the latest."""


@dataclass(frozen=True)
class Effort:
    """What a run costs, but for how fast the machine is.

    Attributes
    ----------
    kind
        Runs of one kind take as long as they are large.
    size
        How large: tokens times runs of the model, for example.
    """

    kind: str
    size: float | int


class Costs:
    """Seconds that runs took."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._measured: defaultdict[str, deque[tuple[float | int, float]]] = defaultdict(
            lambda: deque(maxlen=KEPT_MEASUREMENTS)
        )

    def learn(self, effort: Effort, seconds: float | int) -> None:
        """Take in how long a run took that was done."""
        if effort.size > 0 and seconds > 0:
            with self._lock:
                self._measured[effort.kind].append((effort.size, seconds))

    def seconds(self, effort: Effort) -> float | None:
        """Return about how long a run takes, as the measured one whose size is nearest took.

        None before any run of its kind.
        """
        with self._lock:
            known = list(self._measured.get(effort.kind, ()))
        if not known or effort.size <= 0:
            return None
        size, seconds = min(reversed(known), key=lambda each: abs(math.log(each[0] / effort.size)))
        return seconds * effort.size / size
