"""The page of policies in sentences."""

from __future__ import annotations

import polars as pl

from skipviz.analysis.flops import is_missed


def frontier_reading(table: pl.DataFrame) -> str:
    """Return how policies compare with the learned gates at equal budget.

    Parameters
    ----------
    table
        What ``skipviz.evaluation.frontier.frontier`` returned.

    Returns
    -------
    str
        A ranked list, a line for each model and policy, what loses least first; empty where
        nothing stands beside learned gates.
    """
    learned = table.filter(policy="learned")
    if learned.is_empty():
        return ""
    first = learned["model"][0]
    # The same gates at another threshold are other points of one line.
    others = table.filter((pl.col("policy") != "dense") & (pl.col("model") != first))
    ranked = sorted(
        (rows["over_learned"].median(), _line(model, policy, rows))
        for (model, policy), rows in others.group_by("model", "policy", maintain_order=True)
        if rows["over_learned"].count()
    )
    if not ranked:
        return ""
    lines = [f"{place}. {line}" for place, (_, line) in enumerate(ranked, start=1)]
    head = f"At equal budget, compared with the learned gates of {first}, least lost first:"
    return "\n".join([head, "", *lines])


def _line(model: object, policy: object, rows: pl.DataFrame) -> str:
    outside = rows["over_learned"].null_count()
    rows = rows.drop_nulls("over_learned")
    worse = rows.filter(pl.col("over_learned_low") > 0).height
    better = rows.filter(pl.col("over_learned_high") < 0).height
    least, most = (rows["over_learned"].sort()[place] for place in (0, -1))
    span = f"{least:+z.3f}" if rows.height == 1 else f"{least:+z.3f} to {most:+z.3f}"
    unknown = rows["over_learned_low"].null_count()
    if unknown == rows.height:
        said = "of a single document, so how far another would differ is unknown"
    elif not worse and not better:
        said = "no difference distinguishable from zero"
    elif rows.height == 1:
        said = f"{'more' if worse else 'less'} (95% CI excludes 0)"
    else:
        counts = {"more": worse, "less": better}
        clear = [f"{word} at {count}" for word, count in counts.items() if count]
        said = f"{' and '.join(clear)} of {rows.height} budgets (95% CI excludes 0)"
    if 0 < unknown < rows.height:
        said += f", without an interval at {unknown}"
    left = f", and {outside} not at equal budget, outside their range" if outside else ""
    return f"{model} ({policy}) loses {span} nats, {said}{left}."


def missed_reading(table: pl.DataFrame) -> str:
    """Say which policies did not realise the budget asked for, and what helps.

    Parameters
    ----------
    table
        What ``skipviz.evaluation.frontier.frontier`` returned.

    Returns
    -------
    str
        Empty where all were met within 0.02.
    """
    missed = [
        row for row in table.iter_rows(named=True) if is_missed(row["budget"], row["realised"])
    ]
    if not missed:
        return ""
    rows = "; ".join(
        f"{row['model']} ({row['policy']}) was asked for {row['budget']:g} and realised "
        f"{row['realised']:z.2f}"
        for row in missed
    )
    return (
        f"Budgets missed on these texts: {rows}. Compare the column at the budget asked, or set "
        "thresholds of learned gates for texts like these with `skipviz calibrate MODEL --budget "
        f"{missed[0]['budget']:g} --text FILE`."
    )
