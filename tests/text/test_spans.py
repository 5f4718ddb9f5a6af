from __future__ import annotations

from functools import cache
from itertools import pairwise
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from skipviz.text.spans import Ints, encode, group_spans, span_bounds

CONTROLS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
HARD_TEXTS = {
    "joined emoji": "a 👩‍🚀 b",
    "emoji family": "👩‍👩‍👧‍👦👩‍👩‍👧‍👦",
    "skin tone and flag": "👍🏽 🇩🇪🇫🇷",
    "combining marks": "e\u0301 a\u0308\u0323 Z\u0351\u036b\u0343",
    "right to left": "abc שלום עולם, مرحبا بالعالم",
    "beyond the basic plane": "𝒳𝒴 𠜎",
    "NUL": "a\0b\0\0",
    "line endings": "a\r\nb\rc\n\n d\u2028e",
    "markup": "<b onclick=\"x()\">&amp;</b> <script>alert('1')</script>",
    "control tokens": "<|im_start|>user\nhi<|im_end|><|endoftext|>",
    "byte order mark": "\ufeffx",
    "spaces only": "   \t ",
}
texts = st.text(st.characters(codec="utf-8"), min_size=1)


@cache
def byte_level() -> Any:
    """Build a tokenizer that merges a space with the first byte of an emoji, as GPT-2's does."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=CONTROLS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["the cat sat on the mat 👍 😀 🚀 👩 👧"] * 5, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=CONTROLS[0],
        additional_special_tokens=CONTROLS[1:],
        model_max_length=8,
    )


def word_level() -> Any:
    """Build a tokenizer that drops white space and turns unknown words into one token."""
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "the": 1, "cat": 2}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")


def ints(*values: int) -> Ints:
    return np.array(values, dtype=np.int64)


def slices(tokenizer: Any, text: str) -> list[str]:
    encoding = encode(tokenizer, text)
    bounds = span_bounds(encoding.char_start, encoding.char_end, length=len(text))
    return [text[start:end] for start, end in bounds]


def holds_for(tokenizer: Any, text: str) -> None:
    """Check all that is promised of ids, spans and bounds of a text."""
    encoding = encode(tokenizer, text)
    assert tokenizer.decode(encoding.ids) == text
    assert not set(encoding.ids) & set(tokenizer.all_special_ids)

    spans = group_spans(encoding.char_start, encoding.char_end)
    assert spans[0] == 0
    assert all(after - before in (0, 1) for before, after in pairwise(spans.tolist()))

    bounds = span_bounds(encoding.char_start, encoding.char_end, length=len(text))
    assert len(bounds) == spans[-1] + 1
    assert "".join(text[start:end] for start, end in bounds) == text
    for span, (start, end) in enumerate(bounds):
        ids = [i for i, of in zip(encoding.ids, spans, strict=True) if of == span]
        assert tokenizer.decode(ids) == text[start:end]


class TestEncode:
    @pytest.mark.parametrize("text", HARD_TEXTS.values(), ids=HARD_TEXTS)
    def test_hard_texts_round_trip(self, text: str) -> None:
        holds_for(byte_level(), text)

    @given(texts)
    def test_any_text_round_trips(self, text: str) -> None:
        holds_for(byte_level(), text)

    @given(st.lists(st.sampled_from([*HARD_TEXTS.values(), " ", "👍"]), min_size=1).map("".join))
    def test_joined_hard_texts_round_trip(self, text: str) -> None:
        holds_for(byte_level(), text)

    def test_the_tokenizer_knows_the_control_tokens(self) -> None:
        # Else the tests above would prove nothing about them.
        assert set(byte_level()(CONTROLS[1])["input_ids"]) == {1}

    def test_no_token_is_dropped_beyond_the_context(self) -> None:
        assert len(encode(byte_level(), "the cat " * 50).ids) > 8

    def test_offsets_count_code_points(self) -> None:
        encoding = encode(byte_level(), "😀x")
        assert (encoding.char_start[-1], encoding.char_end[-1]) == (1, 2)

    def test_a_slow_tokenizer_is_refused(self) -> None:
        class SlowTokenizer:
            is_fast = False

        with pytest.raises(ValueError, match=r"SlowTokenizer does not say which characters"):
            encode(SlowTokenizer(), "text")

    @pytest.mark.parametrize("text", ["", "  \n"])
    def test_a_text_without_tokens_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="finds no token"):
            encode(word_level(), text)


class TestSpans:
    def test_tokens_of_one_emoji_share_a_span(self) -> None:
        encoding = encode(byte_level(), "a 🦖 b")
        spans = group_spans(encoding.char_start, encoding.char_end)
        assert len(spans) > 3
        assert slices(byte_level(), "a 🦖 b") == ["a", " 🦖", " ", "b"]

    def test_joined_characters_keep_their_own_spans(self) -> None:
        assert slices(byte_level(), "👩\u200d🚀") == ["👩", "\u200d", "🚀"]

    def test_each_end_of_line_is_kept(self) -> None:
        assert slices(byte_level(), "x\r\n\0") == ["x", "\r", "\n", "\0"]

    def test_dropped_characters_go_to_the_span_behind_them(self) -> None:
        assert slices(word_level(), "  the\r\n dog\t cat \n") == ["  the", "\r\n dog", "\t cat \n"]

    @pytest.mark.parametrize(
        ("start", "end", "spans"),
        [
            pytest.param([0, 1, 2], [1, 2, 3], [0, 1, 2], id="apart"),
            pytest.param([0, 1, 2], [1, 2, 2], [0, 1, 1], id="none of its own, at the end"),
            pytest.param([0, 0, 1], [0, 1, 2], [0, 0, 1], id="none of its own, at the start"),
            pytest.param([0, 1, 1], [1, 1, 2], [0, 1, 1], id="none of its own, between"),
            pytest.param([0, 1, 1, 1], [1, 3, 1, 2], [0, 1, 1, 1], id="none of its own, within"),
            pytest.param([0, 1, 2, 2], [2, 3, 3, 4], [0, 0, 0, 0], id="a chain"),
            pytest.param([0, 1, 3, 5], [4, 2, 4, 6], [0, 0, 0, 1], id="a long one first"),
            pytest.param([0, 4], [2, 6], [0, 1], id="a gap"),
            pytest.param([0, 0], [0, 0], [0, 0], id="no characters at all"),
            pytest.param([], [], [], id="no tokens"),
        ],
    )
    def test_groups(self, start: list[int], end: list[int], spans: list[int]) -> None:
        assert group_spans(ints(*start), ints(*end)).tolist() == spans

    @given(
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=30), st.integers(0, 5)
    )
    def test_bounds_are_a_partition(self, steps: list[tuple[int, int]], rest: int) -> None:
        start = np.cumsum([step for step, _ in steps], dtype=np.int64)
        end = start + np.array([size for _, size in steps], dtype=np.int64)
        length = int(end.max(initial=0)) + rest
        bounds = span_bounds(start, end, length=length)
        spans = group_spans(start, end)

        covered = [at for low, high in bounds for at in range(low, high)]
        assert covered == list(range(length))
        for span, low, high in zip(spans, start, end, strict=True):
            assert low == high or bounds[span][0] <= low < high <= bounds[span][1]
        for one, low, high in zip(spans, start, end, strict=True):
            for other, low2, high2 in zip(spans, start, end, strict=True):
                assert one == other or min(high, high2) <= max(low, low2)

    def test_a_text_without_tokens_is_one_span(self) -> None:
        assert span_bounds(ints(), ints(), length=3).tolist() == [[0, 3]]
        assert span_bounds(ints(), ints(), length=0).tolist() == []

    def test_a_token_beyond_the_text_is_refused(self) -> None:
        with pytest.raises(ValueError, match="ends at character 5 of a text with 4"):
            span_bounds(ints(0, 2), ints(2, 5), length=4)

    def test_a_long_text_is_quick(self) -> None:
        start = np.arange(32_768, dtype=np.int64)
        before = perf_counter()
        span_bounds(start, start + 2, length=32_769)
        # Milliseconds; a loop over pairs of tokens would take minutes.
        assert perf_counter() - before < 2

    def test_a_normaliser_leaves_offsets_into_the_typed_text(self) -> None:
        tokenizer = word_level()
        tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
        assert slices(tokenizer, "ﬁne the e\u0301") == ["ﬁne", " the", " e\u0301"]
