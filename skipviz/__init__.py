"""See which layers each token of a dynamic-depth transformer used, and why.

``skipviz.load`` gives a model, ``skipviz.trace`` runs it over a text, ``skipviz.record`` listens
to a run of your own, ``skipviz.audit`` flips every decision to see what it was worth. A
``Trace`` is four Polars tables.
"""

from __future__ import annotations

from skipviz.analysis.clusters.clustering import Clusters, cluster
from skipviz.errors import ModelError, RecordingError, Stopped, TextError, TraceError
from skipviz.experiments.decision_audit import audit
from skipviz.families import Plan
from skipviz.models import SkipModel, from_parts, load
from skipviz.recording.recorder import Recording, record
from skipviz.recording.tracing import trace
from skipviz.text.documents import Document
from skipviz.traces import Trace, register_html

__all__ = [
    "Clusters",
    "Document",
    "ModelError",
    "Plan",
    "Recording",
    "RecordingError",
    "SkipModel",
    "Stopped",
    "TextError",
    "Trace",
    "TraceError",
    "audit",
    "cluster",
    "from_parts",
    "load",
    "record",
    "trace",
]


def _coloured_text(traced: Trace) -> str:
    # Plotly is imported when a notebook first shows a trace, not before.
    from skipviz.plots import token_html

    return token_html(traced)


register_html(_coloured_text)
