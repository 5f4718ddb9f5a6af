"""Turns what was recorded into the four tables of a trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from skipviz.families.llama import UnitFlops
from skipviz.families.powers import CanDraw, layer_count_of, traits_of
from skipviz.models import SkipModel
from skipviz.models.hashes import run_setup_sha256
from skipviz.recording.statistics import TokenStatistics
from skipviz.recording.text_class import TextClass, class_columns
from skipviz.schema import RUN, TOKENS, TOP_K, site_frame
from skipviz.text.documents import storable
from skipviz.traces import Trace, depth_columns


@dataclass(frozen=True, kw_only=True)
class TokenColumns:
    """What is known of each token beside its statistics, one entry a token.

    Attributes
    ----------
    source
        File or document.
    sequence, position
        Which sequence the token belongs to, and its place in it.
    token_id, text
        The token, and the characters it stands for.
    char_start, char_end
        Where those characters are in the document; -1 where that is unknown.
    span
        Tokens that share characters have one span.
    context
        Tokens that it could see, itself included.
    decode
        True for tokens run one at a time from a cache.
    draft
        True for tokens that were drafted; None: none was.
    """

    source: list[str]
    sequence: npt.NDArray[np.int64]
    position: npt.NDArray[np.int64]
    token_id: npt.NDArray[np.int64]
    text: list[str]
    char_start: npt.NDArray[np.int64]
    char_end: npt.NDArray[np.int64]
    span: npt.NDArray[np.int64]
    context: npt.NDArray[np.int64]
    decode: npt.NDArray[np.bool_]
    draft: npt.NDArray[np.bool_] | None = None


def build_trace(
    model: SkipModel,
    columns: TokenColumns,
    matrices: Mapping[str, npt.NDArray[Any]],
    *,
    statistics: TokenStatistics | None,
    policy: str,
    classes: Sequence[TextClass | None] | None = None,
    window: int | None = None,
    window_overlap: int | None = None,
    seed: int | None = None,
) -> Trace:
    """Assemble and validate a trace.

    Parameters
    ----------
    model
        What ran.
    columns, matrices
        Tokens in reading order and their decisions, [tokens, sites].
    statistics
        Figures of each token's prediction, or None if they were not recorded.
    policy
        Who decided.
    classes
        Of each token what was predicted of its text, or None if nothing was.
    window, window_overlap
        Tokens seen at once, and shared by consecutive windows; None where there were no windows.
    seed
        What torch drew from in this run; None: what a family's fixed rates draw from, if anything.
    """
    sites = site_frame(model.family.sites(model.model))
    layers = layer_count_of(model.family, model.model)
    leaves = traits_of(model.family, model.model).leaves
    used, depth = depth_columns(sites, matrices["exec_count"], layers=layers, leaves=leaves)
    tokens = pl.DataFrame(
        {
            "token": np.arange(len(columns.token_id)),
            "source": columns.source,
            "sequence": columns.sequence,
            "position": columns.position,
            "token_id": columns.token_id,
            "text": columns.text,
            "char_start": _null_where_negative(columns.char_start),
            "char_end": _null_where_negative(columns.char_end),
            "span": columns.span,
            "context": columns.context,
            "phase": _phases(columns),
            **_statistic_columns(model, columns, statistics),
            "layers_used": used,
            "exit_depth": depth,
            **class_columns([None] * len(columns.token_id) if classes is None else classes),
        },
        schema=TOKENS,
    )
    run_row = run_provenance(
        model, policy=policy, window=window, window_overlap=window_overlap, seed=seed
    )
    return Trace(
        run=pl.DataFrame([run_row], schema=RUN),
        sites=sites,
        tokens=tokens,
        matrices=matrices,
    )


def _phases(columns: TokenColumns) -> list[str]:
    found = np.where(columns.decode, "decode", "prefill")
    drafted = columns.draft
    phases: list[str] = (found if drafted is None else np.where(drafted, "draft", found)).tolist()
    return phases


def _statistic_columns(
    model: SkipModel, columns: TokenColumns, statistics: TokenStatistics | None
) -> dict[str, pl.Series]:
    if statistics is None:
        height = len(columns.token_id)
        names = ("surprisal", "nll", "entropy", "top_ids", "top_probs", "top_texts")
        return {name: pl.Series([None] * height, dtype=TOKENS[name]) for name in names}
    nll = statistics.nll.float().cpu().numpy()
    entropy = statistics.entropy.float().cpu().numpy()
    top_ids = statistics.top_ids.cpu().numpy().astype(np.int64)
    # Where there was no prediction, or none in numbers, no next token is the most likely.
    top = {
        "top_ids": top_ids,
        "top_probs": statistics.top_probs.float().cpu().numpy(),
        "top_texts": np.array(token_texts(model.tokenizer, top_ids.ravel())).reshape(-1, TOP_K),
    }
    # A token is as surprising as the loss of the prediction made just before it.
    surprisal = np.full_like(nll, np.nan)
    follows = (columns.sequence[1:] == columns.sequence[:-1]) & (
        columns.position[1:] == columns.position[:-1] + 1
    )
    surprisal[1:][follows] = nll[:-1][follows]
    return {
        "surprisal": pl.Series(surprisal, dtype=pl.Float32).fill_nan(None),
        "nll": pl.Series(nll, dtype=pl.Float32).fill_nan(None),
        "entropy": pl.Series(entropy, dtype=pl.Float32).fill_nan(None),
        **{name: _null_where(np.isnan(entropy), values, name) for name, values in top.items()},
    }


UNFINISHED = "\ufffd"
"""What bytes that are not a whole character decode to."""


def token_texts(tokenizer: Any, ids: npt.NDArray[np.int64]) -> list[str]:
    """Return single tokens as they stand in a text, with their spaces, whatever the tokenizer.

    Alone, a SentencePiece or WordPiece tokenizer decodes a token without the space before it, so
    each is decoded behind a word. Bytes that are no character alone show as U+FFFD.
    """
    unique, inverse = np.unique(ids, return_inverse=True)
    texts = texts_within(tokenizer, [[int(token)] if token >= 0 else [] for token in unique])
    return [texts[index] for index in inverse]


def texts_within(tokenizer: Any, rows: list[list[int]]) -> list[str]:
    """Return what some tokens, a row each, are in the midst of a text, as for ``token_texts``."""
    behind = tokenizer("a", add_special_tokens=False)["input_ids"][-1:]
    decoded = _decode(tokenizer, [[*behind, *row] for row in rows])
    (start,) = _decode(tokenizer, [behind])
    alone = _decode(tokenizer, rows)
    return [
        both.removeprefix(start) if both.startswith(start) else one
        for both, one in zip(decoded, alone, strict=True)
    ]


def whole_characters(
    tokenizer: Any, ids: npt.NDArray[np.int64], sequence: npt.NDArray[np.int64]
) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Return each token's text, and its span: tokens that share a character share both.

    Parameters
    ----------
    tokenizer
        The tokenizer.
    ids, sequence
        Of tokens in reading order.
    """
    texts = token_texts(tokenizer, ids)
    span = np.arange(len(texts))
    first = 0
    while first < len(texts):
        stop = first + 1
        if UNFINISHED in texts[first]:
            while (
                stop < len(texts)
                and UNFINISHED in texts[stop]
                and sequence[stop] == sequence[first]
            ):
                stop += 1
            for end in range(first + 1, stop + 1):  # the fewest that make whole characters
                (together,) = _decode(tokenizer, [ids[first:end].tolist()])
                if UNFINISHED not in together:
                    texts[first:end] = [together] * (end - first)
                    span[first:end] = first
                    stop = end
                    break
            else:
                stop = first + 1
        first = stop
    return texts, np.unique(span, return_inverse=True)[1]


