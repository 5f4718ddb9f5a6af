"""What a masked model and the same one gathered are both asked, and must answer alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import skipviz
from tests import tiny

KINDS = ("Llama", "Mistral", "Qwen2", "Qwen3")
TEXT = tiny.TEXT * 4
"""Longer than a block of queries."""
Both = tuple[skipviz.SkipModel, skipviz.SkipModel]
"""Masked and gathered."""


def same_losses(first: skipviz.Trace, second: skipviz.Trace) -> None:
    losses = [trace.tokens["nll"].to_numpy()[:-1] for trace in (first, second)]
    np.testing.assert_allclose(*losses, atol=1e-4)


def same_in_a_batch(models: Both) -> None:
    """Give both texts of unlike lengths."""
    texts = [TEXT, tiny.TEXT[:30], "A", TEXT[5:120]]
    given = models[0].tokenizer(texts, return_tensors="pt", padding=True)
    places = (given["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    with torch.inference_mode():
        found = [model.model(**given, position_ids=places).logits for model in models]
    kept = given["attention_mask"].bool()
    torch.testing.assert_close(found[0][kept], found[1][kept], atol=1e-4, rtol=1e-4)


def same_generation(models: Both, *, cache: str) -> None:
    """Have both write after a padded batch, go on where they stopped, and draw."""
    given = models[0].tokenizer([tiny.TEXT, tiny.TEXT[:12]], return_tensors="pt", padding=True)
    more: dict[str, Any] = {"do_sample": False, "max_new_tokens": 12, "pad_token_id": 2}
    if cache == "static":
        more["cache_implementation"] = "static"
    found = [model.model.generate(**given, **more) for model in models]
    assert torch.equal(*found)
    new = found[0].shape[1] - given["input_ids"].shape[1]
    mask = torch.nn.functional.pad(given["attention_mask"], (0, new), value=1)
    further = [
        model.model.generate(input_ids=found[0], attention_mask=mask, **more) for model in models
    ]
    assert torch.equal(*further)
    drawn = []
    for model in models:
        torch.manual_seed(0)
        drawn.append(model.model.generate(**given, **more | {"do_sample": True}))
    assert torch.equal(*drawn)


def same_attention_weights(models: Both) -> None:
    """Ask both for the attention weights of every layer, in the call and by their configuration."""
    ids = models[0].tokenizer(TEXT, return_tensors="pt").input_ids
    models[0].model.set_attn_implementation("eager")  # both share the configuration
    found = []
    for asked in ({"output_attentions": True}, {}):
        models[0].model.config.output_attentions = not asked
        for model in models:
            with torch.inference_mode():
                found.append(model.model(ids, use_cache=False, **asked).attentions)
    for weights in found:
        assert len(weights) == tiny.LAYERS
        for mine, first in zip(weights, found[0], strict=True):
            torch.testing.assert_close(mine, first, atol=1e-4, rtol=1e-4)
