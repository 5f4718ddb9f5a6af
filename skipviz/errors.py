"""Every error that a user can meet: its message is a sentence that says what to do.

Anything else that is raised is a fault of skipviz or of a library, and is shown with a traceback.
"""

from __future__ import annotations


class SkipvizError(Exception):
    """What a user can do something about; the base of all errors below."""


class InputError(SkipvizError, ValueError):
    """A value that cannot be used; the message names it, and what can be."""


class TextError(InputError):
    """A text that cannot be used."""


class TraceError(InputError):
    """A trace that cannot be, or does not go with another."""


class StoreError(InputError):
    """A file of stored results that cannot be used: damaged, or of something else."""


class ModelError(SkipvizError, RuntimeError):
    """A model cannot be had."""


class UnknownModelError(ModelError):
    """A model looks as if it skipped, and no family knows how; its gates can be described."""


class RecordingError(SkipvizError, RuntimeError):
    """Nothing was recorded, or what ran cannot be recorded."""


class CorpusError(SkipvizError, RuntimeError):
    """A corpus could not be fetched."""


class TrainingError(SkipvizError, RuntimeError):
    """Training cannot go on: a gate collapsed, or a loss is not a number."""


class MissingExtraError(SkipvizError, ImportError):
    """A package is missing that a part of skipviz stands on; the message says what to install."""


class Stopped(SkipvizError):
    """The run was stopped by the user."""
