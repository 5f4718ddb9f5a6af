"""What the recorder of one file costs where a model runs: recorded over bare, of the same work.

``python benchmarks/recorder_kit.py``. A Llama of the size of SmolLM2-135M with random weights and a
linear router per layer, float32: a forward of 256 tokens, and 8 decoded tokens from a cache.
Medians of alternating runs, since the speed of a machine drifts. Bar: at most 1.05.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from skipviz.recorder_kit import Recorder

LAYERS, WIDTH = 30, 576
TOKENS, DECODED = 256, 8
ROUNDS = 21
BAR = 1.05


def routed() -> LlamaForCausalLM:
    """Return a model whose MLPs a router may switch off."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=WIDTH,
        intermediate_size=1536,
        num_hidden_layers=LAYERS,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
        eos_token_id=None,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config).eval()
    for layer in model.model.layers:
        layer.mlp.router = nn.Linear(WIDTH, 1)
        layer.mlp.register_forward_hook(switched)
    return model


def switched(module: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
    """Keep what an MLP adds where its router says so."""
    return output * (module.router(inputs[0]) > 0)


def read(_: Any, __: Any, output: torch.Tensor) -> dict[str, Any]:
    """Give what a router decided."""
    return {"score": output[..., 0], "threshold": 0.0, "ran": output[..., 0] > 0}


def seconds(run: Callable[[], object]) -> float:
    """Return how long one call takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    """Print the ratios."""
    model = routed()
    ids = torch.randint(1, 49152, (1, TOKENS))
    sites = [{"layer": layer, "unit": "mlp"} for layer in range(LAYERS)]
    path = Path(tempfile.mkdtemp()) / "run.jsonl"

    def forward() -> None:
        model(ids, use_cache=False)

    def decode() -> None:
        model.generate(
            ids[:, :16], max_new_tokens=DECODED, do_sample=False, attention_mask=ids[:, :16] > 0
        )

    def recorded(run: Callable[[], None]) -> Callable[[], None]:
        def inner() -> None:
            with Recorder(path, sites=sites, layers=LAYERS) as recorder:

                def announce(_: Any, __: Any, kwargs: Any) -> None:
                    texts = [["word"] * kwargs["input_ids"].shape[1]]
                    recorder.tokens(texts, sequences=[0], id=kwargs["input_ids"].tolist())

                handle = model.register_forward_pre_hook(announce, with_kwargs=True)
                recorder.hook(model, "model.layers.{layer}.mlp.router", read, unit="mlp")
                run() if run is decode else model(input_ids=ids, use_cache=False)
                handle.remove()

        return inner

    with torch.inference_mode():
        for name, run in (
            (f"a forward of {TOKENS} tokens", forward),
            (f"{DECODED} decoded tokens", decode),
        ):
            with_kit = recorded(run)
            run()
            with_kit()
            ratios = []
            for _ in range(ROUNDS):
                without = seconds(run)
                ratios.append(seconds(with_kit) / without)
            print(
                f"{name}: {statistics.median(ratios):.3f} of bare "
                f"(pairs {min(ratios):.3f} to {max(ratios):.3f}; bar {BAR:.2f})"
            )
    path.unlink()
    path.parent.rmdir()


if __name__ == "__main__":
    main()
