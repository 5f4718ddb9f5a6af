"""Tiny random models, made from configurations, with a tokenizer trained on the spot."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from skipviz.families.gated.modules import GatedConfig, gated_units, install_gates

GATES = GatedConfig(first_layer=1, last_layer=4, gate_hidden=4, adapter_rank=2)
LAYERS = 6
TEXT = "The quick brown fox jumps over the lazy dog, and then it sleeps.\nWhy? Nobody knows: 42."


@cache
def tokenizer() -> Any:
    """A byte-level tokenizer like SmolLM2's, with a few merges."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([TEXT] * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        padding_side="left",
    )


def backbone(*, seed: int, context: int = 256, layers: int = LAYERS) -> LlamaForCausalLM:
    """A dense model of narrow layers, six by default."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer()),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    return LlamaForCausalLM(config).eval()


def gated(*, seed: int, context: int = 256) -> LlamaForCausalLM:
    """The same with gates whose decisions are mixed, and adapters that do something."""
    model = backbone(seed=seed, context=context)
    install_gates(model, GATES)
    for _, _, unit in gated_units(model):
        torch.nn.init.normal_(unit.gate.up.weight, std=1.5)
        torch.nn.init.normal_(unit.gate.up.bias, std=0.2)
        torch.nn.init.normal_(unit.adapter.up.weight, std=0.3)
    return model.eval()


def of_kind(kind: str) -> Any:
    """A dense model of an architecture in the Llama layout, as ``Qwen2``."""
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(tokenizer()),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


def last_made(model: Any, layer: Any, seen: list[torch.Tensor]) -> torch.Tensor:
    """What a layer makes of the last of the states that it was given, one token after another."""
    whole = torch.cat(seen, dim=1)
    count = whole.shape[1]
    rotary = model.model.rotary_emb(whole, torch.arange(count)[None])
    mask = torch.full((count, count), -torch.inf).triu(1)[None, None]
    made: torch.Tensor = layer(whole, attention_mask=mask, position_embeddings=rotary)[:, -1:]
    return made


def decoded(model: Any, ids: torch.Tensor, *, last: int) -> torch.Tensor:
    """The logits of a text whose last tokens are run one by one, from a cache."""
    cut = ids.shape[1] - last
    first = model(ids[:, :cut], use_cache=True)
    parts, cache = [first.logits], first.past_key_values
    for place in range(cut, ids.shape[1]):
        step = model(ids[:, place : place + 1], past_key_values=cache)
        parts.append(step.logits)
    return torch.cat(parts, 1)
