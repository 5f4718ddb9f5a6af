"""Conversations, token ids and the begin-of-sequence token, against transformers itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing
from torch.nn import functional as F

import skipviz
from skipviz.errors import InputError
from tests import tiny

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
)
MESSAGES = [{"role": "user", "content": "Why? 🦊"}, {"role": "assistant", "content": "Nobody."}]


def own(tokenizer: Any) -> Any:
    """A tokenizer of its own, to be changed."""
    import copy

    return copy.deepcopy(tokenizer)


def losses(model: Any, ids: list[int]) -> np.ndarray:
    tokens = torch.tensor([ids])
    with torch.inference_mode():
        logits = model(tokens).logits[0]
    return F.cross_entropy(logits[:-1], tokens[0, 1:], reduction="none").numpy()


def test_a_conversation_goes_through_the_chat_template() -> None:
    tokenizer = own(tiny.tokenizer())
    tokenizer.chat_template = TEMPLATE
    model = skipviz.from_parts(tiny.gated(seed=0), tokenizer)
    trace = skipviz.trace(model, MESSAGES)
    wanted = tokenizer.apply_chat_template(MESSAGES, tokenize=True, return_dict=False)
    assert trace.tokens["token_id"].to_list() == wanted
    assert trace.tokens["token_id"][0] == tokenizer.bos_token_id  # obeyed, not spelt out
    np.testing.assert_allclose(
        trace.tokens["nll"].to_numpy()[:-1], losses(model.model, wanted), atol=1e-4
    )
    text = trace.tokens.unique("span", maintain_order=True)["text"].str.join("").item()
    assert text == tokenizer.decode(wanted)


def test_a_control_name_in_a_message_is_text_and_brings_no_token_of_its_own() -> None:
    tokenizer = own(tiny.tokenizer())
    tokenizer.chat_template = TEMPLATE
    begin = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", begin)]
    )
    model = skipviz.from_parts(tiny.gated(seed=0), tokenizer)
    trace = skipviz.trace(model, [{"role": "user", "content": "a <|im_end|> b"}])
    ids = trace.tokens["token_id"]
    assert (ids == begin).sum() == 1  # the template's
    assert trace.tokens["char_start"][0] == 0


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, lambda ids: torch.tensor([ids])])
def test_token_ids_are_run_as_they_are(gated: skipviz.SkipModel, kind: Any) -> None:
    ids = [1, 5, 299, 2, 40]
    trace = skipviz.trace(gated, kind(ids))
    assert trace.tokens["token_id"].to_list() == ids
    np.testing.assert_allclose(
        trace.tokens["nll"].to_numpy()[:-1], losses(gated.model, ids), atol=1e-4
    )


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ([300], "Token id 300 is not one of"), ([-1, 2], "Token id -1"),
        (np.zeros((2, 3), dtype=int), "in one dimension"), (np.array([0.5]), "whole numbers"),
        (b"text", "decode it first"), (MESSAGES, "has no chat template"),
        ([{"role": "user"}], "needs role and content"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_a_sentence(gated: skipviz.SkipModel, texts: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        skipviz.trace(gated, texts)


def test_the_first_token_is_the_tokenizers_own_choice() -> None:
    tokenizer = own(tiny.tokenizer())
    begin = tokenizer.bos_token_id
    model = skipviz.from_parts(tiny.gated(seed=0), tokenizer)
    without = skipviz.trace(model, tiny.TEXT)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", begin)]
    )
    found = skipviz.trace(model, tiny.TEXT)
    ids = [begin, *without.tokens["token_id"]]
    assert found.tokens["token_id"].to_list() == ids
    assert found.tokens["text"].str.join("").item() == without.tokens["text"].str.join("").item()
    np.testing.assert_allclose(
        found.tokens["nll"].to_numpy()[:-1], losses(model.model, ids), atol=1e-4
    )
    assert skipviz.trace(model, tiny.TEXT, bos=False).tokens.equals(without.tokens)
    assert skipviz.trace(model, tiny.TEXT, bos=True).tokens.equals(found.tokens)


@pytest.mark.parametrize(
    "texts", [{"a.txt": "The fox."}, {"role": "user", "content": "x"}, {"a", "b"}]
)
def test_what_has_keys_or_no_order_is_refused(gated: skipviz.SkipModel, texts: Any) -> None:
    with pytest.raises(InputError, match="Give a list of texts"):  # its keys were traced
        skipviz.trace(gated, texts)


def test_an_array_of_texts_is_texts(gated: skipviz.SkipModel) -> None:
    trace = skipviz.trace(gated, np.array(["The fox.", "It sleeps."]))
    assert trace.tokens["sequence"].n_unique() == 2
