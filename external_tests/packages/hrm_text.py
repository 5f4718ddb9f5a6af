"""HRM-Text of transformers: two stacks of layers, run again and again for every token.

Recorded: by hooks of the recorder, each run a visit of its layer; and once more with times run that
add up. Read otherwise: each run has a place of its own in the cache of keys and values.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from recorder_kit import Recorder
from tiny import TEXTS, VOCABULARY, decode, encode, write_reading
from torch import Tensor
from transformers import HrmTextConfig, HrmTextForCausalLM

STACK = 2
HIGH, LOW = 2, 3
NEW = 10
BLOCK = {
    "unit": "block",
    "rule": "schedule",
    "skip_path": "identity",
    "kv": "computed",
    "computed_anyway": False,
    "scope": "batch",
}
ROUNDS = [
    (layer, high * LOW + low if stack == "low" else high)
    for high in range(HIGH)
    for stack, low in [*(("low", low) for low in range(LOW)), ("high", 0)]
    for layer in (range(STACK) if stack == "low" else range(STACK, 2 * STACK))
]
"""Layer and visit in running order, as the configuration has it."""


def tiny() -> Any:
    torch.manual_seed(0)
    config = HrmTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=STACK,
        num_attention_heads=4,
        head_dim=8,
        H_cycles=HIGH,
        L_cycles=LOW,
        max_position_embeddings=256,
    )
    return HrmTextForCausalLM(config).eval()


def record(path: Path, model: Any, prompt: Tensor, *, sites: list[dict[str, Any]]) -> Tensor:
    """Record a generation; return the text."""
    with Recorder(path, sites=sites, layers=2 * STACK, model="HRM-Text", family="loop") as recorder:

        def announce(_: Any, __: Any, kwargs: Any) -> None:
            rows = kwargs["input_ids"].tolist()
            phase = "prefill" if len(rows[0]) > 1 else "decode"
            texts = [decode(row) for row in rows]
            known = {"phase": [[phase] * len(rows[0])] * len(rows), "id": rows}
            recorder.tokens(texts, sequences=range(len(rows)), **known)

        handle = model.register_forward_pre_hook(announce, with_kwargs=True)
        for stack, first in (("L_module", 0), ("H_module", STACK)):
            name = f"model.{stack}.layers.{{layer}}"
            recorder.hook(model, name, lambda *_: {"ran": 1}, unit="block", first=first)
        made: Tensor = model.generate(prompt, **options(prompt))
        handle.remove()
    return made


def options(prompt: Tensor) -> dict[str, Any]:
    return {
        "attention_mask": torch.ones_like(prompt),
        "max_new_tokens": NEW,
        "do_sample": False,
        "pad_token_id": VOCABULARY - 1,
    }


@torch.no_grad()
def main(folder: Path) -> None:
    model = tiny()
    prompt = torch.tensor([encode(text)[:20] for text in TEXTS])
    apart = [{"layer": layer, "visit": visit, **BLOCK} for layer, visit in ROUNDS]
    together = [{"layer": layer, **BLOCK} for layer in range(2 * STACK)]
    path = folder / "transformers.hrm-text.jsonl"
    out = model.generate(prompt, **options(prompt), return_dict_in_generate=True)
    made = record(path, model, prompt, sites=apart)
    assert torch.equal(made, out.sequences)
    # The cache has a place for each run, in running order; the last token was never run.
    held = [layer.keys.shape[-2] for layer in out.past_key_values.layers]
    tokens = made.shape[1] - 1
    by_cache = [[position < length for length in held] for position in range(tokens)] * len(prompt)
    write_reading(
        path,
        packages=[],
        readings={"held in the cache": by_cache},
        seen={
            "layers": 2 * STACK,
            "runs of layers per token": len(held),
        },
    )
    path = folder / "transformers.hrm-text-added.jsonl"
    assert torch.equal(record(path, model, prompt, sites=together), made)
    added = [
        [sum(row[at] for at, (where, _) in enumerate(ROUNDS) if where == layer)
         for layer in range(2 * STACK)]
        for row in by_cache
    ]  # fmt: skip
    write_reading(path, packages=[], readings={"held in the cache": added})
    try:
        record(folder / "fewer.jsonl", model, prompt, sites=apart[: -STACK * (LOW + 1)])
    except ValueError as error:
        print(f"hrm-text: a round too few is refused: {error}")
    else:
        raise AssertionError("a round too few was not noticed")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
