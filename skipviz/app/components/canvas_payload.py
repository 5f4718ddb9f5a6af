"""What the canvas needs of a trace and its lenses, packed small.

All numbers travel as bytes in one column per part, since Streamlit hands the browser a table of
bytes as it is; the browser reads them with the list of parts that goes beside them.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from skipviz.analysis.tokens.characters import new_characters
from skipviz.analysis.tokens.text_classes import predicted_classes
from skipviz.errors import InputError
from skipviz.plots.lenses.lens import Lens
from skipviz.plots.lenses.traced import token_column, traced_lenses
from skipviz.plots.style.palette import (
    ALWAYS_RUNS_SHARE,
    CATEGORY_COLOURS,
    GREY,
    NO_CLUSTER_COLOUR,
    PAGE,
    PIN_COLOURS,
    PINK,
    RAMPS,
    SKIPPED_SHARE,
    UNIT_COLOURS,
    UNIT_NAMES,
)
from skipviz.traces import Trace, layer_order, running_steps

PALETTE: dict[str, Any] = {
    "names": UNIT_NAMES,
    "units": UNIT_COLOURS,
    "ramps": RAMPS,
    "page": PAGE,
    "pins": PIN_COLOURS,
    "categories": (*CATEGORY_COLOURS, NO_CLUSTER_COLOUR),
    "skipped": (GREY, SKIPPED_SHARE),
    "alwaysRuns": (GREY, ALWAYS_RUNS_SHARE),
    "downstream": PINK,
}
"""The colours and scales of all figures, as the component takes them."""

STORED = {
    "layers used": "used",
    "loss on the next token": "nll",
    "surprisal": "surprisal",
    "entropy": "entropy",
    "decision": "ran",
    "score minus threshold": "margin",
}
"""Lenses of the trace whose numbers are in the payload anyway, and under which name."""
SPREAD = 0.9
"""Within a site's spread lies this share of its margins on the text."""
UNKNOWN = -1
"""Stands for a whole number that is unknown."""
LARGEST_HALF = 6e4
"""Numbers beyond do not fit 16 bits."""
FULL_HEIGHT, COMPACT_HEIGHT = 340, 270
"""Heights of the text, in pixels; longer texts scroll."""


class Packed:
    """Arrays as bytes, one after the other, and where each of them is."""

    def __init__(self) -> None:
        self._bytes: list[bytes] = []
        self._length = 0
        self.parts: dict[str, tuple[str, int, int]] = {}
        """For each array its type, the byte at which it begins, and how many numbers it has."""

    def add(self, name: str, values: npt.NDArray[Any]) -> None:
        """Append an array, in the order of its rows."""
        written = np.ascontiguousarray(values).tobytes()
        self.parts[name] = (values.dtype.name, self._length, values.size)
        padding = -len(written) % 4
        self._bytes.append(written + bytes(padding))
        self._length += len(written) + padding

    def table(self) -> Any:
        """Return everything as a Pandas table of one column, ``b``."""
        return pl.DataFrame({"b": np.frombuffer(b"".join(self._bytes), dtype=np.uint8)}).to_pandas()


def payload(
    trace: Trace,
    *,
    key: str,
    compact: bool = False,
    address: str | None = None,
    selected: int | None = None,
) -> dict[str, Any]:
    """Return what the component needs of a trace, whatever was found about it.

    What was found goes beside it (``canvas_beside``), so that it is sent once.

    Parameters
    ----------
    trace
        The trace.
    key
        Changes exactly when the trace does: the component writes the text anew when it sees
        another, and only then.
    compact
        Whether text and map take less height, for standing above other things.
    address
        What names the trace in the page's address, as ``trace``; None: this canvas keeps nothing
        there.
    selected
        The token that is selected until another is; None: none.
    """
    packed = Packed()
    tokens = span_texts(trace)
    _add_tokens(packed, trace, tokens)
    _add_cells(packed, trace)
    sites, likely = _sites(packed, trace), _likely(packed, trace)
    classes = predicted_classes(trace).select("first_token", "class_label", "class_prob")
    first = tokens["span"] != tokens["span"].shift(1, fill_value=-1)
    starts = tokens.with_row_index("at").filter(
        (pl.col("sequence") != pl.col("sequence").shift(1)).fill_null(True)
    )
    return {
        "key": key,
        "address": address,
        "selected": selected,
        "bytes": packed.table(),
        "parts": packed.parts,
        "texts": [text if own else "" for text, own in zip(tokens["text"], first, strict=True)],
        "sources": [[int(at), str(name)] for at, name in starts.select("at", "source").rows()],
        "likely": likely,
        "nextToken": trace.run["loss"].item() != "none",
        "classes": [list(row) for row in classes.rows()],
        "sites": sites,
        "count": len(trace),
        "layers": int(trace.run["layers"].item()),
        "rows": len(layer_order(trace.sites, layers=trace.run["layers"].item())),
        "lenses": [_lens(lens, stored=STORED[lens.name]) for lens in traced_lenses(trace)],
        "palette": PALETTE,
        "height": COMPACT_HEIGHT if compact else FULL_HEIGHT,
        "compact": compact,
    }


