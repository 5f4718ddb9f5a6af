"""Whether a trace is of the model that is to be run again, under the same thresholds."""

from __future__ import annotations

import numpy as np

from skipviz.errors import InputError
from skipviz.families.powers import CanMoveThresholds
from skipviz.models import SkipModel
from skipviz.models.handle import check_evaluating
from skipviz.models.hashes import run_setup_sha256
from skipviz.models.spreading import check_not_spread
from skipviz.traces import Trace


def check_traced(model: SkipModel, trace: Trace) -> None:
    """Check that a trace is of a model as it is given, which is on one device.

    Raises
    ------
    InputError
        As ``check_own_trace``, or if the model is spread over several devices.
    """
    check_not_spread(model.model, "Running a trace again")
    check_own_trace(model, trace)


def check_own_trace(model: SkipModel, trace: Trace) -> None:
    """Check that a trace is of a model as it is given; what the trace does not know is let pass.

    Raises
    ------
    InputError
        If sites, weights, configuration or thresholds are others, or it is in training mode.
    """
    check_evaluating(model)
    labels = [site.label for site in model.family.sites(model.model)]
    if trace.sites["label"].to_list() != labels:
        raise InputError(
            f"The trace is of other sites than this model's: it has {trace.sites.height} sites and "
            f"the model has {len(labels)} sites. Trace the text with this model."
        )
    for column, here, what in (
        ("weights_sha256", model.weights_sha256, "other weights"),
        ("setup_sha256", run_setup_sha256(model), "another configuration or other thresholds"),
    ):
        traced = trace.run[column].item()
        if traced and here and traced != here:
            raise InputError(
                f"The trace was made with {what} ({traced[:12]}) than the model given has "
                f"({here[:12]}). Give the model that was traced, at the same budget."
            )
    if isinstance(model.family, CanMoveThresholds):
        limits = np.array(model.family.thresholds(model.model), dtype=np.float32)
        was = trace.matrix("threshold")
        if ((was != limits) & ~np.isnan(was)).any():
            raise InputError(
                "The trace was made at other thresholds than those of the model given. Give the "
                "model that was traced, at the same budget."
            )
