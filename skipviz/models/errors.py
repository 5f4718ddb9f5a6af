"""What goes wrong between a model's name and a model that runs."""

from __future__ import annotations


class ModelError(RuntimeError):
    """A model cannot be had; the message says why and what to do."""
