"""See which layers each token of a dynamic-depth transformer used, and why.

``skipviz.load`` gives a model, ``skipviz.trace`` runs it over a text, ``skipviz.generate`` has it
write one, ``skipviz.record`` listens to a run of your own, ``skipviz.audit`` flips every decision
to see what it was worth. A ``Trace`` is four Polars tables.

Every name is imported when it is first used: a saved trace is loaded, analysed and drawn without
torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from skipviz.late_names import late_names

if TYPE_CHECKING:
    from skipviz import plots
    from skipviz.analysis.clusters.clustered import Clusters
    from skipviz.analysis.clusters.clustering import cluster
    from skipviz.analysis.comparison import TraceComparison, compare_traces
    from skipviz.analysis.counterfactual import WhatIf
    from skipviz.analysis.findings import CheckUp, Finding
    from skipviz.analysis.gates.score_correlation import correlate
    from skipviz.analysis.timing.measured import Cost
    from skipviz.corpus.importing import import_corpus
    from skipviz.corpus.on_ray import Workers
    from skipviz.corpus.questions.comparison import CorpusComparison, compare_corpora
    from skipviz.corpus.questions.word_search import Concordance, concordance
    from skipviz.corpus.reading.dataset import CorpusDataset, CorpusSample, open_corpus
    from skipviz.corpus.run import trace_corpus
    from skipviz.corpus.summaries import CorpusProgress, CorpusSummary
    from skipviz.errors import (
        CorpusError,
        InputError,
        MissingExtraError,
        ModelError,
        RecordingError,
        SkipvizError,
        Stopped,
        StoreError,
        TextError,
        TraceError,
        TrainingError,
    )
    from skipviz.evaluation.evaluating import evaluate
    from skipviz.experiments.attribution.over_depth import attribute_depth
    from skipviz.experiments.attribution.over_tokens import attribute
    from skipviz.experiments.attribution.target import Attribution, Target
    from skipviz.experiments.checkup.running import check
    from skipviz.experiments.counterfactuals.answering import what_if
    from skipviz.experiments.decision_audit import audit
    from skipviz.experiments.inspection import Proposal, inspect
    from skipviz.experiments.timing.costing import cost
    from skipviz.experiments.timing.grid import bench
    from skipviz.families.base import Plan
    from skipviz.families.described.spec import GateSpec
    from skipviz.models.handle import SkipModel, at_budget, at_limit, with_policy
    from skipviz.models.loading import from_parts, load
    from skipviz.models.runtimes import with_runtime
    from skipviz.recording.generating import Generation, StreamedToken, generate
    from skipviz.recording.generation_comparison import GenerationComparison, compare_generations
    from skipviz.recording.recorder import Recording, record
    from skipviz.recording.tracing import trace
    from skipviz.reports.bundling import bundle
    from skipviz.reports.reporting import report
    from skipviz.schema import Site
    from skipviz.text.documents import Document
    from skipviz.traces import Trace

    __version__: str

__all__ = [
    "Attribution",
    "CheckUp",
    "Clusters",
    "Concordance",
    "CorpusComparison",
    "CorpusDataset",
    "CorpusError",
    "CorpusProgress",
    "CorpusSample",
    "CorpusSummary",
    "Cost",
    "Document",
    "Finding",
    "GateSpec",
    "Generation",
    "GenerationComparison",
    "InputError",
    "MissingExtraError",
    "ModelError",
    "Plan",
    "Proposal",
    "Recording",
    "RecordingError",
    "Site",
    "SkipModel",
    "SkipvizError",
    "Stopped",
    "StoreError",
    "StreamedToken",
    "Target",
    "TextError",
    "Trace",
    "TraceComparison",
    "TraceError",
    "TrainingError",
    "WhatIf",
    "Workers",
    "__version__",
    "at_budget",
    "at_limit",
    "attribute",
    "attribute_depth",
    "audit",
    "bench",
    "bundle",
    "check",
    "cluster",
    "compare_corpora",
    "compare_generations",
    "compare_traces",
    "concordance",
    "correlate",
    "cost",
    "evaluate",
    "from_parts",
    "generate",
    "import_corpus",
    "inspect",
    "load",
    "open_corpus",
    "plots",
    "record",
    "report",
    "trace",
    "trace_corpus",
    "what_if",
    "with_policy",
    "with_runtime",
]

_HOMES = {
    "analysis.clusters.clustered": ("Clusters",),
    "analysis.clusters.clustering": ("cluster",),
    "analysis.gates.score_correlation": ("correlate",),
    "analysis.comparison": ("TraceComparison", "compare_traces"),
    "analysis.counterfactual": ("WhatIf",),
    "analysis.timing.measured": ("Cost",),
    "corpus.importing": ("import_corpus",),
    "corpus.on_ray": ("Workers",),
    "corpus.questions.comparison": ("CorpusComparison", "compare_corpora"),
    "corpus.questions.word_search": ("Concordance", "concordance"),
    "corpus.reading.dataset": ("CorpusDataset", "CorpusSample", "open_corpus"),
    "corpus.summaries": ("CorpusProgress", "CorpusSummary"),
    "corpus.run": ("trace_corpus",),
    "errors": (
        "CorpusError", "InputError", "MissingExtraError", "ModelError", "RecordingError",
        "SkipvizError", "Stopped", "StoreError", "TextError", "TraceError",
        "TrainingError",
    ),
    "evaluation.evaluating": ("evaluate",),
    "experiments.attribution.over_depth": ("attribute_depth",),
    "experiments.attribution.over_tokens": ("attribute",),
    "experiments.attribution.target": ("Attribution", "Target"),
    "analysis.findings": ("CheckUp", "Finding"),
    "experiments.checkup.running": ("check",),
    "experiments.counterfactuals.answering": ("what_if",),
    "experiments.decision_audit": ("audit",),
    "experiments.inspection": ("Proposal", "inspect"),
    "experiments.timing.costing": ("cost",),
    "experiments.timing.grid": ("bench",),
    "families.base": ("Plan",),
    "families.described.spec": ("GateSpec",),
    "models.handle": ("SkipModel", "at_budget", "at_limit", "with_policy"),
    "models.loading": ("from_parts", "load"),
    "models.runtimes": ("with_runtime",),
    "recording.generating": ("Generation", "StreamedToken", "generate"),
    "recording.generation_comparison": ("GenerationComparison", "compare_generations"),
    "recording.recorder": ("Recording", "record"),
    "recording.tracing": ("trace",),
    "reports.bundling": ("bundle",),
    "reports.reporting": ("report",),
    "schema": ("Site",),
    "text.documents": ("Document",),
    "traces": ("Trace",),
}  # fmt: skip
"""The module that each public name is in."""

if not TYPE_CHECKING:
    _of_modules = late_names(__name__, _HOMES)

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib.metadata import version

            found = version("skipviz")
        elif name == "plots":
            found = import_module("skipviz.plots")
        else:
            return _of_modules(name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return __all__