def _decode(tokenizer: Any, rows: list[list[int]]) -> list[str]:
    found: list[str] = tokenizer.batch_decode(rows, clean_up_tokenization_spaces=False)
    return found


def _null_where(unknown: npt.NDArray[np.bool_], values: npt.NDArray[Any], name: str) -> pl.Series:
    rows = [None if gone else row for gone, row in zip(unknown, values.tolist(), strict=True)]
    return pl.Series(name, rows, dtype=TOKENS[name])


def _null_where_negative(values: npt.NDArray[np.int64]) -> pl.Series:
    series = pl.Series(values, dtype=pl.Int64)
    return series.set(series < 0, None)


def run_provenance(
    model: SkipModel,
    *,
    policy: str,
    window: int | None,
    window_overlap: int | None,
    seed: int | None,
) -> dict[str, Any]:
    """Return the row of the table ``run``; parameters as of ``build_trace``."""
    flops, family = UnitFlops.of(model.model), model.family
    return {
        "model": storable(model.name),
        "weights_sha256": model.weights_sha256,
        "setup_sha256": run_setup_sha256(model),
        "family": family.name,
        "policy": policy,
        "budget": model.budget,
        "limit": model.limit,
        "price": None,
        "runtime": model.runtime,
        "dtype": model.dtype,
        "device": str(model.device),
        "loss": "next_token" if traits_of(family, model.model).predicts else "none",
        "seed": family.seed(model.model) if isinstance(family, CanDraw) else seed,
        "window": window,
        "window_overlap": window_overlap,
        "layers": layer_count_of(family, model.model),
        "attn_fixed_flops": None if flops is None else flops.attn_fixed,
        "attn_per_key_flops": None if flops is None else flops.attn_per_key,
        "mlp_flops": None if flops is None else flops.mlp,
        "kv_flops": None if flops is None else flops.kv,
        "head_flops": None if flops is None else flops.head,
        "skipviz_version": version("skipviz"),
        "torch_version": torch.__version__,
        "transformers_version": version("transformers"),
    }
