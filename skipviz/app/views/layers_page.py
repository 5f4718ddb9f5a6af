"""The page of layers: what each one specialises in, over the texts traced last."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import polars as pl
import streamlit as st

from skipviz.analysis.layers.difficulty import (
    DIFFICULTIES,
    depth_against_difficulty,
    depth_by_difficulty,
    difficulty,
)
from skipviz.analysis.layers.specialties import significant_specialties, specialties
from skipviz.analysis.layers.task_depth import layers_by_task
from skipviz.analysis.tokens.classes import FEATURE_NAMES, token_classes
from skipviz.app.components.downloads import csv_buttons
from skipviz.app.components.heading import heading
from skipviz.app.components.notebook_cell import FROM_TRACE, model_line, notebook_cells
from skipviz.app.components.plain_text import plain
from skipviz.app.components.run_button import computed, jobs, tried
from skipviz.app.jobs import SEED, Request
from skipviz.app.one_text import no_gates, say_word_lists, text_caption, traced_text
from skipviz.app.state import on_canvas
from skipviz.app.token_range import TokenRange, chosen_range, say_whole_text
from skipviz.experiments.hidden_states.attention_paid import AttentionPaid, attention_paid
from skipviz.experiments.hidden_states.prediction_by_depth import (
    convergence_layers,
    exit_heads,
    layer_influence,
)
from skipviz.experiments.hidden_states.probes import LEAST_TOKENS, probes
from skipviz.experiments.hidden_states.states import SAMPLED_TOKENS, record_states
from skipviz.experiments.hidden_states.task_prompts import TaskDepths, task_depths
from skipviz.families.powers import HasExits
from skipviz.models import SkipModel
from skipviz.plots.attention_paid import attention_figure
from skipviz.plots.difficulty import difficulty_curve, task_figure
from skipviz.plots.lenses.found import class_lens
from skipviz.plots.prediction_by_depth import influence_bars, settled_histogram
from skipviz.plots.probes import probe_accuracy, probe_selectivity
from skipviz.plots.specialties import specialty_map
from skipviz.plots.style.labels import said_of
from skipviz.progress import Progress
from skipviz.readings.layers import (
    attention_reading,
    difficulty_reading,
    features_of,
    probe_reading,
    settling_reading,
    specialty_reading,
    task_reading,
)
from skipviz.readings.skipping import needs_next_token
from skipviz.traces import Trace

WITHIN = (
    " With several texts, blocks are moved within their text, so the tests ask what holds within "
    "each; rates and log-odds are over all texts."
)
STATES_READ = "from skipviz.experiments.hidden_states.states import record_states"
LINGUISTIC = "Part of speech and named entities (English, by spaCy)"

Result = TypeVar("Result")
Stop: TypeAlias = threading.Event


def page() -> None:
    """Offer the ways to look at what layers do, and show the one chosen."""
    heading(
        "What do layers specialise in?", "layers used", "site", "log-odds", "surprisal", "entropy",
        "probe", "control task", "selectivity", "logit lens", "Block Influence", "Spearman",
        "q-value", "95% interval",
    )  # fmt: skip
    known = traced_text()
    if known is None:
        return
    request, traced = known
    text_caption(traced)
    views = {
        "Token classes": _token_classes,
        "Difficulty": _difficulty,
        "Probes": _probes,
        "Predictions": _predictions,
        "Attention": _attention,
        "Tasks": _tasks,
    }
    chosen = st.segmented_control(
        "Look at",
        list(views),
        default="Token classes",
        required=True,
        key="layers_view",
        label_visibility="collapsed",
    )
    views[str(chosen)](request, traced)


def _token_classes(request: Request, traced: Trace) -> None:
    st.subheader("Which tokens run which layers")
    if not traced.sites.height:
        st.info(no_gates(traced, "every layer runs for every token"))
        return
    linguistic = st.toggle(LINGUISTIC, key="layers_linguistic")
    chosen = chosen_range(request, traced)

    def run(progress: Progress) -> pl.DataFrame:
        classes = chosen.rows(token_classes(traced, linguistic=linguistic))
        return specialties(chosen.part(traced), classes, seed=SEED, progress=progress)

    table = _analysed(request, f"specialties {linguistic}", run, chosen)
    if table is None:
        return
    st.markdown(specialty_reading(table))
    say_word_lists(request, traced)
    feature = _choose_feature(table, "specialty_feature")
    if feature is None:
        return
    st.plotly_chart(specialty_map(traced, table, feature=feature), key="specialty_map")
    st.caption(
        "Log-odds of running the layer for tokens of the class compared with all others: violet "
        "runs more often, orange less often. At the ends of the scale the odds are 20 times as "
        "high "
        "or as low. Cells are blank where the layer ran for all tokens or for none. Tests permute "
        "whole blocks of neighbouring tokens and are corrected for the whole table."
        + (WITHIN if traced.tokens["sequence"].n_unique() > 1 else "")
    )
    sure = significant_specialties(table)
    if sure.height:
        st.dataframe(
            sure.select(
                "class",
                pl.col("label").alias("site"),
                pl.col("rate").round(3).alias("runs for"),
                pl.col("rate_outside").round(3).alias("for all others"),
                pl.col("log_odds").round(2).alias("log-odds"),
                pl.col("low").round(2).alias("95% from"),
                pl.col("high").round(2).alias("to"),
                pl.col("mutual_information").round(4).alias("mutual information, nats"),
                pl.col("q"),
                "tokens",
            ),
            # So small where texts are long that it would not fit written out.
            column_config={"q": st.column_config.NumberColumn(format="%.1e")},
            hide_index=True,
            width="stretch",
            height=300,
        )
    _offer(traced, {"Classes and sites": ("specialties", table)})
    notebook_cells(
        f"skipviz.plots.specialty_map(trace, table, feature={feature!r})",
        imports=[
            "from skipviz.analysis.layers.specialties import specialties",
            "from skipviz.analysis.tokens.classes import token_classes",
            *chosen.imports,
        ],
        first=[
            FROM_TRACE,
            f"classes = token_classes(trace, linguistic={linguistic})",
            *chosen.lines_of_rows("classes"),
            *chosen.lines,
            f"table = specialties({chosen.variable}, classes, seed={SEED})",
        ],
    )
    on_canvas(request).paint(
        f"classes {linguistic} {feature}",
        lambda: [class_lens(token_classes(traced, linguistic=linguistic), feature=feature)],
        offered=True,
    )


def _difficulty(request: Request, traced: Trace) -> None:
    st.subheader("Do hard tokens use more layers?")
    chosen = chosen_range(request, traced)

    def run(progress: Progress) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        table = chosen.rows(difficulty(traced))
        found = depth_against_difficulty(table, seed=SEED, progress=progress)
        return table, found, depth_by_difficulty(table)

    tables = _analysed(request, "difficulty", run, chosen)
    if tables is None:
        return
    tokens, correlations, parts = tables
    st.markdown(difficulty_reading(correlations))
    say_word_lists(request, traced)
    # Of an encoder no loss is known.
    measures = [each for each in DIFFICULTIES if parts.filter(measure=each).height]
    for first in range(0, len(measures), 2):
        for column, measure in zip(st.columns(2), measures[first : first + 2], strict=False):
            figure = difficulty_curve(traced, parts, measure=measure)
            column.plotly_chart(figure, key=f"difficulty_{measure}")
    known = correlations.drop_nulls("r")
    st.dataframe(
        known.select(
            pl.col("measure").replace_strict(DIFFICULTIES),
            pl.col("r").round(3).alias("Spearman"),
            *(
                [pl.col("low").round(3).alias("95% from"), pl.col("high").round(3).alias("to")]
                if known["low"].count()
                else []
            ),
            *([pl.col("withheld").alias("no interval for")] if known["withheld"].count() else []),
            pl.col("r_detrended").round(3).alias("without slow changes"),
            pl.col("p").round(4),
            pl.col("q").round(4),
            "tokens",
        ),
        hide_index=True,
        width="stretch",
        placeholder="",
    )
    st.caption(
        "p and q are of the coefficient without what changes slowly along a text, as any two "
        "figures that drift go together."
    )
    if traced.tokens["sequence"].n_unique() > 1:
        st.caption(
            "With several texts, coefficients and tests compare tokens within each text; the "
            "curves "
            "are over all texts."
        )
    _offer(
        traced,
        {
            "Correlations": ("depth-difficulty", correlations),
            "Curves": ("depth-by-difficulty", parts),
            "Every token": ("difficulty", tokens),
        },
    )
    notebook_cells(
        *(f"skipviz.plots.difficulty_curve(trace, parts, measure={each!r})" for each in measures),
        imports=["from skipviz.analysis.layers.difficulty import depth_by_difficulty, difficulty"],
        first=[
            FROM_TRACE,
            "tokens = difficulty(trace)",
            *chosen.lines_of_rows("tokens"),
            "parts = depth_by_difficulty(tokens)",
        ],
    )


def _probes(request: Request, traced: Trace) -> None:
    st.subheader("What hidden states encode about a token")
    st.markdown(
        "A linear probe after each layer learns to read classes of tokens from the hidden state. "
        "It is tested on texts, or parts of a text, that it has not seen. Its **control task** "
        "gives every word a random label; accuracy above that is read from the state and not "
        "memorised. A layer counts as run if its last gated unit ran."
    )
    if len(traced) < LEAST_TOKENS:
        st.info(
            f"The text has {len(traced):,} tokens; probes need {LEAST_TOKENS}, to learn from some "
            "and be tested on others. Trace a longer text."
        )
        return
    say_whole_text(request, traced, why="probes learn from some parts and are tested on others.")
    linguistic = st.toggle(LINGUISTIC, key="probes_linguistic")

    def run(model: SkipModel, progress: Progress, stop: Stop) -> pl.DataFrame:
        classes = token_classes(traced, linguistic=linguistic)
        first, second = _halves(progress)
        states = record_states(model, traced, seed=SEED, progress=first, stop=stop)
        return probes(traced, states, classes, seed=SEED, progress=second, stop=stop)

    table = _run(request, f"probes {linguistic}", run, button="Probe the layers", drawn=traced)
    if table is None:
        return
    st.markdown(probe_reading(table))
    say_word_lists(request, traced)
    feature = _choose_feature(table, "probe_feature")
    if feature is None:
        return
    left, right = st.columns(2)
    left.plotly_chart(probe_accuracy(traced, table, feature=feature), key="probe_accuracy")
    right.plotly_chart(probe_selectivity(traced, table, feature=feature), key="probe_selectivity")
    _offer(traced, {"Probes": ("probes", table)})
    notebook_cells(
        f"skipviz.plots.probe_accuracy(trace, table, feature={feature!r})",
        f"skipviz.plots.probe_selectivity(trace, table, feature={feature!r})",
        imports=[
            "from skipviz.analysis.tokens.classes import token_classes",
            "from skipviz.experiments.hidden_states.probes import probes",
            STATES_READ,
        ],
        first=[
            FROM_TRACE,
            f"classes = token_classes(trace, linguistic={linguistic})",
            f"states = record_states(model, trace, seed={SEED})",
            f"table = probes(trace, states, classes, seed={SEED})",
        ],
        model=model_line(request, traced),
    )


@dataclass(frozen=True)
class _Predicted:
    settled: pl.DataFrame
    turned: pl.DataFrame
    exits: pl.DataFrame | None


def _predictions(request: Request, traced: Trace) -> None:
    st.subheader("At which layer the prediction is settled")
    st.markdown(
        "The model's final norm and head read the hidden state after every layer (the logit lens). "
        "A prediction is **settled** at the lowest layer from which the most likely next token no "
        "longer changes. **Block Influence** is how much a layer changes the direction of the "
        "state. A layer counts as run if its last gated unit ran."
    )
    if _lacks_next_token(traced, "there is no prediction after each layer to read"):
        return

    def run(model: SkipModel, progress: Progress, stop: Stop) -> _Predicted:
        first, second = _halves(progress)
        states = record_states(model, traced, seed=SEED, progress=first, stop=stop)
        settled = convergence_layers(model, traced, states, progress=second, stop=stop)
        exits = exit_heads(model, traced, states) if isinstance(model.family, HasExits) else None
        return _Predicted(settled, layer_influence(traced, states), exits)

    result = _run(request, "predictions", run, button="Apply the logit lens", drawn=traced)
    if result is None:
        return
    chosen = chosen_range(request, traced, but="Block Influence is over the whole text.")
    settled = chosen.rows(result.settled)
    if settled.is_empty():
        st.info("The states of none of these tokens were read. Choose more of them.")
        return
    st.markdown(settling_reading(settled, result.turned))
    left, right = st.columns(2)
    left.plotly_chart(settled_histogram(traced, settled), key="settled")
    right.plotly_chart(influence_bars(traced, result.turned), key="influence")
    tables = {
        "Settled, every token": ("settled", settled),
        "Block Influence": ("influence", result.turned),
    }
    if result.exits is not None:
        st.caption(
            "A token that left early is predicted through its exit's translator. It is settled at "
            "its exit at the latest, or not at all if the logit lens disagrees there; such tokens "
            "are missing from the figure."
        )
        st.caption(
            "For tokens that never left: how often the most likely next token at an exit is the "
            "final one, by the exit's own translator and by the logit lens."
        )
        st.dataframe(result.exits, hide_index=True, width="stretch")
        tables["Exits"] = ("exits", result.exits)
    _offer(traced, tables)
    settled_lines = ["settled = convergence_layers(model, trace, states)"]
    settled_lines += chosen.lines_of_rows("settled")
    notebook_cells(
        "\n".join([*settled_lines, "skipviz.plots.settled_histogram(trace, settled)"]),
        "skipviz.plots.influence_bars(trace, layer_influence(trace, states))",
        imports=[
            "from skipviz.experiments.hidden_states.prediction_by_depth import "
            "convergence_layers, layer_influence",
            STATES_READ,
        ],
        first=[FROM_TRACE, f"states = record_states(model, trace, seed={SEED})"],
        model=model_line(request, traced),
    )


def _attention(request: Request, traced: Trace) -> None:
    st.subheader("Attention to tokens that skipped")
    if _lacks_next_token(traced, "there is no loss with tokens hidden"):
        return
    if not set(traced.sites["unit"]) & {"attn", "block"}:
        st.info(
            f"{plain(traced.run['model'].item())} never skips attention, so every token has run "
            f"what "
            "others attend to. Trace the text with another model."
        )
        return
    st.markdown(
        "A token that runs a layer's attention also sees tokens that skipped it, because the model "
        "still computes keys and values for them. How much attention do they get, and what is the "
        "loss with them hidden? The first token of a text attracts much attention whatever it is; "
        "it is counted separately and never hidden."
    )

    say_whole_text(request, traced, why="attention is paid to all tokens before.")

    def run(model: SkipModel, progress: Progress, stop: Stop) -> AttentionPaid:
        return attention_paid(model, traced, seed=SEED, progress=progress, stop=stop)

    result = _run(request, "attention", run, button="Measure the attention", drawn=traced)
    if result is None:
        return
    st.markdown(attention_reading(result.layers, result.losses))
    if result.layers.height:
        st.plotly_chart(attention_figure(traced, result.layers), key="attention")
    _offer(
        traced,
        {"Layers": ("attention", result.layers), "Losses, every token": ("hidden", result.losses)},
    )
    if result.layers.height:
        notebook_cells(
            "skipviz.plots.attention_figure(trace, paid.layers)",
            imports=[
                "from skipviz.experiments.hidden_states.attention_paid import attention_paid",
            ],
            first=[FROM_TRACE, f"paid = attention_paid(model, trace, seed={SEED})"],
            model=model_line(request, traced),
        )


def _tasks(request: Request, traced: Trace) -> None:
    st.subheader("Layers used by task")
    st.markdown(
        "The same short prompts for every model: copy, summarise and continue a text; repeat, add "
        "and multiply numbers. Layers are counted at the tokens from which the right answer is "
        "predicted. Your text is not used here."
    )
    if _lacks_next_token(traced, "it cannot write answers to prompts"):
        return

    def run(model: SkipModel, progress: Progress, stop: Stop) -> TaskDepths:
        return task_depths(model, seed=SEED, progress=progress, stop=stop)

    result = _run(request, "tasks", run, button="Run the prompts", drawn=None)
    if result is None:
        return
    prompts, layers = result.prompts, traced.run["layers"][0]
    table = layers_by_task(prompts, layers=layers)
    st.markdown(task_reading(table, layers=layers))
    st.plotly_chart(task_figure(result.trace, table), key="tasks")
    with st.expander("The prompts and their answers"):
        st.dataframe(
            prompts.with_columns(pl.col("layers", "nll").round(2)),
            hide_index=True,
            width="stretch",
        )
    _offer(result.trace, {"Tasks": ("tasks", table), "Every prompt": ("task-prompts", prompts)})
    notebook_cells(
        "skipviz.plots.task_figure(found.trace, table)",
        imports=[
            "from skipviz.analysis.layers.task_depth import layers_by_task",
            "from skipviz.experiments.hidden_states.task_prompts import task_depths",
        ],
        first=[
            f"found = task_depths(model, seed={SEED})",
            f"table = layers_by_task(found.prompts, layers={layers})",
        ],
        files="",
        model=model_line(request, traced),
    )


def _lacks_next_token(traced: Trace, consequence: str) -> bool:
    """Return whether the model predicts no next token, and say so."""
    told = needs_next_token(traced, consequence)
    if told is not None:
        st.info(told)
    return told is not None


def _choose_feature(table: pl.DataFrame, key: str) -> str | None:
    names = {FEATURE_NAMES.get(feature, feature): feature for feature in features_of(table)}
    if not names:
        return None
    chosen = st.segmented_control(
        "Feature", list(names), default=next(iter(names)), required=True, key=key
    )
    return names[str(chosen)]


def _halves(progress: Progress) -> tuple[Progress, Progress]:
    return (lambda share: progress(share / 2)), (lambda share: progress(0.5 + share / 2))


def _analysed(
    request: Request, name: str, run: Callable[[Progress], Result], chosen: TokenRange
) -> Result | None:
    """Return what needs no model, once it is there; until then show how far it is."""
    key = f"layers {name}"
    return computed(
        key,
        "Compute again",
        request,
        lambda: jobs().analysis(request, f"{key} {chosen}", run),
        settings=str(chosen),
    )


def _run(
    request: Request,
    name: str,
    run: Callable[[SkipModel, Progress, Stop], Result],
    *,
    button: str,
    drawn: Trace | None,
) -> Result | None:
    """Offer what needs the model, and return it once it is there."""
    if drawn is not None and len(drawn) > SAMPLED_TOKENS:
        st.caption(
            f"The text has {len(drawn):,} tokens; {SAMPLED_TOKENS:,} of them, drawn at random, are "
            "used."
        )
    key = f"layers {name}"
    return tried(key, button, request, lambda: jobs().experiment(request, key, run))


def _offer(traced: Trace, tables: dict[str, tuple[str, pl.DataFrame]]) -> None:
    csv_buttons(tables)
    st.caption(plain(said_of(traced)))
