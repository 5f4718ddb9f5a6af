"""What skipping saves on a GPU, and how fast gates are trained there: one command, under 8 minutes.

``python benchmarks/gpu.py --backbone FOLDER --gates FOLDER --windows FOLDER --texts FOLDER --json
gpu.json [--keep-gates FOLDER]``. Nothing is fetched: ``--backbone`` holds SmolLM2-135M,
``--gates`` learned gates of it, ``--windows`` a ``windows.safetensors`` of 512 tokens as a run of
``skipviz train --length 512`` leaves it, and ``--texts`` text files that thresholds are set on. The
second half, training, is left out without ``--windows``.

1. Gathered gives what masked gives, in float32 and bfloat16.
2. Prefill: dense, masked and gathered in turn at 512, 2,048 and 8,192 tokens, batches of 1 and 16,
   budgets 0.8 and 0.65.
3. Decoding, masked and gathered by transformers' own cache, and with CUDA graphs in capacity
   buckets (``bucketed_decode.py``).
4. Training of gates in bfloat16, 64 windows of 512 tokens per step: tokens per second, and the
   gates after a given time.

``PYTHONPATH=. python benchmarks/gpu.py --device cpu --tiny --json gpu.json`` runs all but the
graphs on a random model, which is how this file is tested.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bucketed_decode import BucketedDecode
from safetensors.torch import save_file

import skipviz
from skipviz.experiments.timing.handles import runtimes_of
from skipviz.experiments.timing.machine import clock_of, this_machine
from skipviz.experiments.timing.stopwatch import decode_step, prefill, turned
from skipviz.families.gated.modules import GatedConfig
from skipviz.models import at_budget
from skipviz.text.documents import Document
from skipviz.training.objectives.cost_aware import train_gates
from skipviz.training.prepare import WINDOWS, TrainingRun
from skipviz.training.recipe import Recipe
from skipviz.training.shapes import gate_shape

SIZES = {
    "lengths": (512, 2048, 8192), "batches": (1, 16), "budgets": (0.8, 0.65), "rounds": 5,
    "prompt": 256, "decoded": 32, "decode_rounds": 3, "train_batch": 64,
    "train_length": 512, "train_warm": 6,
}  # fmt: skip
TINY = {
    "lengths": (16, 32), "batches": (1, 4), "budgets": (0.8,), "rounds": 2, "prompt": 8,
    "decoded": 4, "decode_rounds": 2, "train_batch": 2, "train_length": 16, "train_warm": 2,
}  # fmt: skip
CALIBRATION_TEXTS, CALIBRATION_CHARS = 8, 2000
"""Thresholds are set on a CPU, so on little text here."""
TIED = 1e-5
"""Nearer to its threshold than this, rounding decides."""


class Budgeted:
    """Minutes that are left; parts that do not fit any more are named and left out."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes
        self.left_out: list[str] = []

    def left(self) -> float:
        """Return the seconds that are left."""
        return self._end - time.monotonic()

    def allows(self, what: str, seconds: float) -> bool:
        """Say whether there is time for something that takes about so long, and note if not."""
        if self.left() >= seconds:
            return True
        self.left_out.append(what)
        return False


def say(words: str) -> None:
    print(words, flush=True)


def random_ids(model: skipviz.SkipModel, batch: int, tokens: int) -> torch.Tensor:
    """Return token ids drawn with a seed; what they say does not matter to the time."""
    drawn = np.random.default_rng(0).integers(0, model.model.config.vocab_size, (batch, tokens))
    return torch.tensor(drawn, device=model.device)


def equality(gates: Path, device: str, sizes: dict[str, Any]) -> list[dict[str, Any]]:
    """Compare logits and decisions of gathered and masked, alone and in a batch."""
    rows = []
    for dtype in ("float32", "bfloat16"):
        masked = skipviz.load(gates, dtype=dtype, device=device)
        fast = skipviz.with_runtime(masked, "gathered")
        for batch in sizes["batches"]:
            ids = random_ids(masked, batch, sizes["lengths"][0])
            traces, logits = [], []
            for model in (masked, fast):
                with torch.inference_mode(), skipviz.record(model, statistics=False) as recording:
                    logits.append(model.model(ids, use_cache=False).logits.float().cpu())
                traces.append(recording.trace)
            first, second = (trace.matrix("exec_count") for trace in traces)
            clear = np.abs(traces[0].margin) > TIED
            rows.append(
                {
                    "dtype": dtype,
                    "batch": batch,
                    "tokens": int(ids.numel()),
                    "largest_difference": float((logits[0] - logits[1]).abs().max()),
                    "largest_logit": float(logits[0].abs().max()),
                    "decisions_flipped": float((first != second)[clear].mean()),
                    "same_top_token": float(
                        (logits[0].argmax(-1) == logits[1].argmax(-1)).float().mean()
                    ),
                }
            )
            say(f"equality, {dtype}, batch {batch}: {rows[-1]['largest_difference']:.2g} at most")
    return rows


