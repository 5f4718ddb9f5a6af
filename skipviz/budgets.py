"""What is kept for each budget, found whether it is asked for as ``0.8`` or as ``"0.80"``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from skipviz.errors import InputError

T = TypeVar("T")


def budget_key(budget: float | str) -> str:
    """Return how a budget, or a limit, is written in files and tables: ``0.8``."""
    try:
        return f"{float(budget):g}"
    except ValueError:
        raise InputError(f"{budget!r} is not a number; give a budget such as 0.8.") from None


class Budgets(Mapping[float, T], Generic[T]):
    """A value for each budget, in the order given.

    Parameters
    ----------
    values
        Values by budget, as numbers or as they are written in files.

    Raises
    ------
    InputError
        If a key is not a number, or two keys are one budget.
    """

    def __init__(self, values: Mapping[float, T] | Mapping[str, T] | None = None) -> None:
        given = dict(values or {})
        self._values = {budget_key(budget): value for budget, value in given.items()}
        if len(self._values) < len(given):
            raise InputError(f"Some budgets are the same: {', '.join(map(str, given))}.")

    def __getitem__(self, budget: float | str) -> T:
        return self._values[budget_key(budget)]

    def __contains__(self, budget: object) -> bool:
        return isinstance(budget, int | float | str) and budget_key(budget) in self._values

    def __iter__(self) -> Iterator[float]:
        return map(float, self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Budgets({self._values})"

    def __str__(self) -> str:
        """Return the budgets in words: ``0.8, 0.9``."""
        return ", ".join(self._values)

    def replaced(self, budget: float | str, value: T) -> Budgets[T]:
        """Return the same with one budget's value set, behind the others if it is new."""
        return Budgets({**self._values, budget_key(budget): value})

    def to_json(self) -> dict[str, T]:
        """Return the values by the budget as it is written in files."""
        return dict(self._values)
