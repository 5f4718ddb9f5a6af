from __future__ import annotations

import copy
import gc
import io
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import skipviz
from skipviz.errors import RecordingError
from skipviz.families import Plan
from tests import architectures, tiny
from tests.families.fixed_rates.test_modules import fixed
from tests.hooking import hooks_on


def ids_of(model: skipviz.SkipModel, text: str = tiny.TEXT) -> torch.Tensor:
    return model.tokenizer(text, return_tensors="pt").input_ids


@torch.inference_mode()
def test_recording_changes_no_bit(gated: skipviz.SkipModel) -> None:
    ids = ids_of(gated)
    bare = gated.model(ids).logits
    with skipviz.record(gated) as recording:
        recorded = gated.model(ids).logits
    assert torch.equal(bare, recorded)
    assert hooks_on(gated.model) == 0
    traced = skipviz.trace(gated, tiny.TEXT)
    np.testing.assert_array_equal(recording.trace.matrix("score"), traced.matrix("score"))
    np.testing.assert_allclose(
        recording.trace.tokens["nll"].to_numpy(), traced.tokens["nll"].to_numpy(), atol=1e-5
    )


@torch.inference_mode()
def test_forced_replay_is_bit_identical(gated: skipviz.SkipModel) -> None:
    ids = ids_of(gated)
    with skipviz.record(gated) as recording:
        bare = gated.model(ids).logits
    plan = Plan(recording.trace.matrix("exec_count").astype(bool))
    with gated.family.force(gated.model, plan):
        assert torch.equal(gated.model(ids).logits, bare)
    assert hooks_on(gated.model) == 0


@torch.inference_mode()
def test_forcing_the_opposite_changes_the_output(gated: skipviz.SkipModel) -> None:
    ids = ids_of(gated)
    with skipviz.record(gated) as recording:
        bare = gated.model(ids).logits
    plan = Plan(~recording.trace.matrix("exec_count").astype(bool))
    with gated.family.force(gated.model, plan):
        assert not torch.equal(gated.model(ids).logits, bare)


@torch.inference_mode()
def test_generate_tells_prefill_from_decode(gated: skipviz.SkipModel) -> None:
    ids = ids_of(gated, "The quick brown")
    with skipviz.record(gated) as recording:
        written = gated.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, min_new_tokens=8,
            do_sample=False,
        )  # fmt: skip
    tokens = recording.trace.tokens
    # The last token is written and never read, so it is in no forward.
    assert tokens["token_id"].to_list() == written[0, :-1].tolist()
    assert tokens["phase"].to_list() == ["prefill"] * ids.shape[1] + ["decode"] * 7
    assert tokens["position"].to_list() == list(range(len(tokens)))
    with skipviz.record(gated) as whole:
        gated.model(written[:, :-1])
    # In float32, cached decoding decides as a full forward does.
    np.testing.assert_array_equal(
        whole.trace.matrix("exec_count"), recording.trace.matrix("exec_count")
    )
    after_prefill = slice(ids.shape[1] - 1, None)
    np.testing.assert_allclose(
        tokens["nll"].to_numpy()[after_prefill],
        whole.trace.tokens["nll"].to_numpy()[after_prefill],
        atol=1e-4,
    )


@torch.inference_mode()
def test_a_state_without_keys_carries_one_text_on() -> None:
    model = skipviz.from_parts(architectures.causal_lm("Mamba"), tiny.tokenizer(), name="mamba")
    ids = ids_of(model)[:, :7]
    with skipviz.record(model) as recording:
        made = model.model.generate(ids, max_new_tokens=4, do_sample=False, eos_token_id=None)
    tokens = recording.trace.tokens
    assert tokens["token_id"].to_list() == made[0, :-1].tolist()
    assert tokens["position"].to_list() == list(range(10))
    assert set(tokens["sequence"]) == {0}
    assert tokens["phase"].to_list() == ["prefill"] * 7 + ["decode"] * 3


@torch.inference_mode()
def test_a_state_that_cannot_be_followed_is_refused_and_the_run_goes_on() -> None:
    torch.manual_seed(0)
    config = transformers.RwkvConfig(
        vocab_size=architectures.WORDS, hidden_size=32, num_hidden_layers=2, bos_token_id=1,
        attention_hidden_size=32, intermediate_size=48, eos_token_id=2,
    )  # fmt: skip
    made = transformers.RwkvForCausalLM(config).eval()
    model = skipviz.from_parts(made, tiny.tokenizer(), name="rwkv")
    ids = ids_of(model)[:, :7]
    written = None
    with (
        pytest.raises(RecordingError, match="carries its text on in a list"),
        skipviz.record(model),
    ):
        written = made.generate(ids, max_new_tokens=3, pad_token_id=2)
    assert written is not None
    with skipviz.record(model) as recording:
        alone = made.generate(ids, max_new_tokens=3, pad_token_id=2, use_cache=False)
    assert torch.equal(alone, written)
    assert set(recording.trace.tokens["sequence"]) == {0}


