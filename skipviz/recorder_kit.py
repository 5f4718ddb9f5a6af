"""Records the decisions of a skipping model where it runs. One file, to be copied: it needs torch.

    from recorder_kit import Recorder

    sites = [{"layer": layer, "unit": "mlp"} for layer in range(12)]
    with Recorder("run.jsonl", sites=sites, model="my-router", layers=12) as r:
        r.hook(model, "model.layers.{layer}.router", unit="mlp",
               read=lambda module, inputs, output: {"score": output[..., 0],
                                                    "ran": output[..., 0] > 0})
        r.tokens([["The", " cat", " sat"]])      # what the next forward runs
        model(ids)

Where no module can be hooked, call ``r.gate(site, ran=..., score=...)`` beside the decision. Then
``skipviz import run.jsonl -o trace.parquet``. The format is that of docs/trace_format.md.
"""

from __future__ import annotations

import base64
import json
import platform
import sys
from array import array
from collections.abc import Callable, Sequence
from typing import Any

import torch

FORMAT = 1
PENDING = 4096  # gate events kept before they are written


class Recorder:
    """Streams tokens and gate events to a file of JSON lines; what was written survives a crash.

    Parameters
    ----------
    path
        The file. It is overwritten.
    sites
        One dict per place of decision, in running order: ``layer`` and ``unit`` (``block``,
        ``attn`` or ``mlp``), and what is known of ``visit``, ``rule``, ``polarity`` and the rest.
    run
        What is known of the run: ``model``, ``layers``, ``family``, ``policy``, ``dtype``, ...
    """

    def __init__(self, path: Any, *, sites: Sequence[dict[str, Any]], **run: Any) -> None:
        self._sites, self._run, self._path = [dict(site) for site in sites], run, path
        self._file: Any = None
        self._hooks: list[Any] = []
        self._pending: list[tuple[int, dict[str, Any], torch.Tensor | None]] = []
        self._number = torch.zeros(0, dtype=torch.long)  # of each place of the batch, -1: padding
        self._fired: dict[int, int] = {}  # how often a hook fired for these tokens, by first site
        self._next_token, self._next_sequence = 0, 0

    def __enter__(self) -> Recorder:
        self._file = open(self._path, "w", encoding="utf-8")
        versions = {"python": platform.python_version(), "torch": torch.__version__}
        head = {"kind": "recording", "format": FORMAT, "sites": self._sites}
        self._write({**head, **self._run, "recorded_with": versions})
        return self

    def __exit__(self, *exception: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        try:
            self.flush()
            if exception[0] is None:
                self._write({"kind": "end"})
        finally:
            self._file.close()

    def token(self, text: str, *, sequence: int | None = None, **known: Any) -> None:
        """Say that the following gate events are of one token; see ``tokens``."""
        rows = {name: [[value]] for name, value in known.items()}
        self.tokens([[text]], sequences=None if sequence is None else [sequence], **rows)

    def tokens(
        self,
        texts: Sequence[Sequence[str | None]],
        *,
        sequences: Sequence[int] | None = None,
        **known: Any,
    ) -> None:
        """Say which tokens the next forward runs: one list of texts per row of the batch.

        Parameters
        ----------
        texts
            As long as each other; None where a row is padded.
        sequences
            The number of each row's sequence. A row with a number seen before continues it, as in
            decoding. Not given: every row begins a new sequence.
        known
            More about each token, in lists like ``texts``: ``id``, ``nll``, ``surprisal``,
            ``entropy``, ``phase``, ``source``, ``class_label``, ``class_prob``.
        """
        self.flush()
        self._fired.clear()
        if len({len(row) for row in texts}) > 1:
            raise ValueError(f"Rows have {[len(row) for row in texts]} tokens; pad with None.")
        if sequences is None:
            sequences = range(self._next_sequence, self._next_sequence + len(texts))
        self._next_sequence = max([self._next_sequence, *(number + 1 for number in sequences)])
        columns = {
            "text": texts,
            "sequence": [[n] * len(row) for n, row in zip(sequences, texts)],
        }
        flat = {
            name: [v for row in rows for v in row] for name, rows in {**columns, **known}.items()
        }
        kept = [place for place, text in enumerate(flat["text"]) if text is not None]
        self._number = torch.full((len(flat["text"]),), -1)
        self._number[kept] = torch.arange(self._next_token, self._next_token + len(kept))
        self._next_token += len(kept)
        line = {name: [column[place] for place in kept] for name, column in flat.items()}
        self._write({"kind": "tokens", **line})

    def gate(
        self,
        site: int,
        *,
        ran: Any,
        score: Any = None,
        threshold: Any = None,
        p_execute: Any = None,
        tokens: Any = None,
    ) -> None:
        """Note one firing of a site, or several tokens' firings at once.

        Parameters
        ----------
        site
            Index in ``sites``.
        ran
            How often the unit ran: bool or 0 to 255, one per token of ``tokens(...)`` in the same
            shape, or one for all of them.
        score, threshold, p_execute
            What the gate emitted, what it was compared with, and the probability that it runs;
            None if there is none, NaN for a token that was not asked.
        tokens
            Places in the flattened batch that were asked; None: all.
        """
        if not 0 <= site < len(self._sites):
            raise ValueError(f"site={site} is not one of the {len(self._sites)} sites.")
        asked = None if tokens is None else torch.as_tensor(tokens).detach().clone().reshape(-1)
        count = self._number.numel() if asked is None else asked.numel()
        known = {"ran": ran, "score": score, "threshold": threshold, "p_execute": p_execute}
        known = {name: value for name, value in known.items() if value is not None}
        for name, value in known.items():
            if not isinstance(value, (int, float)):  # a copy: the model may write over its own
                known[name] = value = torch.as_tensor(value).detach().clone().reshape(-1)
                if value.numel() not in (1, count):
                    got = value.numel()
                    raise ValueError(f"site {site}: {name} has {got} values for {count} tokens.")
        self._pending.append((site, known, asked))
        if len(self._pending) >= PENDING:
            self.flush()

    def hook(
        self,
        model: torch.nn.Module,
        pattern: str,
        read: Callable[[Any, Any, Any], dict[str, Any]],
        *,
        unit: str,
        first: int = 0,
    ) -> None:
        """Record modules by name: ``read(module, inputs, output)`` gives the keywords of ``gate``.

        If a module's layer has sites of several visits, its firings for the same tokens go to one
        after the other; otherwise they add up.

        Parameters
        ----------
        model
            The model.
        pattern
            A module's name with ``{layer}`` for the number.
        read
            Called after each forward of such a module.
        unit
            The unit of its sites.
        first
            The layer that number 0 of these modules is, where a model has several stacks.
        """
        modules = dict(model.named_modules())
        found = 0
        visits: dict[int, list[int]] = {}
        for index, site in enumerate(self._sites):
            if site["unit"] == unit:
                visits.setdefault(site["layer"], []).append(index)
        for layer, indices in visits.items():
            module = modules.get(pattern.replace("{layer}", str(layer - first)))
            if module is not None:
                indices.sort(key=lambda index: self._sites[index].get("visit") or 0)
                listen = _listener(self, indices, read)
                self._hooks.append(module.register_forward_hook(listen))
                found += 1
        if not found:
            names = ", ".join(name for name in modules if name.count(".") == pattern.count("."))
            raise ValueError(f"No {unit} site has a module {pattern!r}; there are {names[:2000]}.")

    def flush(self) -> None:
        """Write what has been noted; called by ``tokens`` and at the end."""
        pending, self._pending = self._pending, []
        numbers = self._number.tolist() if pending else []
        for site, known, asked in pending:
            tokens = numbers if asked is None else [numbers[place] for place in asked.tolist()]
            kept = [at for at, token in enumerate(tokens) if token >= 0]  # not padding
            line = {"kind": "gate", "site": site, "token": _short([tokens[at] for at in kept])}
            for name, value in known.items():
                values = value.tolist() if isinstance(value, torch.Tensor) else [value]
                line[name] = _packed(name, [values[at if len(values) > 1 else 0] for at in kept])
            self._write(line)
        if self._file is not None:
            self._file.flush()

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is None:
            raise ValueError("Use it in a with block: with Recorder(...) as r: ...")
        self._file.write(json.dumps(line) + "\n")


def _listener(recorder: Recorder, visits: list[int], read: Any) -> Callable[..., None]:
    def listen(module: Any, inputs: Any, output: Any) -> None:
        fired = recorder._fired.get(visits[0], 0)
        recorder._fired[visits[0]] = fired + 1
        if fired >= len(visits) > 1:
            raise ValueError(f"site {visits[0]} has {len(visits)} visits, and fired once more.")
        recorder.gate(visits[fired if len(visits) > 1 else 0], **read(module, inputs, output))

    return listen


def _short(tokens: list[int]) -> int | list[int]:
    """Return the first number of neighbouring tokens, else all."""
    neighbours = bool(tokens) and tokens == list(range(tokens[0], tokens[0] + len(tokens)))
    return tokens[0] if neighbours else tokens


def _packed(name: str, values: list[Any]) -> dict[str, str]:
    """Return numbers as base64 of bytes for times run, else of little-endian float32."""
    if name == "ran":
        return {"uint8": base64.b64encode(bytes(map(int, values))).decode()}
    packed = array("f", values)
    if sys.byteorder == "big":
        packed.byteswap()
    return {"float32": base64.b64encode(packed.tobytes()).decode()}
