"""Writes outputs of one text to a folder, to be compared byte for byte with another version's.

``python benchmarks/outputs.py before``, change something, ``python benchmarks/outputs.py after``,
then ``diff -r before after``: decisions, tokens, clusters, an audit, and the frontier.
"""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path

import torch

import skipviz
from skipviz.corpora.held_out import calibration_texts, reporting_texts
from skipviz.evaluation.candidates import candidates_of, guarded_candidates
from skipviz.evaluation.frontier import frontier, measure
from skipviz.folders import sample_folders, samples_folder

EVERY_TOKEN = 3
AUDITED = 60
"""Every third of the first sixty tokens is audited, at all sites."""
LISTS = ("top_ids", "top_probs", "top_texts")


def text() -> str:
    """Return prose and code of the samples."""
    samples = files("skipviz.app") / "samples"
    return "\n".join((samples / name).read_text("utf-8") for name in ("prose.txt", "code.txt"))


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("smollm2-gated", "smollm2-exit", "smollm2-random"):
        skipviz.trace(skipviz.load(name), text()).write_csv(folder / f"{name}.csv")
    model = skipviz.load("smollm2-gated")
    traced = skipviz.trace(model, text())
    traced.tokens.drop(LISTS).write_csv(folder / "tokens.csv")
    clusters = skipviz.cluster(traced, seed=0)
    for table in ("run", "tokens", "profiles", "criterion"):
        getattr(clusters, table).write_csv(folder / f"clusters_{table}.csv")
    tokens = range(0, AUDITED, EVERY_TOKEN)
    cells = [(token, site) for token in tokens for site in range(traced.sites.height)]
    skipviz.audit(model, traced, cells=cells).write_csv(folder / "audit.csv")
    dense, candidates = candidates_of(list(sample_folders()))
    candidates += guarded_candidates(dense, candidates, calibration_texts(), limits=[0.1])
    store = samples_folder() / "measured.parquet"
    measured = measure(candidates, dense, reporting_texts(), store=store)
    frontier(measured, seed=0).write_csv(folder / "frontier.csv")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    torch.set_num_threads(1)
    write(parser.parse_args().folder)
