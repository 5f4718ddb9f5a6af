"""A recording never breaks a run that works without it, and shows what stands in the text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast

import skipviz
from skipviz.errors import RecordingError
from skipviz.recording.build import token_texts, whole_characters
from tests import tiny

WORDS = "the quick brown fox jumps over the lazy dog while cats sleep"


def prompts(model: skipviz.SkipModel) -> torch.Tensor:
    return torch.tensor([model.tokenizer(tiny.TEXT[:20])["input_ids"]])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_recorded_and_left_alone(gated: skipviz.SkipModel, dtype: Any) -> None:
    ids = prompts(gated)
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
        plain = gated.model(ids).logits
        with skipviz.record(gated) as recording:
            recorded = gated.model(ids).logits
    assert torch.equal(plain, recorded)
    assert len(recording.trace) == ids.shape[1]
    assert np.isfinite(recording.trace.matrix("score")).all()


def test_embeddings_run_on_and_are_said_at_the_end(gated: skipviz.SkipModel) -> None:
    embedded = gated.model.get_input_embeddings()(prompts(gated))
    with pytest.raises(RecordingError, match="without input_ids"), skipviz.record(gated):
        output = gated.model(inputs_embeds=embedded)
    assert output.logits.shape[1] == embedded.shape[1]


def test_beam_search_gives_what_it_gives_alone(gated: skipviz.SkipModel) -> None:
    options: dict[str, Any] = {"num_beams": 3, "max_new_tokens": 5, "do_sample": False}
    plain = gated.model.generate(prompts(gated), **options)
    with pytest.raises(RecordingError, match="Beam search"), skipviz.record(gated):
        recorded = gated.model.generate(prompts(gated), **options)
    assert torch.equal(plain, recorded)


def test_what_was_recorded_before_a_fault_is_kept(gated: skipviz.SkipModel) -> None:
    ids = prompts(gated)
    with (  # noqa: PT012
        pytest.raises(RecordingError, match=r"tokens, is in `recording\.trace`"),
        skipviz.record(gated) as recording,
    ):
        gated.model(ids)
        gated.model(inputs_embeds=gated.model.get_input_embeddings()(ids))
    assert len(recording.trace) == ids.shape[1]


def test_decisions_survive_a_tokenizer_that_fails(
    gated: skipviz.SkipModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OverflowError("out of range")

    monkeypatch.setattr("skipviz.recording.recorder.whole_characters", fail)
    ids = prompts(gated)
    with (
        pytest.raises(RecordingError, match=r"recording\.decisions"),
        skipviz.record(gated) as recording,
    ):
        gated.model(ids)
    found = recording.decisions
    assert found["token_id"].tolist() == ids[0].tolist()
    assert found["exec_count"].shape == (ids.shape[1], 8)


def test_a_text_of_a_batch_ends_where_it_ends(gated: skipviz.SkipModel) -> None:
    texts = gated.tokenizer(["The quick", "Why? Nobody"], return_tensors="pt", padding=True)
    plain = gated.model.generate(**texts, max_new_tokens=8, do_sample=False)
    width = texts["input_ids"].shape[1]
    ends = int(plain[0, width + 1])  # so that the first text ends early
    options = GenerationConfig(max_new_tokens=8, do_sample=False, eos_token_id=ends, pad_token_id=3)
    before = gated.model.generation_config
    gated.model.generation_config = options
    try:
        with skipviz.record(gated) as recording:
            made = gated.model.generate(**texts, generation_config=options)
    finally:
        gated.model.generation_config = before
    trace = recording.trace
    for row in range(2):
        new = made[row, width:].tolist()
        text = new[: new.index(ends) + 1] if ends in new else new[:-1]
        prompt = texts["input_ids"][row][texts["attention_mask"][row].bool()].tolist()
        mine = trace.tokens.filter(sequence=row)["token_id"].to_list()
        # The last token made is not fed any more, unless others went on.
        assert mine in (prompt + text, prompt + text[:-1])


def test_generating_without_a_cache_is_one_sequence(gated: skipviz.SkipModel) -> None:
    ids = prompts(gated)
    options: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False}
    with skipviz.record(gated) as cached:
        made = gated.model.generate(ids, **options)
    with skipviz.record(gated) as uncached:
        assert torch.equal(gated.model.generate(ids, use_cache=False, **options), made)
    one, two = cached.trace, uncached.trace
    assert two.tokens["token_id"].equals(one.tokens["token_id"])
    assert two.tokens["phase"].equals(one.tokens["phase"])
    np.testing.assert_array_equal(two.matrix("exec_count"), one.matrix("exec_count"))
    for name in ("nll", "surprisal"):
        a, b = (t.tokens[name].to_numpy() for t in (one, two))
        np.testing.assert_allclose(b, a, atol=1e-4)


def of_style(style: str) -> Any:
    """A tokenizer of each way of writing spaces and bytes."""
    if style == "sentencepiece":
        core = Tokenizer(models.BPE(unk_token="<unk>"))
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        core.decoder = decoders.Metaspace(prepend_scheme="first")
        core.train_from_iterator(
            [WORDS], trainers.BpeTrainer(vocab_size=80, special_tokens=["<unk>"])
        )
    else:
        core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        core.pre_tokenizer = pre_tokenizers.Whitespace()
        core.decoder = decoders.WordPiece()
        core.train_from_iterator(
            [WORDS], trainers.WordPieceTrainer(vocab_size=60, special_tokens=["[UNK]"])
        )
    return PreTrainedTokenizerFast(tokenizer_object=core, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("style", ["sentencepiece", "wordpiece"])
def test_tokens_keep_their_spaces_in_every_style(style: str) -> None:
    tokenizer = of_style(style)
    ids = np.array(tokenizer(WORDS, add_special_tokens=False)["input_ids"])
    texts = token_texts(tokenizer, ids)
    assert "".join(texts).strip() == WORDS
    assert sum(text.startswith(" ") for text in texts[1:]) == WORDS.count(" ")


def test_tokens_that_share_a_character_show_it_whole() -> None:
    tokenizer = tiny.tokenizer()
    text = "a 🦊🦊 é"
    ids = np.array(tokenizer(text)["input_ids"])
    texts, span = whole_characters(tokenizer, ids, np.zeros(len(ids), dtype=np.int64))
    assert "\ufffd" not in "".join(texts)
    firsts = [texts[int(np.flatnonzero(span == number)[0])] for number in range(span.max() + 1)]
    assert "".join(firsts) == text
