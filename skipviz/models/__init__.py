"""Find, fetch, verify and load a model."""

from skipviz.models.loading import SkipModel, from_parts, load

__all__ = ["SkipModel", "from_parts", "load"]
