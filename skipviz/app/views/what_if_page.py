"""The page of questions: other thresholds, another budget, or decisions forced by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from skipviz import plots
from skipviz.analysis.counterfactual import WhatIf
from skipviz.analysis.flops import flops_known
from skipviz.app.cell_answers import changed_by
from skipviz.app.components.chart_clicks import clicked_point, select_clicked
from skipviz.app.components.downloads import csv_buttons, trace_file
from skipviz.app.components.heading import heading
from skipviz.app.components.key_figures import key_figures, said_or_unknown
from skipviz.app.components.notebook_cell import FROM_TRACE, model_line, notebook_cells
from skipviz.app.components.plain_text import plain
from skipviz.app.components.run_button import computed, jobs
from skipviz.app.components.text_frontier import choose_budget, frontier_drawn
from skipviz.app.jobs import Request, kept_result
from skipviz.app.one_text import text_caption, traced_text
from skipviz.app.one_window import one_window
from skipviz.app.state import StartedRun, on_canvas, state, widget
from skipviz.app.token_range import chosen_range
from skipviz.experiments.counterfactuals.answering import what_if
from skipviz.plots.lenses.found import WHAT_IF, what_if_lens
from skipviz.readings.budgets import has_thresholds
from skipviz.readings.counterfactual import caveat_reading, what_if_reading
from skipviz.readings.glossary import GLOSSARY
from skipviz.readings.skipping import needs_next_token
from skipviz.traces import Trace

WHAT_IF_RUN = "what if"
DECIDED_BY = ["As traced", "Another threshold", "A budget"]
FORCED_PARTS = ["One cell", "A whole token", "A whole layer"]
TO_RUN = "Run"


@dataclass(frozen=True)
class _Controls:
    """What the controls ask for."""

    threshold: float | Mapping[str | int, float] | None
    budget: float | None
    forced: list[tuple[int | None, str | int | None, bool]]

    @property
    def arguments(self) -> dict[str, Any]:
        """As ``what_if`` takes them."""
        sites: dict[tuple[int | None, str | int | None], bool] = {}
        for token, place, run in self.forced:
            sites.pop((token, place), None)  # what comes later counts
            sites[token, place] = run
        return {
            "threshold": self.threshold,
            "budget": self.budget,
            "sites": sites or None,
        }

    @property
    def anything(self) -> bool:
        """Whether there is a question."""
        return any(value is not None for value in self.arguments.values())


def page() -> None:
    """Take a question about the text last traced, and show the answer beside what was."""
    place = heading(
        "What if the gates had decided otherwise?", "KL divergence", "downstream", "threshold",
        "budget", "FLOPs", "loss", "site", "gate score",
    )  # fmt: skip
    known = traced_text(gates="there are no decisions to change")
    if known is None:
        return
    request, traced = known
    lossless = needs_next_token(traced, "there is no loss that other decisions could change")
    if (problem := lossless or one_window(traced)) is not None:
        st.info(problem)
        return
    st.markdown(
        "Click a cell on the map to make its unit run or be skipped; click it again to take that "
        "back. Or force a whole token or layer, or let the gates decide by another threshold."
    )
    text_caption(traced)
    _take_pick(request, traced)
    asked = _read_controls(request, traced)
    answer = _answer(request, traced, asked) if asked.anything else None
    if answer is not None:
        _show(answer, place)
    shown = _latest_run(request) if asked.anything else None
    if asked.anything and answer is None:
        _say_what_the_map_shows(shown)
    if answer is not None:
        _details(request, traced, answer, asked)
    _mark(request, shown)


def _read_controls(request: Request, traced: Trace) -> _Controls:
    threshold: float | Mapping[str | int, float] | None = None
    budget = None
    if has_thresholds(traced):
        # A budget is a share of FLOPs.
        offered = DECIDED_BY if flops_known(traced) else DECIDED_BY[:2]
        how = st.segmented_control(
            "Gates decide by", offered, default=offered[0], required=True, key="what if gates"
        )
        if how == DECIDED_BY[1]:
            threshold = _choose_threshold(traced)
        elif how == DECIDED_BY[2]:
            budget = choose_budget(request, traced, latest=_latest(request))
    return _Controls(threshold, budget, _choose_forced(request, traced))


def _choose_threshold(traced: Trace) -> float | Mapping[str | int, float]:
    sites = traced.sites
    layers = sorted(set(sites["layer"]))
    places: dict[str, str | int | None] = {"all sites": None}
    places |= {f"layer {layer}": layer for layer in layers}
    places |= {f"only {label}": label for label in sites["label"]}
    left, right = st.columns(2)
    name = left.selectbox("Whose threshold", list(places), key="what if place")
    place = places[str(name)]
    column = "label" if isinstance(place, str) else "layer"
    chosen = np.ones(sites.height, dtype=bool) if place is None else sites[column] == place
    scores = traced.matrix("score")[:, np.asarray(chosen)]
    now = float(traced.matrix("threshold")[0, np.flatnonzero(chosen)[0]])
    scores = scores[~np.isnan(scores)]  # where a gate was not asked
    step = float(f"{max(float(np.std(scores)) if scores.size else 0.0, 1e-6) / 4:.0e}")
    seen = (
        f"Scores there lie between {scores.min():z.6f} and {scores.max():z.6f} on this text; "
        if scores.size
        else "There are no scores there on this text; "
    )
    value = right.number_input(
        "Threshold", value=now, step=step, format="%.6f", key=f"what if threshold {name}",
        help=f"{GLOSSARY['threshold']} {seen}{now:z.6f} is what it was traced with.",
    )  # fmt: skip
    return float(value) if place is None else {place: float(value)}


def _choose_forced(request: Request, traced: Trace) -> list[Any]:
    """Show what is forced, and ways to add to it and to take back."""
    forced = state().forced.setdefault(request.key, [])
    with st.expander("Force without the map"):
        _force_by_name(forced, traced)
    if not forced:
        return []
    said = [_in_words(traced, *each) for each in forced]
    more = f" and {len(said) - 6:,} more" if len(said) > 6 else ""
    st.caption(f"Forced: {plain(', '.join(said[-6:]))}{more}.")
    with st.container(horizontal=True):
        st.button("Undo the last", on_click=forced.__delitem__, args=(-1,), key="what if undo")
        st.button("Take all back", on_click=forced.clear, key="what if reset")
    return list(forced)


def _force_by_name(forced: list[Any], traced: Trace) -> None:
    what = st.segmented_control(
        "What to force", FORCED_PARTS, default=FORCED_PARTS[0], required=True, key="what if kind"
    )
    columns = st.columns(3)
    if what != FORCED_PARTS[2]:
        columns[0].number_input(
            "Token", min_value=0, max_value=len(traced) - 1, value=0, key="what if token"
        )
    if what == FORCED_PARTS[0]:
        columns[1].selectbox("Site", traced.sites["label"].to_list(), key="what if site")
    elif what == FORCED_PARTS[2]:
        layers = sorted(set(traced.sites["layer"]))
        columns[1].selectbox("Layer", layers, key="what if layer")
    columns[2].segmented_control(
        "It is to", [TO_RUN, "Be skipped"], default="Be skipped", required=True, key="what if run"
    )

    def add() -> None:
        # As they are now: what is typed last comes together with the click.
        kind, run = widget("what if kind"), widget("what if run") == TO_RUN
        token = None if kind == FORCED_PARTS[2] else int(widget("what if token"))
        place = {
            FORCED_PARTS[0]: widget("what if site"),
            FORCED_PARTS[2]: widget("what if layer"),
        }.get(kind)
        forced.append((token, place, run))

    st.button("Force it", key="what if force", on_click=add)


def _in_words(traced: Trace, token: int | None, place: Any, run: bool) -> str:
    where = f"layer {place}" if isinstance(place, int) else place or "all layers with gates"
    if token is None:
        return f"all tokens {'run' if run else 'skip'} {where}"
    return f"token {token} ({traced.tokens['text'][token]!r}) {'runs' if run else 'skips'} {where}"


def _answer(request: Request, traced: Trace, asked: _Controls) -> WhatIf | None:
    return computed(
        WHAT_IF_RUN,
        "Ask again",
        request,
        lambda: jobs().experiment(
            request,
            f"what if {asked}",
            lambda model, progress, stop: what_if(
                model, traced, **asked.arguments, progress=progress, stop=stop
            ),
        ),
        settings=repr(asked),
    )


def _latest(request: Request) -> WhatIf | None:
    """Return the last answer about this text, while another is under way."""
    run = _latest_run(request)
    return None if run is None else kept_result(run.job)


def _latest_run(request: Request) -> StartedRun | None:
    """Return the run of that answer."""
    run = state().runs.get(WHAT_IF_RUN)
    found = None if run is None else run.finished
    return found if found is not None and found.request.key == request.key else None


def _show(answer: WhatIf, place: DeltaGenerator) -> None:
    """Show an answer, in words at the top of the page, in numbers below the question."""
    place.markdown(what_if_reading(answer))
    st.markdown(plain(answer.question))
    was, now = answer.costs
    asked = int(answer.changed["asked"].sum())
    cells = [
        (
            "Loss",
            said_or_unknown(now.loss, ".4f", " nats"),
            f"It was {said_or_unknown(was.loss, '.4f', ' nats per token')}. {GLOSSARY['loss']}",
        ),
        (
            "Decisions changed",
            f"{asked:,} + {answer.changed.height - asked:,}",
            f"As asked, and downstream. {GLOSSARY['downstream']}",
        ),
        (
            "KL divergence",
            f"{answer.kl.mean():.2g} nats",
            f"Mean over tokens; {answer.kl.max():.2g} at most. {GLOSSARY['KL divergence']}",
        ),
        (
            "Same top prediction",
            f"{answer.same_top.mean():z.1%}",
            "Share of tokens after which the most likely next token is the same as before.",
        ),
        (
            "Budget realised",
            said_or_unknown(now.budget, ".4f"),
            f"It was {said_or_unknown(was.budget, '.4f')}. {GLOSSARY['budget']}",
        ),
    ]
    key_figures(cells)
    st.caption(plain(caveat_reading(answer)))


def _say_what_the_map_shows(run: StartedRun | None) -> None:
    """Say that the map shows no answer to this question yet, but what it showed before."""
    answer: WhatIf | None = None if run is None else kept_result(run.job)
    what = (
        "shows the text as it was traced"
        if answer is None
        else f"marks what the question before changed ({plain(answer.question)})"
    )
    st.caption(f"This question has no answer yet. The map still {what}.")


def _take_pick(request: Request, traced: Trace) -> None:
    """Force the cell of the map that was clicked, if one was."""
    picked, state().picked = state().picked, None
    if picked is None or picked[0] != request.key:
        return
    latest = _latest(request)
    forced = state().forced.setdefault(request.key, [])
    asking = bool(forced) or widget("what if gates") in DECIDED_BY[1:]
    trace = latest.trace if asking and latest is not None else traced
    _toggle(forced, trace, int(picked[1]), int(picked[2]))


def _mark(request: Request, run: StartedRun | None) -> None:
    """Mark on the map which decisions an answer changed, and let its losses paint the text."""
    on = on_canvas(request)
    answer: WhatIf | None = None if run is None else kept_result(run.job)
    if run is None or answer is None:
        on.unpaint(WHAT_IF)  # of a question that was taken back
        return

    on.paint(repr(run.asked), lambda: [what_if_lens(answer)], change=lambda: changed_by(answer))


def _toggle(forced: list[Any], trace: Trace, token: int, site: int) -> None:
    """Force a cell to the other decision, or take back that it is forced."""
    label = trace.sites["label"][site]
    before = [each for each in forced if each[:2] == (token, label)]
    if before:
        forced[:] = [each for each in forced if each not in before]
        return
    forced.append((token, label, not trace.matrix("exec_count")[token, site]))


def _details(request: Request, traced: Trace, answer: WhatIf, asked: _Controls) -> None:
    chosen = chosen_range(request, traced, but="The numbers above are of the whole text.")
    st.plotly_chart(plots.loss_change_figure(answer, ends=chosen.ends), key="what if losses")
    if point := clicked_point("what if losses"):
        select_clicked(request, "what if losses", int(point["x"]))
    st.subheader("Downloads")
    csv_buttons(
        {
            "Changed decisions": ("what-if-changed", chosen.rows(answer.changed)),
            "Every token": ("what-if-tokens", chosen.rows(answer.tokens)),
        }
    )
    st.download_button(
        "The new trace", lambda: trace_file(answer.trace), file_name="what-if.parquet",
        mime="application/octet-stream", on_click="ignore", key="what if trace",
    )  # fmt: skip
    said = [f"{name}={value!r}" for name, value in asked.arguments.items() if value is not None]
    ends = "" if chosen.ends is None else f", ends={chosen.ends}"
    figures = [f"skipviz.plots.loss_change_figure(answer{ends})"]
    if asked.budget is not None and frontier_drawn(request):
        figures.append(
            "points = text_frontier(model, trace)\n"
            "skipviz.plots.text_frontier_figure(trace, points, chosen=answer)"
        )
    notebook_cells(
        *figures,
        imports=[
            "from skipviz.experiments.counterfactuals.text_frontier import text_frontier",
        ],
        first=[FROM_TRACE, f"answer = skipviz.what_if(model, trace, {', '.join(said)})"],
        model=model_line(request, traced),
    )
