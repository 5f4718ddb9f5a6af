"""Find, fetch, verify and load a model."""

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