def prefills(
    gates: Path, device: str, dtype: str, sizes: dict[str, Any], time_left: Budgeted
) -> list[dict[str, Any]]:
    """Time dense, masked and gathered in turn."""
    loaded = skipviz.load(gates, dtype=dtype, device=device)
    clock = clock_of(loaded.device)
    rows = []
    for budget in sizes["budgets"]:
        handles, _ = runtimes_of(at_budget(loaded, budget))
        for length in sizes["lengths"]:
            for batch in sizes["batches"]:
                name = f"prefill, {dtype}, budget {budget}, {batch} x {length}"
                ids = random_ids(loaded, batch, length)
                seconds: dict[str, list[float]] = {each: [] for each in handles}
                began = time.monotonic()
                with torch.inference_mode():
                    for handle in handles.values():
                        prefill(handle.model, ids, cache=False)
                    warm = time.monotonic() - began
                    if not time_left.allows(name, warm * sizes["rounds"]):
                        continue
                    for number in range(sizes["rounds"]):
                        for each in turned(list(handles), number):
                            start = clock()
                            prefill(handles[each].model, ids, cache=False)
                            seconds[each].append(clock() - start)
                rows.append(_ratios(seconds) | {"dtype": dtype, "budget": budget,
                                                "batch": batch, "length": length})  # fmt: skip
                say(f"{name}: gathered {rows[-1]['gathered_over_dense']:.3f} of dense")
    return rows


def decodes(
    gates: Path, device: str, dtype: str, sizes: dict[str, Any], time_left: Budgeted
) -> list[dict[str, Any]]:
    """Time decoding with transformers' cache, and in capacity buckets, captured on a GPU."""
    loaded = skipviz.load(gates, dtype=dtype, device=device)
    clock = clock_of(loaded.device)
    capture = loaded.device.type == "cuda"
    rows = []
    prompt, decoded = sizes["prompt"], sizes["decoded"]
    for budget in sizes["budgets"]:
        handles, _ = runtimes_of(at_budget(loaded, budget))
        for batch in sizes["batches"]:
            name = f"decode, {dtype}, budget {budget}, batch {batch}"
            if not time_left.allows(name, 20.0 if capture else 0.0):
                continue
            ids = random_ids(loaded, batch, prompt + decoded)
            buckets = {
                f"{each}_{'graphs' if capture else 'pieces'}": BucketedDecode(
                    handles[each].model, batch=batch, length=prompt + decoded, capture=capture
                )
                for each in ("dense", "masked")
            }
            apart = _largest_difference(handles["masked"], buckets, ids, prompt)
            seconds: dict[str, list[float]] = {each: [] for each in (*handles, *buckets)}
            with torch.inference_mode():
                for number in range(sizes["decode_rounds"]):
                    for each in turned(list(seconds), number):
                        handle = handles.get(each) or handles[each.partition("_")[0]]
                        cache = prefill(handle.model, ids[:, :prompt], cache=True).past_key_values
                        if each in buckets:
                            buckets[each].fill(cache)
                        start = clock()
                        for place in range(prompt, prompt + decoded):
                            token = ids[:, place : place + 1]
                            if each in buckets:
                                buckets[each].step(token, place)
                            else:
                                cache = decode_step(handle.model, token, cache)
                        seconds[each].append((clock() - start) / decoded)
            rows.append(
                _ratios(seconds)
                | {"dtype": dtype, "budget": budget, "batch": batch, "captured": capture,
                   "graphs": sum(each.graphs for each in buckets.values()),
                   "largest_difference": apart}
            )  # fmt: skip
            say(f"{name}: gathered {rows[-1]['gathered_over_dense']:.3f} of dense")
    return rows


def _largest_difference(
    masked: skipviz.SkipModel, buckets: dict[str, BucketedDecode], ids: torch.Tensor, prompt: int
) -> float:
    """Return how far logits of a step in buckets lie from those of the masked runtime, at most."""
    (bucketed,) = [each for name, each in buckets.items() if name.startswith("masked")]
    with torch.inference_mode():
        cache = prefill(masked.model, ids[:, :prompt], cache=True).past_key_values
        bucketed.fill(cache)
        wanted = masked.model(ids[:, prompt : prompt + 1], past_key_values=cache).logits[:, -1]
        found = bucketed.step(ids[:, prompt : prompt + 1], prompt)
    return float((found.float() - wanted.float()).abs().max())


def _ratios(seconds: dict[str, list[float]]) -> dict[str, Any]:
    row: dict[str, Any] = {f"{name}_seconds": statistics.median(s) for name, s in seconds.items()}
    for name, own in seconds.items():
        if name != "dense":
            pairs = zip(own, seconds["dense"], strict=True)
            row[f"{name}_over_dense"] = statistics.median(a / b for a, b in pairs)
    return row


