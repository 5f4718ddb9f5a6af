"""Find, fetch, verify and load a model."""

from skipviz.models.errors import ModelError
from skipviz.models.load import SkipModel, from_parts, load

__all__ = ["ModelError", "SkipModel", "from_parts", "load"]