def lens_payload(trace: Trace, lens: Lens, *, key: str) -> dict[str, Any]:
    """Return what the component needs of a lens beside those of the trace.

    Parameters
    ----------
    trace
        The trace.
    lens
        Of the same tokens and sites.
    key
        As of ``payload``.

    Raises
    ------
    InputError
        If the lens is not of these tokens and sites.
    """
    packed = Packed()
    told = _lens(lens, stored=_add_lens(packed, trace, lens))
    return _beside(packed, key=key, name=f"lens {lens.name}") | {"lens": told}


def changed_payload(
    marks: npt.NDArray[np.uint8] | None, *, key: str, name: str, **told: Any
) -> dict[str, Any]:
    """Return what the component needs of a question about decisions.

    Parameters
    ----------
    marks
        Of shape [tokens, sites]: 1 where a decision changed as asked, 2 where it changed
        downstream, 0 elsewhere; None where there is no answer yet.
    key
        As of ``payload``.
    name
        Of the question.
    **told
        What else is told of it: ``cell``, the token and site that it flips, or None; ``stays``,
        whether it is shown whatever is selected; ``cone``, as ``dependent_sites`` returns it;
        ``words``, sentences; ``waits``, whether it is being answered.
    """
    packed = Packed()
    if marks is not None:
        # Few decisions change: where, and how.
        places = np.flatnonzero(marks.T)
        packed.add("at", places.astype(np.uint32))
        packed.add("how", marks.T.reshape(-1)[places].astype(np.uint8))
    return _beside(packed, key=key, name=name) | {"question": told}


def _beside(packed: Packed, *, key: str, name: str) -> dict[str, Any]:
    return {"key": key, "name": name, "bytes": packed.table(), "parts": packed.parts}


def span_texts(trace: Trace) -> pl.DataFrame:
    """Return a row per token, the characters of its whole span on each of the span's tokens.

    Tokens of one span overlap; each adds the characters that those before it have not reached.
    """
    tokens = trace.tokens.with_columns(new_characters().alias("text"))
    whole = pl.col("text").str.join("").over("span")
    return tokens.select("source", "sequence", "span", "token_id", "context", whole)


def _add_tokens(packed: Packed, trace: Trace, tokens: pl.DataFrame) -> None:
    """Pack what is known of each token."""
    packed.add("token_id", _smallest(_or_unknown(tokens["token_id"])))
    span = tokens["span"]
    packed.add("opens", np.packbits(span != span.shift(1, fill_value=-1), bitorder="little"))
    in_order = tokens.select(pl.int_range(1, pl.len() + 1).over("sequence")).to_series()
    if not tokens["context"].eq_missing(in_order).all():
        packed.add("context", _smallest(_or_unknown(tokens["context"])))
    packed.add("used", token_column(trace, "layers_used").astype(np.float16))
    for name in ("nll", "surprisal", "entropy"):
        packed.add(name, token_column(trace, name))


def _add_cells(packed: Packed, trace: Trace) -> None:
    """Pack decisions and scores, site after site.

    A score goes as its margin over the threshold, divided by the site's spread: so the difference
    keeps the digits of 16 bits, which the score itself would lose where both are near to another.
    Where there is no threshold the score goes instead.
    """
    counts = trace.matrix("exec_count")
    packed.add("ran", np.packbits((counts > 0).T, axis=None, bitorder="little"))
    if (counts > 1).any():
        packed.add("counts", counts.T)
    if trace.matrix("forced").any():
        packed.add("forced", np.packbits(trace.matrix("forced").T, axis=None, bitorder="little"))
    packed.add("scores", _half((_against_threshold(trace) / _spreads(trace)).T))


def _against_threshold(trace: Trace) -> npt.NDArray[np.float32]:
    known = np.isfinite(trace.matrix("threshold"))
    found: npt.NDArray[np.float32] = np.where(known, trace.margin, trace.matrix("score"))
    return found


