"""Policies against each other and against the dense model, on the same documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from skipviz.analysis.cost import compute_share, summary
from skipviz.experiments.evaluate import estimate
from skipviz.models import SkipModel
from skipviz.recording.recorder import record
from skipviz.spans import encode
from skipviz.texts import Document

ROWS = 64
"""Rows of logits compared at once."""
MEANS = ("nll", "gap", "kl", "top1", "layers_used")
COLUMNS = {"keys and values": "kv"}
"""Components whose names are too long for a column."""
KEY = ("model", "policy", "budget", "limit")


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """A model as one policy runs it.

    Attributes
    ----------
    model
        The model; several candidates may share one.
    policy
        ``dense``, ``learned``, ``guarded``, ``static`` or ``random``.
    budget
        The budget asked for; None where none was.
    limit
        For the guarded policy, the nats over dense that it may lose; None elsewhere.
    prepare
        Sets thresholds or rates before each forward.
    """

    model: SkipModel
    policy: str
    budget: float | None = None
    limit: float | None = None
    prepare: Callable[[], object] = lambda: None


def measure(
    candidates: Sequence[Candidate],
    dense: SkipModel,
    documents: Sequence[Document],
    *,
    progress: Callable[[float], None] = lambda _: None,
) -> pl.DataFrame:
    """Run every candidate on every document, once, and compare it with the dense model.

    Parameters
    ----------
    candidates
        What to measure; the dense model is measured without being asked for.
    dense
        The backbone that all of them share.
    documents
        Texts, each at most as long as the model's context.
    progress
        Called with the share of the work done, 0 to 1.

    Returns
    -------
    pl.DataFrame
        One row a candidate and document: ``model``, ``policy``, ``budget``, ``limit``;
        ``document``, ``source``, ``tokens`` with a next one; ``nll`` and ``kl`` from the dense
        model in nats a token; ``top1``, the share of tokens whose likeliest next token is the
        dense model's; ``layers_used``; ``realised``, the budget as realised; ``flop_share`` of the
        dense model's whole forward, and its parts ``attention_share``, ``mlp_share``,
        ``adapters_share``, ``gates_share``, ``kv_share`` and ``head_share``.

    Raises
    ------
    ValueError
        If a document has fewer than two tokens, or more than the context.
    """
    everyone = [Candidate(model=dense, policy="dense"), *candidates]
    encoded = [_ids(dense, document) for document in documents]
    rows = []
    with torch.inference_mode():
        for number, (document, ids) in enumerate(zip(documents, encoded, strict=True)):
            reference = dense.model(ids, use_cache=False).logits[0]
            for place, candidate in enumerate(everyone):
                rows.append(
                    {
                        "model": candidate.model.name,
                        "policy": candidate.policy,
                        "budget": candidate.budget,
                        "limit": candidate.limit,
                        "document": number,
                        "source": document.source,
                        "tokens": ids.shape[1] - 1,
                        **_figures(candidate, ids, reference),
                    }
                )
                progress((number + (place + 1) / len(everyone)) / len(documents))
    return pl.DataFrame(rows, schema_overrides={"budget": pl.Float64, "limit": pl.Float64})


def frontier(measured: pl.DataFrame, *, seed: int) -> pl.DataFrame:
    """Return each candidate's means over documents with 95% bootstrap intervals.

    Parameters
    ----------
    measured
        What ``measure`` returned, or several such frames of other documents below each other.
    seed
        Seed of the bootstrap.

    Returns
    -------
    pl.DataFrame
        One row a candidate, in the order measured: ``model``, ``policy``, ``budget``, ``limit``,
        ``documents``, ``tokens``; means of ``nll``, ``gap`` (loss over the dense model's, paired
        by document), ``kl``, ``top1`` and ``layers_used``, each with ``_low`` and ``_high``;
        ``realised`` and the FLOP shares, over all tokens.
    """
    dense = measured.filter(policy="dense").select("document", "source", dense_nll="nll")
    paired = measured.join(dense, on=["document", "source"], how="left", maintain_order="left")
    paired = paired.with_columns(gap=pl.col("nll") - pl.col("dense_nll"))
    rows = []
    for key, part in paired.group_by(KEY, maintain_order=True):
        row: dict[str, Any] = dict(zip(KEY, key, strict=True))
        row |= {"documents": part.height, "tokens": int(part["tokens"].sum())}
        for name in MEANS:
            found = estimate(part[name].to_numpy(), seed=seed)
            row |= {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
        weights = part["tokens"].to_numpy()
        for name in part.columns:
            if name == "realised" or name.endswith("_share"):
                row[name] = float(np.average(part[name].to_numpy(), weights=weights))
        rows.append(row)
    return pl.DataFrame(rows, schema_overrides={"budget": pl.Float64, "limit": pl.Float64})


def _ids(model: SkipModel, document: Document) -> Int[Tensor, "1 t"]:
    ids = encode(model.tokenizer, document.text).ids
    if not 2 <= len(ids) <= model.context:
        raise ValueError(
            f"{document.source} has {len(ids)} tokens; an evaluation takes documents of 2 to "
            f"{model.context}. Cut it into shorter ones."
        )
    return torch.tensor([ids], device=model.device)


def _figures(
    candidate: Candidate, ids: Int[Tensor, "1 t"], reference: Float[Tensor, "t v"]
) -> dict[str, float]:
    candidate.prepare()
    with record(candidate.model, statistics=False) as recording:
        logits = candidate.model.model(ids, use_cache=False).logits[0]
    traced = recording.trace
    whole = summary(traced)
    parts = compute_share(traced).select("component", "share").rows()
    return {
        **_against(logits[:-1], reference[:-1], ids[0, 1:]),
        "layers_used": whole.layers_mean,
        "realised": whole.budget,
        "flop_share": whole.flop_share,
        **{f"{COLUMNS.get(name, name)}_share": share for name, share in parts},
    }


def _against(
    logits: Float[Tensor, "n v"], reference: Float[Tensor, "n v"], targets: Int[Tensor, " n"]
) -> dict[str, float]:
    sums = np.zeros(3)
    for one, other, wanted in zip(
        logits.split(ROWS), reference.split(ROWS), targets.split(ROWS), strict=True
    ):
        mine, theirs = one.float().log_softmax(-1), other.float().log_softmax(-1)
        nll = -mine.gather(1, wanted[:, None]).sum()
        kl = (theirs.exp() * (theirs - mine)).sum()
        agree = (mine.argmax(-1) == theirs.argmax(-1)).sum()
        sums += [float(nll), float(kl), float(agree)]
    nll, kl, top1 = (sums / len(targets)).tolist()
    return {"nll": nll, "kl": kl, "top1": top1}
