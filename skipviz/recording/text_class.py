"""The class that a model predicts of a text that it reads as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from skipviz.schema import TOKENS
from skipviz.text.documents import storable

SEVERAL_AT_ONCE = "multi_label_classification"
"""What the configuration calls a model whose text may be of several classes, or of none."""


@dataclass(frozen=True)
class TextClass:
    """What a model predicts of a text.

    Attributes
    ----------
    label
        The class, as the model's configuration names it.
    prob
        Its probability, the softmax of the model's own logits.
    """

    label: str
    prob: float


def logits_in(output: Any) -> Tensor:
    """Return the logits in what a model's forward gave; older code gives a tuple."""
    found: Tensor = output.logits if hasattr(output, "logits") else output[0]
    return found.detach()


def text_classes(model: nn.Module, logits: Tensor) -> list[TextClass | None]:
    """Return the class that each text of a batch is given.

    None stands where a model predicts something else than one class: a single number, or several
    classes at once; and where its logits are no numbers.

    Parameters
    ----------
    model
        The model, whose configuration names its classes.
    logits
        Of each text, [texts, classes].
    """
    config: Any = getattr(model, "config", None)
    several = getattr(config, "problem_type", None) == SEVERAL_AT_ONCE
    if logits.ndim != 2 or logits.shape[-1] < 2 or several:
        return [None] * len(logits)
    names = getattr(config, "id2label", None) or {}
    probs, places = torch.softmax(logits.double(), dim=-1).max(dim=-1)
    return [
        TextClass(storable(str(names.get(place, place))), prob) if np.isfinite(prob) else None
        for prob, place in zip(probs.tolist(), places.tolist(), strict=True)
    ]


def class_columns(classes: Sequence[TextClass | None]) -> dict[str, pl.Series]:
    """Return the columns of a table of tokens that hold classes.

    Parameters
    ----------
    classes
        One per token.
    """
    columns: dict[str, list[Any]] = {
        "class_label": [None if each is None else each.label for each in classes],
        "class_prob": [None if each is None else each.prob for each in classes],
    }
    return {name: pl.Series(name, told, dtype=TOKENS[name]) for name, told in columns.items()}