def _spreads(trace: Trace) -> npt.NDArray[np.float32]:
    """Return within what each site's margins mostly lie, [sites]; 1 where none is known."""
    found = np.ones(trace.sites.height, dtype=np.float32)
    for site, column in enumerate(np.abs(_against_threshold(trace)).T):
        known = column[np.isfinite(column)]
        spread = float(np.quantile(known, SPREAD)) if len(known) else 0.0
        found[site] = spread if spread > 0 else 1.0
    return found


def _sites(packed: Packed, trace: Trace) -> list[dict[str, Any]]:
    """Return what each site is. A threshold that is not the same for all tokens goes as runs."""
    limits = trace.matrix("threshold")
    rows = running_steps(trace.sites)
    spreads = _spreads(trace)
    names = ("label", "layer", "visit", "unit", "polarity", "skip_path")
    sites = []
    for site, row in enumerate(trace.sites.select(names).iter_rows(named=True)):
        column = limits[:, site]
        other = column[1:] != column[:-1]
        starts = np.flatnonzero(other & ~(np.isnan(column[1:]) & np.isnan(column[:-1]))) + 1
        same = not len(starts) and len(column) > 0
        if len(starts):
            packed.add(f"limitStarts{site}", np.append(0, starts).astype(np.uint32))
            packed.add(f"limits{site}", column[np.append(0, starts)])
        sites.append(
            {
                **row,
                "row": int(rows[site]),
                "spread": float(spreads[site]),
                "threshold": float(column[0]) if same and np.isfinite(column[0]) else None,
            }
        )
    return sites


def _likely(packed: Packed, trace: Trace) -> list[str]:
    """Pack the most likely next tokens, and return the texts that they point into."""
    names = ("top_ids", "top_texts", "top_probs")
    known = trace.tokens.filter(pl.col("top_ids").is_not_null())
    places = known.select("token", *names).explode(names)
    words = places.select("top_ids", "top_texts").unique(maintain_order=True)
    words = words.with_row_index("word")
    pointed = places.join(words, on=("top_ids", "top_texts"), how="left", maintain_order="left")
    if not known.height:
        return []
    if known.height < len(trace):
        packed.add("likelyOf", _smallest(known["token"].to_numpy()))
    packed.add("likelyWords", _smallest(pointed["word"].to_numpy()))
    packed.add("likelyIds", words["top_ids"].to_numpy().astype(np.int32))
    packed.add("likelyShares", _half(pointed["top_probs"].to_numpy()))
    return words["top_texts"].fill_null("").to_list()


def _add_lens(packed: Packed, trace: Trace, lens: Lens) -> str:
    """Pack a lens's numbers, and return under which name."""
    expected = (len(trace), trace.sites.height)[: lens.values.ndim]
    if lens.values.shape != expected:
        raise InputError(
            f"The values of lens {lens.name!r} have shape {lens.values.shape}; of this trace it "
            f"is {expected}."
        )
    name = "lens"
    # What a user's own numbers are read for may be in their last digits.
    own = lens.colours == "own" and lens.scale == "sequential"
    packed.add(name, lens.values.T if own else _half(lens.values.T))
    return name


def _lens(lens: Lens, *, stored: str) -> dict[str, Any]:
    """Return what a lens is; its numbers are stored under a name."""
    sites = range(lens.values.shape[1]) if lens.of_cells else ()
    return {
        "slug": slug(lens.name),
        "name": lens.name,
        "unit": lens.unit,
        "note": lens.note,
        "siteScales": lens.site_scales,
        "scale": lens.scale,
        "colours": lens.colours,
        "categories": lens.categories,
        "ofCells": lens.of_cells,
        "known": bool(np.isfinite(lens.values).any()),
        "ends": lens.ends,
        "stretched": lens.stretched(),
        "stretchedSites": [lens.stretched(site=site) for site in sites],
        "stored": stored,
    }


def slug(name: str) -> str:
    """Return a lens's name as it stands in the page's address."""
    return re.sub(r"\W+", "-", name.lower()).strip("-")


def _half(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return numbers in 16 bits, unless one is too large for that."""
    known = np.abs(values[np.isfinite(values)])
    small = not known.size or float(known.max()) < LARGEST_HALF
    return values.astype(np.float16 if small else np.float32)


def _or_unknown(numbers: pl.Series) -> npt.NDArray[Any]:
    """Return whole numbers, -1 where one is unknown, as in recordings made elsewhere."""
    return numbers.fill_null(UNKNOWN).to_numpy()


def _smallest(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return whole numbers from 0, or ``UNKNOWN``, in as few bits as hold them."""
    most = int(values.max()) if values.size else 0
    if values.size and values.min() < 0:
        return values.astype(np.int32 if most < 2**31 else np.float64)
    return values.astype(np.min_scalar_type(most) if most < 2**32 else np.float64)