@torch.inference_mode()
def test_a_prompt_of_one_token_is_prefill(gated: skipviz.SkipModel) -> None:
    with torch.no_grad(), skipviz.record(gated) as recording:
        cache = gated.model(torch.tensor([[5]]), use_cache=True).past_key_values
        gated.model(torch.tensor([[6]]), past_key_values=cache)
    assert recording.trace.tokens["phase"].to_list() == ["prefill", "decode"]


def test_a_plan_covers_prefill_and_decode(gated: skipviz.SkipModel) -> None:
    ids = ids_of(gated, "The quick brown")
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 6, "min_new_tokens": 6,
               "do_sample": False}  # fmt: skip
    with skipviz.record(gated) as first:
        written = gated.model.generate(ids, **options)
    plan = Plan(first.trace.matrix("exec_count").astype(bool))
    with skipviz.record(gated) as second, gated.family.force(gated.model, plan):
        again = gated.model.generate(ids, **options)
    assert torch.equal(written, again)
    assert second.trace.matrix("forced").all()
    np.testing.assert_array_equal(second.trace.matrix("score"), first.trace.matrix("score"))


@torch.inference_mode()
def test_left_padded_batches_leave_padding_out(gated: skipviz.SkipModel) -> None:
    texts = ["The quick brown fox", "Why?"]
    batch = gated.tokenizer(texts, return_tensors="pt", padding=True)
    with skipviz.record(gated) as recording:
        gated.model.generate(**batch, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    for number, text in enumerate(texts):
        ids = ids_of(gated, text)
        with skipviz.record(gated) as alone:
            gated.model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, min_new_tokens=5,
                do_sample=False,
            )  # fmt: skip
        rows = (recording.trace.tokens["sequence"] == number).to_numpy()
        tokens = recording.trace.tokens.filter(rows)
        assert tokens["token_id"].to_list() == alone.trace.tokens["token_id"].to_list()
        assert tokens["phase"].to_list() == alone.trace.tokens["phase"].to_list()
        np.testing.assert_array_equal(
            recording.trace.matrix("exec_count")[rows], alone.trace.matrix("exec_count")
        )


@torch.inference_mode()
def test_an_exception_leaves_no_hook(gated: skipviz.SkipModel) -> None:
    with pytest.raises(IndexError), skipviz.record(gated):
        gated.model(torch.full((1, 3), 10**6))
    assert hooks_on(gated.model) == 0


@torch.inference_mode()
def test_nested_recordings_do_not_mix(gated: skipviz.SkipModel) -> None:
    with skipviz.record(gated) as outer:
        gated.model(ids_of(gated, "The quick"))
        with skipviz.record(gated) as inner:
            gated.model(ids_of(gated, "Why? Nobody"))
    alone = skipviz.trace(gated, "Why? Nobody")
    np.testing.assert_array_equal(inner.trace.matrix("score"), alone.matrix("score"))
    assert outer.trace.tokens["sequence"].n_unique() == 2


