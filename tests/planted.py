"""A model whose gates and utilities are known: every MLP adds a chosen number to a chosen logit.

A token is one-hot in the first dimensions and writes into as many others, from which the head
reads logits; one dimension holds a number so large that norms divide by nearly the same. Attention
adds nothing. The MLP of gated layer l adds ``gains[l, c]`` to the logit of the token that follows
token c in the texts, so executing helps where that is above zero and hurts where it is below.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from skipviz.families.gated.modules import GatedConfig, gated_units, install_gates

WORDS = 64
WIDTH = 2 * WORDS + 16
LAYERS = 6
GATED = GatedConfig(first_layer=1, last_layer=4, gate_hidden=WORDS, adapter_rank=1)
SITES = 4
"""Gated MLPs; the attention beside each is gated too and does nothing."""
CONSTANT = 400.0
RMS = CONSTANT / np.sqrt(WIDTH)

Floats = npt.NDArray[np.float64]


def tokenizer() -> Any:
    """A word a token: ``w0`` to ``w63``, and an unknown one that no text has."""
    words = {f"w{number}": number for number in range(WORDS)} | {"?": WORDS}
    core = Tokenizer(models.WordLevel(words, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="?", pad_token="?")


def successor(token: int) -> int:
    """The token that follows in every text."""
    return (token * 5 + 1) % WORDS


def text(length: int) -> str:
    """A text that visits every word in turn."""
    tokens = [0]
    while len(tokens) < length:
        tokens.append(successor(tokens[-1]))
    return " ".join(f"w{token}" for token in tokens)


def gains(seed: int) -> Floats:
    """What each gated MLP adds to the right logit, [sites, words], away from 0."""
    generator = np.random.default_rng(seed)
    size = generator.uniform(0.2, 1.5, (SITES, WORDS))
    return size * generator.choice([-1.0, 1.0], size.shape)


def model(gain: Floats, scores: Floats) -> Any:
    """A model with these gains, whose gated MLPs score each word as in ``scores``."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=WORDS + 1,
        hidden_size=WIDTH,
        intermediate_size=WORDS,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=36,
        max_position_embeddings=512,
        rms_norm_eps=1e-12,
    )
    made = LlamaForCausalLM(config).eval()
    install_gates(made, GATED)
    with torch.no_grad():
        embeddings = torch.zeros(WORDS + 1, WIDTH)
        embeddings[:WORDS, :WORDS] = torch.eye(WORDS)
        embeddings[:, -1] = CONSTANT
        made.model.embed_tokens.weight.copy_(embeddings)
        made.lm_head.weight.zero_()
        made.lm_head.weight[:WORDS, WORDS : 2 * WORDS] = torch.eye(WORDS)
        made.model.norm.weight.fill_(RMS)
        for layer in made.model.layers:
            for norm in (layer.input_layernorm, layer.post_attention_layernorm):
                norm.weight.fill_(RMS)
        for layer in made.model.layers:
            attention = getattr(layer.self_attn, "unit", layer.self_attn)
            attention.o_proj.weight.zero_()
            mlp = getattr(layer.mlp, "unit", layer.mlp)
            mlp.gate_proj.weight.zero_()
            mlp.gate_proj.weight[:, :WORDS] = 40 * torch.eye(WORDS)
            mlp.up_proj.weight.zero_()
            mlp.up_proj.weight[:, -1] = 1 / CONSTANT
            mlp.down_proj.weight.zero_()
        units = [unit for _, kind, unit in gated_units(made) if kind == "mlp"]
        for unit, gain_of, score_of in zip(units, gain, scores, strict=True):
            for word in range(WORDS):
                row = WORDS + successor(word)
                unit.unit.down_proj.weight[row, word] = gain_of[word] / 40
            unit.gate.down.weight.zero_()
            unit.gate.down.bias.zero_()
            unit.gate.down.weight[:, :WORDS] = 40 * torch.eye(WORDS)
            unit.gate.up.weight.copy_(torch.tensor(score_of / 40)[None])
            unit.gate.up.bias.zero_()
    return made


def utilities(gain: Floats, executed: npt.NDArray[np.bool_], tokens: npt.NDArray[Any]) -> Floats:
    """What executing each gated MLP is worth, from the gains alone; [tokens, sites]."""
    mine = gain.T[tokens]
    right = (mine * executed).sum(axis=1, keepdims=True)
    others = right - mine * executed
    return _loss(others) - _loss(others + mine)


def _loss(right: Floats) -> Floats:
    """Loss of a prediction in which the right logit is this and all others are 0."""
    found: Floats = np.log(WORDS + np.exp(right)) - right
    return found
