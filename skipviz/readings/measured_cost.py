"""The page of cost in sentences: the answer first, then the number, then the caveat."""

from __future__ import annotations

from typing import Any

import polars as pl

from skipviz.analysis.timing.bench_rows import machine_lines
from skipviz.analysis.timing.measured import Cost
from skipviz.analysis.timing.parts import flops_saved, part_totals
from skipviz.analysis.timing.savings import LEAST_SAVED

PHASE_NAMES = {"prefill": "In prefill", "decode": "In decode"}
WORK = {"prefill": ("flops", "the FLOPs"), "decode": ("bytes", "the weights read")}
"""What time follows in each phase, as in ``analysis.timing.lost``."""
NEXT_TO_NOTHING = 0.005
"""Share of the dense time that no sentence is spent on."""


def flops_reading(parts: pl.DataFrame) -> str:
    """Say what the decisions save in FLOPs, and of which part most.

    Parameters
    ----------
    parts
        What ``flops_by_part`` returned.
    """
    saved = flops_saved(parts)
    totals = part_totals(parts).with_columns(less=pl.col("dense_share") - pl.col("share"))
    added = float(totals.filter(pl.col("part").is_in(("gates", "adapters")))["share"].sum())
    said = (
        f"The decisions save {saved:z.1%} of the FLOPs of the whole forward"
        if saved >= 0
        else f"The decisions cost {-saved:z.1%} more FLOPs than the dense model"
    )
    most = totals.sort("less", descending=True).row(0, named=True)
    where = (
        f", the largest part in the {most['part']} ({most['less']:z.1%} of the dense FLOPs)"
        if saved > 0
        else ""
    )
    own = f" Gates and adapters take {added:z.1%} of the dense FLOPs." if added else ""
    return (
        f"{said}{where}.{own} The head counts for every token here; a measured prefill makes the "
        "logits of a text's last token alone, so its share of FLOPs differs. FLOPs are not time: "
        "measure it below."
    )


def saving_reading(found: Cost, phase: str) -> str:
    """Say how much time was saved for the work skipped: what a reader wants first.

    Parameters
    ----------
    found
        A measurement.
    phase
        ``prefill`` or ``decode``.
    """
    where = PHASE_NAMES[phase]
    rows = found.savings.filter(phase=phase)
    if rows.is_empty():
        return f"{where} the time saved is unknown{_why_nothing(found, phase)}."
    row = _best(rows)
    time = _time_words(row)
    name, work = work_of(row)
    share = row[f"{name}_saved"]
    if share is None:
        return f"{where}, {row['runtime']}, {time}; what skipping could save is unknown."
    if share < LEAST_SAVED:
        return (
            f"{where} the decisions save {share:z.1%} of {work}, too little for a figure; {time}."
        )
    ratio = row[f"over_{name}"]
    said = f"{where}, {row['runtime']}, skipping {share:z.0%} of {work} {time}: "
    said += (
        f"**{ratio:z.2f}** of the saving arrived"
        if ratio > 0
        else f"no saving arrived; time saved over work saved is {ratio:z.2f}"
    )
    return f"{said}{_interval(row, f'over_{name}')}."


def work_of(row: dict[str, Any]) -> tuple[str, str]:
    """Return by which work a row of savings is judged, as in its columns and in words.

    Where the weights that decoding reads are unknown, it is FLOPs in decode too.
    """
    known = WORK[row["phase"]]
    return WORK["prefill"] if row[f"{known[0]}_saved"] is None else known


def saves_enough(row: dict[str, Any]) -> bool:
    """Return whether a row of savings saves so much work that its ratio to time means something."""
    name, _ = work_of(row)
    share = row[f"{name}_saved"]
    return share is not None and share >= LEAST_SAVED


def _best(rows: pl.DataFrame) -> dict[str, Any]:
    """Return the gathered runtime's row, or else the masked one's."""
    gathered = rows.filter(runtime="gathered")
    return (gathered if gathered.height else rows).row(0, named=True)


