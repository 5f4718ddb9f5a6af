"""The analyses that a report can have: what each needs, and the section it becomes."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from skipviz.analysis.clusters.cards import cluster_classes, cluster_figures
from skipviz.analysis.clusters.clustered import mean_profiles
from skipviz.analysis.clusters.clustering import cluster
from skipviz.analysis.clusters.maps import map_profiles
from skipviz.analysis.gates.quality import (
    controls,
    implied_price,
    judged,
    quality,
    quality_by,
    reliability,
)
from skipviz.analysis.layers.difficulty import (
    DIFFICULTIES,
    depth_against_difficulty,
    depth_by_difficulty,
    difficulty,
)
from skipviz.analysis.layers.specialties import significant_specialties, specialties
from skipviz.analysis.tokens.classes import token_classes
from skipviz.errors import InputError, SkipvizError, Stopped
from skipviz.experiments.checkup.running import check
from skipviz.experiments.decision_audit import audit
from skipviz.models import SkipModel
from skipviz.plots.clusters import cluster_criterion, cluster_map, cluster_profiles
from skipviz.plots.decision_audit import ranking_by_layer, reliability_figure, utility_map
from skipviz.plots.difficulty import difficulty_curve
from skipviz.plots.specialties import specialty_map
from skipviz.progress import Progress
from skipviz.readings.clusters import reading
from skipviz.readings.decision_audit import audit_reading, first_token_reading, rounding_reading
from skipviz.readings.layers import difficulty_reading, features_of, specialty_reading
from skipviz.readings.tokens.word_lists import word_lists_reading
from skipviz.reports.sections import Drawing, Section, Table
from skipviz.traces import Trace


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What an analysis is given.

    Attributes
    ----------
    trace
        The trace.
    model
        The model that was traced; None if it is not at hand.
    seed
        Of draws.
    progress, stop
        As everywhere.
    """

    trace: Trace
    model: SkipModel | None
    seed: int
    progress: Progress
    stop: threading.Event | None


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """An analysis that a report can have.

    Attributes
    ----------
    title
        Its question.
    make
        Makes the section.
    by_default
        Whether it is cheap enough to be made unasked.
    needs_model
        Whether it runs the model.
    """

    title: str
    make: Callable[[str, Asked], Section]
    by_default: bool = False
    needs_model: bool = False


def check_names(names: Sequence[str], *, model_at_hand: bool) -> None:
    """Raise ``InputError`` unless there are such analyses, and a model for those that run one."""
    for name in names:
        if name not in ANALYSES:
            raise InputError(f"analyses={name!r} is not one of {', '.join(ANALYSES)}.")
        if ANALYSES[name].needs_model and not model_at_hand:
            raise InputError(f"The analysis {name!r} runs the model; give the one that was traced.")


def made(name: str, asked: Asked) -> Section:
    """Return the section of an analysis, which says why where it could not be made.

    Parameters
    ----------
    name
        A key of ``ANALYSES``.
    asked
        What it is made of.
    """
    found = ANALYSES[name]
    try:
        return found.make(found.title, asked)
    except Stopped:
        raise
    except SkipvizError as error:
        return Section(name=name, title=found.title, answer=[f"This was not made. {error}"])


def _difficulty(title: str, asked: Asked) -> Section:
    trace = asked.trace
    table = difficulty(trace)
    correlations = depth_against_difficulty(table, seed=asked.seed, progress=asked.progress)
    parts = depth_by_difficulty(table)
    answer = difficulty_reading(correlations)
    measures = [name for name in DIFFICULTIES if parts.filter(measure=name).height]
    return Section(
        name="difficulty",
        title=title,
        answer=_with_word_lists(answer, trace),
        drawings=[
            Drawing(
                difficulty_curve(trace, parts, measure=name),
                f"Curve of layers used along {DIFFICULTIES[name]}. {answer}",
            )
            for name in measures
        ],
        tables=[
            Table(name="depth-difficulty", title="Correlations", frame=correlations),
            Table(name="depth-by-difficulty", title="Curves", frame=parts),
            Table(name="difficulty", title="Every token", frame=table),
        ],
        caveat="p and q are of the coefficient without what changes slowly along a text, as any "
        "two figures that drift go together.",
    )


def _specialties(title: str, asked: Asked) -> Section:
    _check_gates(asked.trace)
    trace = asked.trace
    table = specialties(trace, token_classes(trace), seed=asked.seed, progress=asked.progress)
    answer = specialty_reading(table)
    names = features_of(table)[:1]
    return Section(
        name="specialties",
        title=title,
        answer=_with_word_lists(answer, trace),
        drawings=[
            Drawing(specialty_map(trace, table, feature=name), f"Map of log-odds. {answer}")
            for name in names
        ],
        tables=[
            Table(
                name="specialties",
                title="Classes and sites, those that differ most surely first",
                frame=table,
                shown=significant_specialties(table).select(
                    "class", "label", "tokens", "rate", "rate_outside", "log_odds", "low", "high",
                    "q",
                ),
            )
        ],
        caveat="Tests permute whole blocks of neighbouring tokens and are corrected for the whole "
        "table.",
    )  # fmt: skip