def training(
    given: argparse.Namespace, dtype: str, sizes: dict[str, Any], time_left: Budgeted
) -> dict[str, Any]:
    """Train gates for as long as is given, and say how fast."""
    texts = [
        Document(path.name, path.read_text(encoding="utf-8")[:CALIBRATION_CHARS])
        for path in sorted(given.texts.glob("*.txt"))[:CALIBRATION_TEXTS]
    ]
    config = gate_shape(skipviz.load(given.backbone).model, learned=True)
    tokens = sizes["train_batch"] * sizes["train_length"]
    recipe = {
        "budget": sizes["budgets"][-1], "batch": sizes["train_batch"],
        "length": sizes["train_length"], "dtype": dtype, "collapse_after": 0,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        # A short run says how many steps fit, so that the long one has its whole schedule.
        warm = _trained(given, Recipe(steps=sizes["train_warm"], **recipe), config, texts,
                        Path(scratch) / "warm")  # fmt: skip
        per_step = statistics.median(warm["seconds"][1:])
        room = min(60 * given.train_minutes, 0.8 * time_left.left())
        steps = max(1, int(room / per_step))
        folder = given.keep_gates or Path(scratch) / "gates"
        found = _trained(given, Recipe(steps=steps, **recipe), config, texts, folder)
    spent = sum(found["seconds"])
    return {
        "dtype": dtype,
        "batch": sizes["train_batch"],
        "length": sizes["train_length"],
        "steps": steps,
        "seconds": spent,
        "tokens_per_second": tokens / statistics.median(found["seconds"]),
        "last": found["last"],
        "gates": None if given.keep_gates is None else str(found["made"]),
    }


def _trained(
    given: argparse.Namespace,
    recipe: Recipe,
    config: GatedConfig,
    texts: list[Document],
    folder: Path,
) -> dict[str, Any]:
    figures: list[dict[str, float]] = []
    run = TrainingRun(
        backbone=str(given.backbone), recipe=recipe, folder=folder, device=given.device,
        windows=given.windows, say=say, report=figures.append,
    )  # fmt: skip
    made = train_gates(run, config=config, calibration=texts)
    last = {name: value for name, value in figures[-1].items() if name != "seconds"}
    return {"seconds": [each["seconds"] for each in figures], "last": last, "made": made}


def on_backbone(gates: Path, backbone: Path, target: Path) -> Path:
    """Return a copy of a folder of gates that names its backbone by a path."""
    shutil.copytree(gates, target)
    settings = json.loads((target / CONFIG).read_text(encoding="utf-8"))
    settings["backbone"] = str(backbone.resolve())
    (target / CONFIG).write_text(json.dumps(settings), encoding="utf-8")
    return target


@contextmanager
def tiny_parts() -> Iterator[dict[str, Path]]:
    """Write a random model, gates, windows and texts, as those that are given otherwise."""
    from tests import tiny
    from tests.folders import write_gated

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = tiny.backbone(seed=0)
        model.save_pretrained(folder / "backbone")
        tiny.tokenizer().save_pretrained(folder / "backbone")
        sha256 = skipviz.load(folder / "backbone").weights_sha256
        write_gated(folder / "gates", backbone=folder / "backbone")
        for name in ("windows", "texts"):
            (folder / name).mkdir()
        drawn = np.random.default_rng(0).integers(0, model.config.vocab_size, (480, 17))
        about = {"backbone": sha256, "seed": "0", "sources": "{}"}
        save_file({"windows": torch.tensor(drawn)}, folder / "windows" / WINDOWS, metadata=about)
        (folder / "texts" / "a.txt").write_text(tiny.TEXT * 8, encoding="utf-8")
        yield {name: folder / name for name in ("backbone", "gates", "windows", "texts")}


def main() -> None:
    """Run all parts that there is time for, and write one JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("backbone", "gates", "windows", "texts"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--keep-gates", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=7.5)
    parser.add_argument("--train-minutes", type=float, default=2.5)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    if not given.tiny and (given.backbone is None or given.gates is None):
        parser.error("--backbone and --gates name folders; or --tiny for a random model.")
    if given.windows is not None and given.texts is None:
        parser.error("--windows trains gates, whose thresholds are set on --texts.")
    if given.tiny:
        with tiny_parts() as parts:
            for name, path in parts.items():
                setattr(given, name, path)
            _run(given, TINY)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            given.gates = on_backbone(given.gates, given.backbone, Path(scratch) / "gates")
            _run(given, SIZES)


def _run(given: argparse.Namespace, sizes: dict[str, Any]) -> None:
    time_left = Budgeted(given.minutes)
    device = torch.device(given.device)
    # Training has its share of the time kept for it.
    measuring = Budgeted(given.minutes - (given.train_minutes + 1 if given.windows else 0))
    found: dict[str, Any] = {"machine": asdict(this_machine(device)), "prefill": [], "decode": []}
    found["equality"] = equality(given.gates, given.device, sizes)
    for dtype in ("float32", "bfloat16"):
        found["decode"] += decodes(given.gates, given.device, dtype, sizes, measuring)
        found["prefill"] += prefills(given.gates, given.device, dtype, sizes, measuring)
    _write(given.json, found)  # should the rest fail
    if given.windows is not None:
        dtype = "float32" if given.tiny else "bfloat16"
        found["training"] = training(given, dtype, sizes, time_left)
    found["left_out"] = measuring.left_out + time_left.left_out
    found["seconds"] = 60 * given.minutes - time_left.left()
    _write(given.json, found)
    say(f"The figures are in {given.json}.")


def _write(path: Path, found: dict[str, Any]) -> None:
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
