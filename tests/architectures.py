"""Tiny random models of many architectures, as transformers makes them from configurations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers

from tests import tiny

WORDS = len(tiny.tokenizer())
COMMON: dict[str, Any] = {
    "vocab_size": WORDS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "initializer_range": 0.2,
}  # fmt: skip
NO_GROUPS = {key: value for key, value in COMMON.items() if key != "num_key_value_heads"}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}

CAUSAL: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "Llama": ("LlamaConfig", "LlamaForCausalLM", COMMON),
    "Mistral": ("MistralConfig", "MistralForCausalLM", COMMON),
    "Qwen2": ("Qwen2Config", "Qwen2ForCausalLM", COMMON),
    "Qwen3": ("Qwen3Config", "Qwen3ForCausalLM", COMMON | {"head_dim": 8}),
    "Gemma": ("GemmaConfig", "GemmaForCausalLM", COMMON | {"head_dim": 8}),
    "Gemma 2": (
        "Gemma2Config", "Gemma2ForCausalLM",
        COMMON | {"head_dim": 8, "sliding_window": 16, "final_logit_softcapping": 3.0,
                  "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 5},
    ),
    "Gemma 3": (
        "Gemma3TextConfig", "Gemma3ForCausalLM", COMMON | {"head_dim": 8, "sliding_window": 16}
    ),
    "Granite": (
        "GraniteConfig", "GraniteForCausalLM",
        COMMON | {"logits_scaling": 4.0, "residual_multiplier": 0.3, "attention_multiplier": 0.2,
                  "embedding_multiplier": 3.0},
    ),
    "SmolLM3": ("SmolLM3Config", "SmolLM3ForCausalLM", COMMON | {"no_rope_layers": [1, 0, 1]}),
    "Helium": ("HeliumConfig", "HeliumForCausalLM", COMMON | {"head_dim": 8}),
    "OLMo 2": ("Olmo2Config", "Olmo2ForCausalLM", COMMON),
    "Phi-3": ("Phi3Config", "Phi3ForCausalLM", COMMON),
    "EXAONE 4": ("Exaone4Config", "Exaone4ForCausalLM", COMMON | {"sliding_window": 16}),
    "StableLM": ("StableLmConfig", "StableLmForCausalLM", COMMON),
    "GLM": ("GlmConfig", "GlmForCausalLM", COMMON | {"head_dim": 8}),
    "GLM-4": ("Glm4Config", "Glm4ForCausalLM", COMMON | {"head_dim": 8}),
    "Cohere": ("CohereConfig", "CohereForCausalLM", COMMON | {"logit_scale": 0.25}),
    "Starcoder 2": ("Starcoder2Config", "Starcoder2ForCausalLM", COMMON),
    "Mixtral": ("MixtralConfig", "MixtralForCausalLM", COMMON | {"num_local_experts": 4}),
    "OLMoE": ("OlmoeConfig", "OlmoeForCausalLM", COMMON | {"num_experts": 4} | EXPERTS),
    "Qwen3 MoE": (
        "Qwen3MoeConfig", "Qwen3MoeForCausalLM",
        COMMON | {"head_dim": 8, "num_experts": 4} | EXPERTS,
    ),
    "GPT-2": (
        "GPT2Config", "GPT2LMHeadModel",
        {"vocab_size": WORDS, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256,
         "bos_token_id": 1, "eos_token_id": 2},
    ),
    "OPT": (
        "OPTConfig", "OPTForCausalLM",
        NO_GROUPS | {"ffn_dim": 48, "word_embed_proj_dim": 16},
    ),
    "Pythia (GPT-NeoX)": ("GPTNeoXConfig", "GPTNeoXForCausalLM", NO_GROUPS),
    "Mamba": (
        "MambaConfig", "MambaForCausalLM",
        {"vocab_size": WORDS, "hidden_size": 32, "num_hidden_layers": 3, "state_size": 8,
         "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2},
    ),
}  # fmt: skip
"""Name, configuration and class of each causal LM."""


def causal_lm(name: str) -> Any:
    """Return a random model of an architecture."""
    config, model, sizes = CAUSAL[name]
    torch.manual_seed(0)
    return getattr(transformers, model)(getattr(transformers, config)(**sizes)).eval()


def bert() -> Any:
    """Return a model whose tokens see those that follow."""
    torch.manual_seed(0)
    return transformers.BertForMaskedLM(transformers.BertConfig(**NO_GROUPS)).eval()