def test_concurrent_recordings_do_not_mix(gated: skipviz.SkipModel) -> None:
    texts = [tiny.TEXT, tiny.TEXT[::-1], tiny.TEXT.upper()]
    seen: dict[int, skipviz.Trace] = {}
    barrier = threading.Barrier(len(texts))

    def work(number: int) -> Callable[[], None]:
        def run() -> None:
            with torch.inference_mode():
                barrier.wait()
                for _ in range(5):
                    with skipviz.record(gated) as recording:
                        gated.model(ids_of(gated, texts[number]))
                seen[number] = recording.trace

        return run

    threads = [threading.Thread(target=work(number)) for number in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, text in enumerate(texts):
        alone = skipviz.trace(gated, text)
        assert seen[number].tokens["token_id"].equals(alone.tokens["token_id"])
        np.testing.assert_allclose(seen[number].matrix("score"), alone.matrix("score"), atol=1e-5)
    assert hooks_on(gated.model) == 0


def test_a_recording_of_nothing_says_so(gated: skipviz.SkipModel) -> None:
    with (
        pytest.raises(skipviz.RecordingError, match="did not run in this thread"),
        skipviz.record(gated),
    ):
        pass


@torch.inference_mode()
def test_continuing_an_unseen_cache_is_refused(gated: skipviz.SkipModel) -> None:
    ids = ids_of(gated)
    cache = gated.model(ids, use_cache=True).past_key_values
    with (
        pytest.raises(skipviz.RecordingError, match="Record the prefill too"),
        skipviz.record(gated),
    ):
        gated.model(ids[:, :1], past_key_values=cache)
    assert hooks_on(gated.model) == 0


@torch.inference_mode()
def test_a_cache_that_was_cut_or_reordered_is_refused(gated: skipviz.SkipModel) -> None:
    ids = ids_of(gated, "The quick brown fox jumps over the lazy dog")
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 6, "do_sample": False}
    with pytest.raises(RecordingError, match="Beam search"), skipviz.record(gated):
        gated.model.generate(ids, num_beams=3, **options)
    with pytest.raises(RecordingError, match="The cache was cut"), skipviz.record(gated):  # noqa: PT012
        cache = gated.model(ids, use_cache=True).past_key_values
        if not transformers.__version__.startswith("5.0."):  # where that empties it
            cache.crop(0)
        cache.crop(-2)
    assert cache.get_seq_length() == ids.shape[1] - 2  # the user's own run went on
    assert "reorder_cache" not in vars(cache)


@torch.inference_mode()
@pytest.mark.parametrize("change", ["order", "repeat", "inside"])
def test_a_cache_whose_texts_change_is_refused(gated: skipviz.SkipModel, change: str) -> None:
    ids = torch.cat([ids_of(gated), ids_of(gated).flip(1)])
    cache = transformers.DynamicCache()
    with pytest.raises(RecordingError, match="Texts were taken out"), skipviz.record(gated):  # noqa: PT012
        if change == "inside":  # a recording within this one has seen the cache too
            with skipviz.record(gated):
                gated.model(ids[:, :9], past_key_values=cache)
        else:
            gated.model(ids[:, :9], past_key_values=cache)
        if change == "repeat":
            cache.batch_repeat_interleave(2)
        else:
            cache.batch_select_indices(indices=torch.tensor([1, 0]))
    assert not {"batch_select_indices", "batch_repeat_interleave", "crop"} & set(vars(cache))


def pickled(cache: Any) -> Any:
    file = io.BytesIO()
    torch.save(cache, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=False)


@torch.inference_mode()
@pytest.mark.parametrize("copied_by", [copy.deepcopy, pickled])
@pytest.mark.parametrize("nested", [False, True])
def test_what_is_done_to_a_copy_of_a_cache_is_done_to_the_copy(
    gated: skipviz.SkipModel, copied_by: Callable[[Any], Any], nested: bool
) -> None:
    ids = ids_of(gated)
    cache = transformers.DynamicCache()
    with skipviz.record(gated) as recording:
        if nested:
            with skipviz.record(gated):
                gated.model(ids, past_key_values=cache)
                copied = copied_by(cache)
        else:
            gated.model(ids, past_key_values=cache)
            copied = copied_by(cache)
        copied.crop(-2)
        copied.batch_repeat_interleave(2)
    assert len(recording.trace) == ids.shape[1]
    for _ in range(2):  # the second time after the recording
        assert cache.get_seq_length() == ids.shape[1]
        assert len(cache.layers[0].keys) == 1
        copied.crop(-1)
    assert copied.get_seq_length() == ids.shape[1] - 4
    assert len(copied.layers[0].keys) == 2


def test_a_copy_of_a_cache_keeps_neither_it_nor_the_recording(gated: skipviz.SkipModel) -> None:
    with torch.inference_mode(), skipviz.record(gated) as recording:
        cache = gated.model(ids_of(gated), use_cache=True).past_key_values
        copied = copy.deepcopy(cache)
    gone = [weakref.ref(cache), weakref.ref(recording)]
    del cache, recording
    gc.collect()
    assert [each() for each in gone] == [None, None]
    assert copied.get_seq_length()


def test_the_seed_of_draws_is_in_the_trace(gated: skipviz.SkipModel) -> None:
    drawn = fixed([0.5] * 8, seed=7)
    assert skipviz.trace(drawn, tiny.TEXT).run["seed"].item() == 7
    static = fixed([1.0, 0.0] * 4, seed=7)
    assert skipviz.trace(static, tiny.TEXT).run["seed"].item() is None
    assert skipviz.trace(gated, tiny.TEXT).run["seed"].item() is None
