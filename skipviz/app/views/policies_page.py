"""The page of policies: the frontier, and the same text under any point of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import streamlit as st

from skipviz.app.components.downloads import csv_buttons
from skipviz.app.components.heading import heading
from skipviz.app.components.notebook_cell import notebook_cells
from skipviz.app.components.plain_text import plain
from skipviz.app.components.run_button import jobs, tried
from skipviz.app.frame.inputs import sample_document
from skipviz.app.frame.recent_runs import bring_back
from skipviz.app.jobs import Request
from skipviz.app.state import set_widget, state, widget
from skipviz.app.views.paths_result import show_numbers
from skipviz.app.views.policies.shuffled_control import show_shuffled
from skipviz.errors import ModelError
from skipviz.evaluation.losses import Estimate
from skipviz.folders import model_folder, samples_folder
from skipviz.models import read_settings
from skipviz.plots.frontier import frontier_figure
from skipviz.readings.glossary import GLOSSARY
from skipviz.readings.policies import frontier_reading, missed_reading
from skipviz.text.documents import Document

FRONTIER = "frontier.csv"
POLICY_COLUMNS: dict[str, Any] = {
    "model": "Model",
    "policy": "Policy",
    "asked": "Asked for",
    "realised": st.column_config.NumberColumn(
        "Budget realised", format="%.1f%%", help=GLOSSARY["budget"]
    ),
    "flop_share": st.column_config.NumberColumn(
        "Whole-model FLOPs", format="%.1f%%", help=GLOSSARY["FLOPs"]
    ),
    "gap": st.column_config.NumberColumn(
        "Loss over dense, nats", format="%.3f", help=GLOSSARY["loss over dense"]
    ),
    "gap_low": st.column_config.NumberColumn("95% from", format="%.3f"),
    "gap_high": st.column_config.NumberColumn("to", format="%.3f"),
    "at_asked": st.column_config.TextColumn(
        "At the budget asked, nats", help=GLOSSARY["equal budget"]
    ),
    "over_learned": st.column_config.NumberColumn(
        "Over learned gates at this budget, nats",
        format="%.3f",
        help="The loss minus that of the learned gates at the same realised budget; empty where "
        "their budgets do not enclose it.",
    ),
    "over_learned_low": st.column_config.NumberColumn("95% from", format="%.3f"),
    "over_learned_high": st.column_config.NumberColumn("to", format="%.3f"),
    "kl": st.column_config.NumberColumn(
        "KL to dense, nats",
        format="%.3f",
        help="Kullback-Leibler divergence of the predictions from the dense model's.",
    ),
    "top1": st.column_config.NumberColumn("Same most likely token", format="%.1f%%"),
    "training_tokens": st.column_config.NumberColumn("Tokens trained on", format="localized"),
    "layers_used": st.column_config.NumberColumn(
        "Layers used", format="%.1f", help=GLOSSARY["layers used"]
    ),
}
PERCENT_COLUMNS = ("realised", "flop_share", "top1")
"""Columns that are shown in per cent."""


def page() -> None:
    """Show the frontier, and under it the text as the chosen policy runs it."""
    answer = heading(
        "What does skipping cost, and which policy decides best?", "policy", "guarded policy",
        "Student's t test", "clipped loss", "budget", "equal budget", "FLOPs", "loss over dense",
        "dense model", "early exit", "nat", "95% interval",
        of_text=False,
    )  # fmt: skip
    table = _table(samples_folder() / FRONTIER)
    if table is None:
        st.info(
            "There are no measurements yet. `skipviz evaluate MODEL... --csv "
            f"{samples_folder() / FRONTIER}` writes the table that this page shows."
        )
        return
    st.markdown(
        "Each point is one policy at one budget, on held-out text of three kinds. **Lower is "
        "better; further left is cheaper.** The policies were trained differently: the table gives "
        "the number of training tokens, the model cards the rest. Click a point, or choose it "
        "below, to see your text under that policy."
    )
    clicked = st.plotly_chart(
        frontier_figure(table), key="frontier", on_select="rerun", selection_mode="points"
    )
    answer.markdown(_ranked(frontier_reading(table)))
    if missed := missed_reading(table):
        st.warning(plain(missed))
    row = _choose(table, clicked)
    _compare(table.row(row, named=True))
    st.subheader("The table")
    shown = table.with_columns(
        pl.col(*PERCENT_COLUMNS) * 100,
        asked=pl.Series([_asked(each) for each in table.to_dicts()]),
        at_asked=pl.Series([_at_asked(each) for each in table.to_dicts()]),
    )
    st.dataframe(
        shown.select(list(POLICY_COLUMNS)),
        column_config=POLICY_COLUMNS,
        hide_index=True,
        width="stretch",
    )
    csv_buttons({"Table": (FRONTIER.removesuffix(".csv"), table)})
    notebook_cells(
        "skipviz.plots.frontier_figure(table)",
        imports=["import polars as pl"],
        first=[f'table = pl.read_csv("{FRONTIER}")'],
        files=f"“Table (CSV)” saves {FRONTIER}.",
    )


def _table(path: Path) -> pl.DataFrame | None:
    return pl.read_csv(path) if path.exists() else None


def _choose(table: pl.DataFrame, clicked: Any) -> int:
    """Return the row that was clicked last, or chosen from the list."""
    points = clicked["selection"]["points"]
    names = [_name(row) for row in table.to_dicts()]
    if points and points != state().points_seen:
        set_widget("candidate", names[int(points[0]["customdata"][-1])])
    state().points_seen = points
    # Streamlit forgets the values of a page's widgets when another page is shown.
    kept = state().candidate
    first = names[(table["policy"] != "dense").arg_max() or 0]
    if widget("candidate") not in names:
        set_widget("candidate", kept if kept in names else first)
    chosen = str(st.selectbox("Policy", names, key="candidate"))
    state().candidate = chosen
    return names.index(chosen)


def _ranked(reading: str) -> str:
    """Return a ranked list in Markdown, in which names stand as they are."""
    head, *lines = reading.splitlines() or [""]
    parts = [line.partition(" ") for line in lines]
    return "\n".join([plain(head), *(f"{place} {plain(rest)}" for place, _, rest in parts)])


def _compare(row: dict[str, Any]) -> None:
    """Run the text that was traced last, or a sample, under a policy, and show it."""
    documents = state().documents or (sample_document(),)
    what = ", ".join(plain(document.source) for document in documents[:3])
    st.caption(
        f"The text: {what}{' and others' if len(documents) > 3 else ''}. To use another, trace it."
    )
    if row["limit"] is not None:
        st.caption(plain(_promise(row["model"], row["limit"])))
    asked = _asked_for(row, documents)
    traced = tried("policy", "Show the text under this policy", asked, lambda: jobs().submit(asked))
    if traced is not None:
        show_numbers(traced)
        st.button(
            "Open it on the canvas", on_click=bring_back, args=(asked,), key="open policy",
            help="The canvas above and all pages then show the text under this policy. What you "
            "traced before stays under “Recent runs”.",
        )  # fmt: skip
        show_shuffled(traced, asked)


def _asked_for(row: dict[str, Any], documents: tuple[Document, ...]) -> Request:
    """Return what is run for a row of the table."""
    return Request(
        model=row["model"],
        documents=documents,
        budget=row["budget"],
        policy=None if row["policy"] in ("dense", "guarded") else row["policy"],
        limit=row["limit"],
    )


def _promise(model: str, limit: float) -> str:
    """Return what a limit promises and assumes; nothing where the model's settings are not here."""
    try:
        return read_settings(model_folder(model)).promise(limit)
    except ModelError:
        return ""


def _name(row: dict[str, Any]) -> str:
    asked = _asked(row)
    return f"{row['model']}, {row['policy']}" + (f", {asked}" if asked else "")


def _at_asked(row: dict[str, Any]) -> str:
    """Say what a row loses over dense at exactly the budget asked for, or that nothing does."""
    if row["budget"] is None:
        return ""
    if row["gap_at_asked"] is None:
        return "not at equal budget"
    ends = (row["gap_at_asked_low"], row["gap_at_asked_high"])
    return str(Estimate(row["gap_at_asked"], *ends))


def _asked(row: dict[str, Any]) -> str:
    if row["limit"] is not None:
        return f"at most {row['limit']:g} nats over dense"
    return "" if row["budget"] is None else f"budget {100 * row['budget']:g}%"