def _clusters(title: str, asked: Asked) -> Section:
    _check_gates(asked.trace)
    trace = asked.trace
    found = cluster(trace, seed=asked.seed, progress=asked.progress)
    figures = cluster_figures(trace, found.tokens)
    mapped = map_profiles(found, trace, seed=asked.seed)
    answer = reading(found)
    return Section(
        name="clusters",
        title=title,
        answer=_with_word_lists(answer, trace),
        drawings=[
            Drawing(cluster_map(trace, found.tokens, mapped), f"Map of tokens. {answer}"),
            Drawing(
                cluster_profiles(trace, mean_profiles(trace, found.tokens)),
                "Share of the tokens of each cluster for which each site ran.",
            ),
            Drawing(cluster_criterion(trace, found), f"Silhouette by number of clusters. {answer}"),
        ],
        tables=[
            Table(name="clusters", title="The clusters", frame=figures),
            Table(
                name="cluster-classes",
                title="Token classes in clusters",
                frame=cluster_classes(trace, found.tokens),
            ),
            Table(name="clustered-tokens", title="Every token", frame=found.tokens),
        ],
    )


def _audit(title: str, asked: Asked) -> Section:
    assert asked.model is not None
    trace = asked.trace
    cells = audit(asked.model, trace, progress=asked.progress, stop=asked.stop)
    marked = judged(trace, cells, price=implied_price(trace, cells))
    whole, shuffled = quality(marked), controls(marked, seed=asked.seed)["shuffled"]
    answer = audit_reading(whole, shuffled, tokens=marked["token"].n_unique())
    sites = quality_by(marked, "label")
    more = [first_token_reading(marked), rounding_reading(marked)]
    return Section(
        name="audit",
        title=title,
        answer=[answer, *(each for each in more if each)],
        drawings=[
            Drawing(utility_map(trace, marked), f"Map of net utility. {answer}"),
            Drawing(reliability_figure(trace, reliability(marked)), f"Reliability. {answer}"),
            Drawing(ranking_by_layer(trace, sites), "AUROC of the scores of each site."),
        ],
        tables=[
            Table(
                name="audit",
                title="Every decision, the most costly wrong ones first",
                frame=marked,
                shown=marked.sort("regret", descending=True).select(
                    "token", "label", "executed", "margin", "utility", "regret"
                ),
            ),
            Table(name="audit-sites", title="By site", frame=sites),
        ],
        caveat="Every decision is reversed alone, with all others held, and the loss on the next "
        "token is computed again. FLOPs are priced so that a perfect gate would spend as many.",
    )


def _check(title: str, asked: Asked) -> Section:
    found = check(asked.model or asked.trace, progress=asked.progress, stop=asked.stop)
    rows = [
        {
            "code": each.code,
            "outcome": each.outcome,
            "check": each.said,
            "figure": each.figure,
            "evidence": each.evidence,
            "advice": " ".join(part for part in (each.matters, each.advice) if part),
        }
        for each in found.ordered
    ]
    counts = Counter(each.outcome for each in found.findings)
    issues, unknown = counts["issue"], counts["skipped"]
    told = (
        "No check found an issue."
        if not issues
        else f"**{issues} of {len(rows)} checks found an issue**: read the figures with care."
    )
    what = "the model" if asked.model is not None else "the trace alone, without its model"
    left = f" {unknown} could not be made." if unknown else ""
    return Section(
        name="check",
        title=title,
        answer=[f"{told} Of {len(rows)} checks of {what}, {counts['passed']} passed.{left}"],
        tables=[Table(name="check", title="Findings", frame=pl.DataFrame(rows))],
    )


def _with_word_lists(answer: str, trace: Trace) -> list[str]:
    """Return an answer, and that English lists of words were not used where they were not."""
    return [answer, *filter(None, [word_lists_reading(trace)])]


def _check_gates(trace: Trace) -> None:
    if not trace.sites.height:
        raise InputError("This model has no gates: every layer runs for every token.")


ANALYSES = {
    "difficulty": Analysis(
        title="Do hard tokens use more layers?", make=_difficulty, by_default=True
    ),
    "specialties": Analysis(
        title="Which tokens run which layers?", make=_specialties, by_default=True
    ),
    "clusters": Analysis(title="Which tokens use the same layers?", make=_clusters),
    "audit": Analysis(title="Are the gates right?", make=_audit, needs_model=True),
    "check": Analysis(title="Can these figures be trusted?", make=_check),
}
"""Each by its name, in the order in which a report has them."""
CHEAP = tuple(name for name, each in ANALYSES.items() if each.by_default)
"""Those that are made unasked."""
