"""The page of cost: FLOPs by part at once; time, energy and where the saving went when asked."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import polars as pl
import streamlit as st

from skipviz import plots
from skipviz.analysis.flops import flops_known
from skipviz.analysis.timing.bench_rows import CELL, read_bench
from skipviz.analysis.timing.measured import PHASES, Cost
from skipviz.analysis.timing.parts import flops_by_part, part_totals
from skipviz.app.components.downloads import csv_buttons
from skipviz.app.components.heading import heading
from skipviz.app.components.key_figures import key_figures
from skipviz.app.components.notebook_cell import FROM_TRACE, notebook_cells
from skipviz.app.components.plain_text import plain
from skipviz.app.components.run_button import jobs, tried
from skipviz.app.costs import Effort
from skipviz.app.jobs import Request
from skipviz.app.one_text import text_caption, traced_text
from skipviz.app.sessions import this_session
from skipviz.app.state import state
from skipviz.app.token_range import TokenRange, chosen_range
from skipviz.app.worker import Job
from skipviz.errors import StoreError
from skipviz.experiments.timing.costing import MOST_TEXTS, cost
from skipviz.plots.timing.benches import BENCH_SETTINGS
from skipviz.readings.glossary import GLOSSARY
from skipviz.readings.measured_cost import (
    bench_reading,
    energy_reading,
    flops_reading,
    gate_reading,
    latency_reading,
    lost_reading,
    masked_reading,
    profile_reading,
    saves_enough,
    saving_reading,
    work_of,
)
from skipviz.readings.skipping import needs_next_token
from skipviz.traces import Trace

ARRIVED = {
    "flops": GLOSSARY["time over FLOPs saved"],
    "bytes": "The share of the dense time that was saved, over the share of the dense model's "
    "bytes of weights that decoding does not read: 1 means that all of the saving arrived as time.",
}
"""What a share of the saving is taken of."""
MOST_BENCHES = 2
"""Side by side."""


def page() -> None:
    """Show what the text costs in FLOPs, and offer to measure what it costs here."""
    heading(
        "What does it cost, and what does skipping save here?", "FLOPs", "budget", "runtime",
        "prefill", "decode", "time over FLOPs saved", "95% interval",
    )  # fmt: skip
    known = traced_text()
    if known is not None:
        request, trace = known
        chosen = chosen_range(request, trace, but="Times are measured on the whole text.")
        _show_flops(trace, chosen)
        _offer(request, trace)
    _benches()


def _show_flops(whole: Trace, chosen: TokenRange) -> None:
    trace = chosen.part(whole)
    st.subheader("FLOPs by part")
    if not flops_known(trace):
        st.info(
            "Unknown: skipviz counts FLOPs for models in the Llama layout, and this one is of "
            "another, or its gates are."
            + ("" if needs_next_token(trace, "") else " Times can be measured all the same.")
        )
        return
    parts = flops_by_part(trace)
    st.markdown(plain(flops_reading(parts)))
    st.plotly_chart(plots.flops_by_part_figure(trace, parts), key="flops by part")
    with st.expander("The table, and every layer"):
        totals = part_totals(parts).select(
            "part",
            (pl.col("dense_flops") / 1e9).alias("dense, GFLOPs"),
            (pl.col("flops") / 1e9).alias("as decided, GFLOPs"),
            (100 * pl.col("share")).alias("of the dense forward"),
        )
        st.dataframe(
            totals,
            column_config={
                "dense, GFLOPs": st.column_config.NumberColumn(format="%.3f"),
                "as decided, GFLOPs": st.column_config.NumberColumn(format="%.3f"),
                "of the dense forward": st.column_config.NumberColumn(format="%.1f%%"),
            },
            hide_index=True,
        )
        csv_buttons({"FLOPs by layer": ("flops-by-part", parts)})
    notebook_cells(
        f"skipviz.plots.flops_by_part_figure({chosen.variable}, flops_by_part({chosen.variable}))",
        imports=["from skipviz.analysis.timing.parts import flops_by_part", *chosen.imports],
        first=[FROM_TRACE, *chosen.lines],
    )


def _offer(request: Request, trace: Trace) -> None:
    st.subheader("Time on this machine")
    texts = trace.tokens["sequence"].n_unique()
    part = [f"of which the first {MOST_TEXTS} texts are run"] if texts > MOST_TEXTS else []
    told = needs_next_token(trace, "prefill and decode cannot be timed")
    if told is not None:
        st.info(told)
        return
    effort = Effort(f"cost {request.model}", len(trace))
    text_caption(trace, *part)
    found = tried(
        "cost",
        "Measure the time",
        request,
        lambda: _begin(request, trace),
        effort=effort,
    )
    if found is None:
        st.caption(
            "Nothing is measured before you ask. Dense, masked and gathered run in turn, seven "
            "times each; other work on this machine at the time makes intervals wider."
        )
        return
    _show(trace, found)


def _begin(request: Request, trace: Trace) -> Job[Cost]:
    """Start a measurement of its own: each press measures anew, in every session."""
    state().measurements += 1
    return jobs().experiment(
        request,
        f"cost {state().measurements} of {this_session()}",
        lambda model, progress, stop: cost(model, trace, progress=progress, stop=stop),
    )


def _show(trace: Trace, found: Cost) -> None:
    for phase in PHASES:
        st.markdown(_bold(saving_reading(found, phase)))
    _numbers(found)
    said = [masked_reading(found), gate_reading(found), energy_reading(found)]
    for sentence in filter(None, said):
        st.markdown(plain(sentence))
    for name, why in found.unknown.items():
        if name != "energy":
            st.caption(f"Unknown ({name}): {plain(why)}")
    _parts(trace, found)
    st.subheader("How predictable is the time?")
    for phase in PHASES:
        if said_of := latency_reading(found, phase):
            st.markdown(plain(said_of))
    st.plotly_chart(plots.latency_figure(trace, found), key="latency")
    st.dataframe(_latency_table(found), hide_index=True, width="stretch", placeholder="unknown")
    few = found.latency.filter(pl.any_horizontal(pl.col("p95", "p99").is_null()))
    if few.height:
        st.caption("The slowest 5% are known from 20 times on, the slowest 1% from 100 on.")
    st.caption(plain(f"Measured on {found.machine.line}; {found.dtype}, {found.rounds} rounds."))
    csv_buttons(
        {
            "Every time": ("cost-runs", found.runs),
            "Savings": ("cost-savings", found.savings),
            "Latency": ("cost-latency", found.latency),
            "Parts": ("cost-parts", found.parts),
            "Energy": ("cost-energy", found.energy),
        }
    )
    st.download_button(
        "All figures (JSON)",
        json.dumps(found.figures, indent=1),
        file_name="cost.json",
        mime="application/json",
        on_click="ignore",
    )


def _bold(sentence: str) -> str:
    """Return a sentence as it is, but for the number that it has in bold."""
    return "**".join(plain(part) for part in sentence.split("**"))


def _numbers(found: Cost) -> None:
    figures = []
    for row in found.savings.filter(runtime="gathered").iter_rows(named=True):
        work, _ = work_of(row)
        # Of next to nothing there is no part that could arrive.
        if row[f"{work}_saved"] is None or saves_enough(row):
            arrived = _arrived(row[f"over_{work}"])
            figures.append((f"Arrived, {row['phase']}", arrived, ARRIVED[work]))
        figures.append(
            (
                f"Time over dense, {row['phase']}",
                f"{1 - row['time_saved']:z.2f}",
                "Gathered over dense, the median of alternating runs; below 1 is faster.",
            )
        )
    if found.weights is not None and found.savings.height:
        read = float(found.weights["bytes"].sum())
        dense = float(found.weights["dense_bytes"].sum())
        figures.append(
            (
                "Weights read per token",
                f"{read / 2**20:z.0f} MiB of {dense / 2**20:z.0f}",
                "Bytes of weights that decoding one token reads, as decided and dense. Norms and "
                "the cache of keys and values are left out.",
            )
        )
    if figures:
        key_figures(figures)


def _arrived(share: float | None) -> str:
    if share is None:
        return "unknown"
    return f"{share:z.2f}" if share > 0 else "none"


def _parts(trace: Trace, found: Cost) -> None:
    if found.parts.is_empty():
        return
    st.subheader("Where the time goes")
    for phase in PHASES:
        if said := lost_reading(found, phase):
            st.markdown(plain(said))
    if said := profile_reading(found):
        st.caption(plain(said))
    st.caption(
        "Bars are as long as the dense model's median time, times the ratio of runs that follow "
        "each other: what slows the machine for a while does not change that. Medians of all "
        "times, as in the table below, may differ from it."
    )
    for column, phase in zip(st.columns(2), PHASES, strict=True):
        column.plotly_chart(
            plots.time_by_part_figure(trace, found, phase=phase), key=f"time by part {phase}"
        )


def _latency_table(found: Cost) -> pl.DataFrame:
    milliseconds = [(pl.col(name) * 1e3).round(3) for name in ("p50", "p95", "p99")]
    return found.latency.select(
        pl.col("phase"),
        pl.col("runtime"),
        pl.col("count").alias("times taken"),
        *[each.alias(f"{each.meta.output_name()}, ms") for each in milliseconds],
        pl.col("variation").round(3).alias("variation"),
        pl.col("by_depth").round(3).alias("explained by depth"),
        pl.col("unexplained").round(3).alias("variation left"),
    )


def _benches() -> None:
    st.subheader("Other sizes, other machines")
    st.markdown(
        "`skipviz bench MODEL --out bench.parquet` measures a grid of batch sizes, lengths, "
        "budgets, number formats, threads and devices on any machine. Two files stand side by side."
    )
    uploads = st.file_uploader(
        "Benches", type=["parquet"], accept_multiple_files=True, key="benches"
    )
    frames, names = [], []
    for upload in uploads[:MOST_BENCHES]:
        try:
            frames.append(read_bench(io.BytesIO(upload.getvalue()), name=upload.name))
        except StoreError as error:
            st.error(plain(str(error)))
        else:
            names.append(upload.name)
    if len(uploads) > MOST_BENCHES:
        st.info(f"{len(uploads)} files were uploaded; the first {MOST_BENCHES} are shown.")
    if frames:
        # Two files may hold the same cell of one machine.
        both = pl.concat(frames)
        rows = both.unique([*CELL, "phase", "runtime"], keep="first", maintain_order=True)
        if dropped := both.height - rows.height:
            st.info(
                f"{dropped:,} {'row is' if dropped == 1 else 'rows are'} in both files, of the "
                "same cell and machine; those of the first file are shown."
            )
        show_benches(rows, names)


def show_benches(rows: pl.DataFrame, names: Sequence[str]) -> None:
    """Show the rows of benches: the answer, the figure and the table.

    Parameters
    ----------
    rows
        No two of them of the same cell.
    names
        Of the files that they are from.
    """
    st.markdown(plain(bench_reading(rows)))
    varied = [name for name in BENCH_SETTINGS if rows[name].n_unique() > 1]
    along: Any = st.segmented_control(
        "Along", varied or ["length"], default=(varied or ["length"])[0], required=True,
        key="bench along",
    )  # fmt: skip
    st.plotly_chart(plots.bench_figure(rows, along=str(along)), key="bench")
    hashes = ("weights_sha256", "setup_sha256", "text_sha256")
    st.dataframe(rows.drop(hashes), hide_index=True, width="stretch", placeholder="unknown")
    csv_buttons({"Benches": ("bench", rows)})
    notebook_cells(
        f"skipviz.plots.bench_figure(rows, along={str(along)!r})",
        imports=[
            "import polars as pl",
            "from pathlib import Path",
            "from skipviz.analysis.timing.bench_rows import CELL, read_bench",
        ],
        first=[
            f"both = pl.concat([read_bench(Path(name)) for name in {list(names)}])",
            'rows = both.unique([*CELL, "phase", "runtime"], keep="first", maintain_order=True)',
        ],
        files="The files are those uploaded above.",
    )
