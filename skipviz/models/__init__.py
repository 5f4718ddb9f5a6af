"""Find, fetch, verify and load a model."""

from typing import TYPE_CHECKING

from skipviz.late_names import late_names

if TYPE_CHECKING:
    from skipviz.models.handle import SkipModel, at_budget, at_limit, at_threshold, with_policy
    from skipviz.models.loading import from_parts, load, read_settings

__all__ = [
    "SkipModel",
    "at_budget",
    "at_limit",
    "at_threshold",
    "from_parts",
    "load",
    "read_settings",
    "with_policy",
]

_HOMES = {
    "handle": ("SkipModel", "at_budget", "at_limit", "at_threshold", "with_policy"),
    "loading": ("from_parts", "load", "read_settings"),
}
"""The module that each name is in."""

if not TYPE_CHECKING:
    __getattr__ = late_names(__name__, _HOMES)