def _time_words(row: dict[str, Any]) -> str:
    saved = row["time_saved"]
    if abs(saved) < NEXT_TO_NOTHING:
        return "changed the time by less than 0.5% here"
    return (
        f"saved {saved:z.0%} of the time here" if saved > 0 else f"took {-saved:z.0%} longer here"
    )


def _interval(row: dict[str, Any], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if low is None:
        return f" (no interval from {row['rounds']} rounds; 6 give one)"
    said = f" (95% interval {low:z.2f} to {high:z.2f}, {row['rounds']} rounds)"
    return said if low > 0 or high < 0 else f"{said}, which is not distinguishable from none"


def _why_nothing(found: Cost, phase: str) -> str:
    if "dense" in found.unknown:
        return ": there is no dense model to compare with"
    if phase not in found.runs["phase"].unique().to_list():
        return ": no token was decoded"
    return ": the model has no gates, so there is nothing to save"


def masked_reading(found: Cost) -> str:
    """Say how the other runtimes compare, and what is computed although it is skipped."""
    parts = []
    for row in found.savings.filter(runtime="masked").iter_rows(named=True):
        ratio = 1 - row["time_saved"]
        parts.append(f"{ratio:z.2f} of the dense time {PHASE_NAMES[row['phase']].lower()}")
    if not parts:
        return ""
    return f"Masked, where what is skipped is computed anyway, takes {' and '.join(parts)}."


def lost_reading(found: Cost, phase: str) -> str:
    """Say where the part of the saving went that did not arrive.

    Parameters
    ----------
    found, phase
        As of ``saving_reading``.
    """
    own = found.parts.filter(phase=phase, runtime="gathered").drop_nulls("lost_seconds")
    dense = float(found.parts.filter(phase=phase, runtime="dense")["seconds"].sum())
    if own.is_empty() or dense <= 0 or not saves_enough(_best(found.savings.filter(phase=phase))):
        return ""
    lost = own.sort("lost_seconds", descending=True).with_columns(
        share=pl.col("lost_seconds") / dense
    )
    whole = float(lost["share"].sum())
    if whole <= NEXT_TO_NOTHING:
        return f"{PHASE_NAMES[phase]} all of the saving arrived."
    most = [
        f"{row['part']} {row['share']:+z.1%}"
        for row in lost.iter_rows(named=True)
        if abs(row["share"]) >= NEXT_TO_NOTHING
    ]
    return (
        f"{PHASE_NAMES[phase]} {whole:z.1%} of the dense time did not arrive as saving: "
        f"{', '.join(most)}. “Other” holds norms, residual additions, rotary embeddings and Python."
    )


def profile_reading(found: Cost) -> str:
    """Say how much longer a run takes while it is split into parts, and what is done about it."""
    said = []
    for row in _totals(found).iter_rows(named=True):
        said.append(
            f"{row['profiled_seconds'] / row['seconds']:z.2f} {PHASE_NAMES[row['phase']].lower()}"
        )
    return (
        f"Splitting the time takes time: {' and '.join(said)} of the time measured without it "
        "(gathered). Parts are scaled to add up to what was measured."
        if said
        else ""
    )


def _totals(found: Cost) -> pl.DataFrame:
    gathered = found.parts.filter(runtime="gathered")
    return gathered.group_by("phase", maintain_order=True).agg(
        pl.col("profiled_seconds", "seconds").sum()
    )


def gate_reading(found: Cost) -> str:
    """Say what the gates take, as time and as a share of the dense time."""
    said = []
    for row in found.parts.filter(runtime="gathered", part="gates").iter_rows(named=True):
        said.append(
            f"{row['seconds'] * 1e3:z.2f} ms {PHASE_NAMES[row['phase']].lower()} "
            f"({row['share']:z.1%} of the dense time)"
        )
    return f"The gates take {' and '.join(said)}." if said else ""


def latency_reading(found: Cost, phase: str) -> str:
    """Say how predictable the time of a text or token is under skipping, beside the dense model.

    Parameters
    ----------
    found, phase
        As of ``saving_reading``.
    """
    rows = {row["runtime"]: row for row in found.latency.filter(phase=phase).iter_rows(named=True)}
    runtime = "gathered" if "gathered" in rows else "masked"
    if runtime not in rows or rows[runtime]["variation"] is None:
        return ""
    own = rows[runtime]
    said = f"{PHASE_NAMES[phase]} the time per token varies by {own['variation']:z.1%} ({runtime})"
    dense = rows.get("dense")
    if dense is not None and dense["variation"] is not None:
        said += f", the dense model's by {dense['variation']:z.1%}"
    if own["by_depth"] is None:
        return f"{said}. How far depth predicts it is unknown: too few times, or all of one depth."
    said += f". Layers used explain {own['by_depth']:z.0%} of that"
    if dense is not None and dense["by_depth"] is not None:
        said += f" (in the dense model, where they cannot, {dense['by_depth']:z.0%})"
    if own["seconds_per_layer"] > 0:
        said += f", {own['seconds_per_layer'] * 1e3:z.2f} ms for each"
    if own["slowest"] is not None and own["slowest_layers"] is not None:
        said += (
            f". The slowest hundredth take {own['slowest'] / own['mean']:z.1f} times the mean, "
            f"with {own['slowest_layers']:z.1f} layers used per token where all have "
            f"{own['layers']:z.1f}"
        )
    return f"{said}."


def energy_reading(found: Cost) -> str:
    """Say how much energy a text takes, and whether that was measured."""
    rows = found.energy.filter(phase="prefill")
    if rows.is_empty():
        return f"The energy is unknown. {found.unknown.get('energy', '')}".strip()
    figures = ", ".join(f"{row['runtime']} {row['joules']:.3g} J" for row in rows.to_dicts())
    first = rows.row(0, named=True)
    if first["measured"]:
        return f"A text takes {figures} in prefill, {first['source']}."
    source = str(first["source"]).partition(" for ")[0].removeprefix("an estimate: ")
    return (
        f"An estimate, not measured: a text takes {figures} in prefill, from {source}, times the "
        f"seconds measured. {found.unknown.get('energy', '')}"
    ).strip()


def bench_reading(rows: pl.DataFrame) -> str:
    """Say where on a grid skipping saves most time, and where it saves none.

    Parameters
    ----------
    rows
        Of one or several benches.
    """
    skipping = rows.filter(pl.col("runtime") != "dense")
    if skipping.is_empty():
        return "The model has no gates, so there is nothing to save: every row is the dense model."
    known = skipping.drop_nulls("time_over_dense")
    gathered = known.filter(runtime="gathered")
    known = gathered if gathered.height else known
    if known.is_empty():
        return "The time saved is unknown: no row has a dense model to compare with."
    ordered = known.sort("time_over_dense")
    best, worst = ordered.row(0, named=True), ordered.row(-1, named=True)
    faster = known.filter(pl.col("high").fill_null(pl.col("time_over_dense")) < 1).height
    said = (
        f"Skipping is faster than the dense model in {faster} of {known.height} rows. Best is "
        f"{best['time_over_dense']:z.2f} of the dense time ({_setting(best, known)})"
    )
    if known.height > 1:
        said += f", worst {worst['time_over_dense']:z.2f} ({_setting(worst, known)})"
    return f"{said}."


def _setting(row: dict[str, Any], among: pl.DataFrame) -> str:
    """Return a row's setting in words, with its model and machine where rows have several."""
    named = pl.DataFrame([row], schema=among.schema)
    said = [row["model"]] if among["model"].n_unique() > 1 else []
    if machine_lines(among).n_unique() > 1:
        said.append(f"on {machine_lines(named).item()}")
    budget = "" if row["budget"] is None else f", budget {row['budget']:g}"
    threads = f"{row['threads']} thread{'' if row['threads'] == 1 else 's'}"
    said.append(
        f"{row['phase']}, batch {row['batch']}, {row['length']:,} tokens{budget}, {row['dtype']}, "
        f"{threads}, {row['device']}"
    )
    return ", ".join(said)
