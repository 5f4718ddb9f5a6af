"""Policies against each other and against the dense model, on the same documents."""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from skipviz.analysis.flops import compute_share, cost_summary, is_missed
from skipviz.analysis.statistics.intervals import BOUNDS, UNBOUNDED
from skipviz.arrays import Floats
from skipviz.errors import InputError, RecordingError
from skipviz.evaluation.equal_budget import gap_at_asked, over_learned
from skipviz.evaluation.losses import estimate
from skipviz.evaluation.measured_store import (
    ACCOUNTING,
    KNOWN_BY,
    Key,
    read_measured,
    write_measured,
)
from skipviz.families.causal_lm import layer_list
from skipviz.families.hooks import Hook, after, hooked
from skipviz.models import SkipModel
from skipviz.models.hashes import memory_sha256
from skipviz.progress import Progress, check_stop, no_progress
from skipviz.recording.inputs import encoded
from skipviz.recording.recorder import record
from skipviz.text.documents import Document

COMPARED_ROWS = 64
"""Rows of logits compared at once."""
MEANS = ("nll", "gap", "kl", "top1", "layers_used")
SHARE_NAMES = {"keys and values": "kv"}
"""Components whose names are too long for a column."""
KEY = ("model", "policy", "budget", "limit")
NUMBER_COLUMNS = {"budget": pl.Float64, "limit": pl.Float64}
MAY_BE_NULL = tuple(
    f"{name}{end}" for name in ("over_learned", "gap_at_asked") for end in ("", "_low", "_high")
)
"""Columns of comparisons that cannot always be made."""


@dataclass(frozen=True, eq=False)
class Reference:
    """The dense model's predictions of a document, worked out once for all candidates.

    Attributes
    ----------
    log
        Log-probabilities after each token but the last.
    probability
        Their exponentials.
    predicted, targets
        The most likely next token, and the one that came.
    """

    log: Float[Tensor, "n v"]
    probability: Float[Tensor, "n v"]
    predicted: Int[Tensor, " n"]
    targets: Int[Tensor, " n"]

    @classmethod
    def of(cls, logits: Float[Tensor, "t v"], ids: Int[Tensor, "1 t"]) -> Reference:
        """Take the dense model's logits."""
        log = logits[:-1].float().log_softmax(-1)
        return cls(log, log.exp(), log.argmax(-1), ids[0, 1:])

    def against(self, logits: Float[Tensor, "n v"]) -> dict[str, float]:
        """Return ``nll``, ``kl`` and ``top1`` of a candidate's logits."""
        sums = np.zeros(3)
        for start in range(0, len(logits), COMPARED_ROWS):
            here = slice(start, start + COMPARED_ROWS)
            mine = logits[here].float().log_softmax(-1)
            nll = -mine.gather(1, self.targets[here, None]).sum()
            agree = (mine.argmax(-1) == self.predicted[here]).sum()
            kl = torch.linalg.vecdot(self.probability[here], self.log[here] - mine).sum()
            sums += [float(nll), float(kl), float(agree)]
        nll, kl, top1 = (sums / len(self.targets)).tolist()
        return {"nll": nll, "kl": kl, "top1": top1}


def measure(
    candidates: Sequence[SkipModel],
    dense: SkipModel,
    documents: Sequence[Document],
    *,
    most: int | None = None,
    store: Path | None = None,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> pl.DataFrame:
    """Run every candidate on every document, once, and compare it with the dense model.

    Parameters
    ----------
    candidates
        Handles to measure, each under its policy and budget; the dense model is measured without
        being asked for.
    dense
        The backbone that all of them share.
    documents
        Texts, each at most as long as the model's context.
    most
        How many documents to run, from all kinds alike; all if None.
    store
        A Parquet file of rows measured before, which are not run again; each document's are added
        as soon as it is done.
    progress
        Called with the share of the work done, 0 to 1.
    stop
        Set it from another thread to stop; documents that are done stay in ``store``.

    Returns
    -------
    pl.DataFrame
        One row per candidate and document: ``model``, ``weights_sha256``, ``setup_sha256``,
        ``dtype``, ``policy``, ``budget``, ``limit``, ``setting``, ``accounting``;
        ``text_sha256``, ``document``, ``source``, ``tokens`` with a next one; ``nll`` and ``kl``
        from the dense model in nats per token; ``top1``, the share of tokens whose most likely
        next token is the dense model's;
        ``layers_used``; ``realised``, the budget as realised; ``flop_share`` of the dense model's
        whole forward, and its parts ``attention_share``, ``mlp_share``, ``adapters_share``,
        ``gates_share``, ``kv_share`` and ``head_share``.

    Raises
    ------
    ValueError
        If a document has fewer than two tokens or more than the context, two documents are the
        same, or ``most`` is below 1.
    StoreError
        If ``store`` is damaged, or is none.
    RecordingError
        If a figure is not a number.
    Stopped
        If ``stop`` was set.
    """
    if most is not None and most < 1:
        raise InputError(f"{most} documents are none to measure on; ask for at least 1.")
    if len({_content(document) for document in documents}) < len(documents):
        raise InputError("Some documents are the same; give each once, or they count twice.")
    everyone = [dense, *candidates]
    encoded = [_ids(dense, document) for document in documents]
    known = read_measured(store)
    # Models handed over in memory have no files, and may have one name.
    weights = [each.weights_sha256 or memory_sha256(each) for each in everyone]
    rows: list[dict[str, Any]] = []
    # In mixed order, so that a run cut short has seen every kind of text.
    order = random.Random(0).sample(range(len(documents)), len(documents))[:most]
    with torch.inference_mode(), hooked(_stopping(everyone, stop)):
        for done, number in enumerate(order):
            document, ids = documents[number], encoded[number]
            check_stop(stop)
            keys = [
                _key(candidate, own, document)
                for candidate, own in zip(everyone, weights, strict=True)
            ]
            if all(key in known for key in keys):
                reference = None
            else:
                reference = Reference.of(dense.model(ids, use_cache=False).logits[0], ids)
            for place, (candidate, key) in enumerate(zip(everyone, keys, strict=True)):
                if key not in known and reference is not None:
                    known[key] = _figures(candidate, ids, reference, source=document.source)
                names = dict(zip(KNOWN_BY, key, strict=True))
                about = {"document": number, "source": document.source, "tokens": ids.shape[1] - 1}
                rows.append({**names, **about, **known[key]})
                progress((done + (place + 1) / len(everyone)) / len(order))
            if reference is not None:
                write_measured(store, known)
    rows.sort(key=lambda row: row["document"])
    return pl.DataFrame(rows, schema_overrides=NUMBER_COLUMNS)


def frontier(measured: pl.DataFrame, *, seed: int = 0) -> pl.DataFrame:
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
        One row per candidate, in the order measured: ``model``, ``policy``, ``budget``, ``limit``,
        ``documents``, ``tokens``; means of ``nll``, ``gap`` (loss over the dense model's, paired
        by document), ``kl``, ``top1``, ``layers_used`` and ``over_learned`` (loss over that of the
        learned gates at the budget realised, paired by document, as
        ``skipviz.evaluation.equal_budget`` says; null where that cannot be said) and
        ``gap_at_asked`` (loss over dense at exactly the budget asked for; null where it is not
        enclosed by those realised), each with ``_low`` and ``_high``; means of ``realised`` and of
        the FLOP shares; ``missed``, whether the budget realised is more than 0.02 off the one asked
        for, null where none was.
    """
    if measured.select(*KEY, "text_sha256").is_duplicated().any():
        raise InputError("Some candidates were measured twice on one text; keep one of each.")
    dense = measured.filter(policy="dense").select("text_sha256", dense_nll="nll")
    paired = measured.join(dense, on="text_sha256", how="left", maintain_order="left")
    paired = paired.with_columns(gap=pl.col("nll") - pl.col("dense_nll"))
    rows = []
    for key, part in paired.group_by(KEY, maintain_order=True):
        row: dict[str, Any] = dict(zip(KEY, key, strict=True))
        row |= {"documents": part.height, "tokens": int(part["tokens"].sum())}
        for name in MEANS:
            row |= _ends(name, part[name].to_numpy(), seed)
        row |= _ends("over_learned", over_learned(part, measured), seed)
        row |= _ends("gap_at_asked", gap_at_asked(part, measured), seed)
        for name in part.columns:
            if name == "realised" or name.endswith("_share"):
                # Over documents, as the losses: the two axes of the frontier weigh texts alike.
                row[name] = float(part[name].to_numpy().mean())
        asked = row["budget"]
        row["missed"] = None if asked is None else is_missed(asked, row["realised"])
        rows.append(row)
    floats = dict.fromkeys(MAY_BE_NULL, pl.Float64)
    return pl.DataFrame(
        rows,
        schema_overrides=NUMBER_COLUMNS | floats | {"missed": pl.Boolean},
        infer_schema_length=None,
    )


def _ends(name: str, values: Floats | None, seed: int) -> dict[str, float | None]:
    """Return a mean and the ends of its interval, by name."""
    ends = (name, f"{name}_low", f"{name}_high")
    if values is None:
        return dict.fromkeys(ends)
    found = estimate(values, seed=seed, bounds=BOUNDS.get(name, UNBOUNDED))
    return dict(zip(ends, (found.mean, found.low, found.high), strict=True))


def _stopping(models: Sequence[SkipModel], stop: threading.Event | None) -> Iterator[Hook]:
    """Yield hooks that stop a forward within a layer."""
    for model in models:
        for layer in layer_list(model.model) or ():
            yield after(layer, lambda *_: check_stop(stop))


def _content(document: Document) -> str:
    """Return what a document says, a text or a conversation."""
    return json.dumps(list(document.messages)) if document.messages else document.text


def _key(model: SkipModel, weights: str, document: Document) -> Key:
    text = hashlib.sha256(_content(document).encode()).hexdigest()
    setting = "" if model.setting is None else model.setting.key
    return (
        model.name, weights, model.setup_sha256, model.dtype, model.policy, model.budget,
        model.limit, setting, ACCOUNTING, text,
    )  # fmt: skip


def _ids(model: SkipModel, document: Document) -> Int[Tensor, "1 t"]:
    ids = encoded(model, document, bos=None)[1][0].ids
    if not 2 <= len(ids) <= model.context:
        raise InputError(
            f"{document.source} has {len(ids)} tokens; an evaluation takes documents of 2 to "
            f"{model.context}. Cut it into shorter ones."
        )
    return torch.tensor([ids], device=model.device)


def _figures(
    model: SkipModel, ids: Int[Tensor, "1 t"], reference: Reference, *, source: str
) -> dict[str, float]:
    with record(model, statistics=False) as recording:
        logits = model.model(ids, use_cache=False).logits[0]
    traced = recording.trace
    whole = cost_summary(traced)
    parts = compute_share(traced).select("component", "share").rows()
    found = {
        **reference.against(logits[:-1]),
        "layers_used": whole.layers_mean,
        "realised": whole.budget,
        "flop_share": whole.flop_share,
        **{f"{SHARE_NAMES.get(name, name)}_share": share for name, share in parts},
    }
    if wrong := [name for name, value in found.items() if not np.isfinite(value)]:
        raise RecordingError(
            f"{model.name} gives a {wrong[0]} on {source} that is NaN or infinite. Load the models "
            "with dtype='float32', or leave the text out."
        )
    return found
