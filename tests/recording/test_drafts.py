"""Drafts by a model's own first layers, against hooks of the tests' own and transformers itself."""

from __future__ import annotations

import copy
import doctest
import threading
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import skipviz
from skipviz.errors import InputError, RecordingError
from skipviz.families.published.layer_skip import LayerSkip
from skipviz.readings.skipping import skipping_notes
from tests import tiny

LAYERS, EXIT, NEW = tiny.LAYERS, 3, 24
Rows = npt.NDArray[np.int64]


@pytest.fixture(autouse=True, scope="module")
def _library_drafts() -> None:
    """Transformers 5.0.0 cannot draft: its own code calls a method without one of its arguments."""
    try:
        write(drafting(), max_new_tokens=3)
    except TypeError as error:
        if "is_first_iteration" not in str(error):
            raise
        pytest.skip("This transformers raises in its own generate(assistant_early_exit=...).")


class Witness:
    """What transformers runs and accepts, by hooks and a wrap that have nothing of skipviz."""

    def __init__(self, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        from transformers.generation.candidate_generator import EarlyExitCandidateGenerator

        self.passes: list[tuple[bool, tuple[int, ...], int, Counter[int]]] = []
        self.accepted: set[tuple[int, ...]] = set()
        self._drafting = False
        self._texts: dict[bool, list[int]] = {True: [], False: []}
        self._proposed: list[int] = []
        model.model.register_forward_pre_hook(self._begin, with_kwargs=True)
        for number, layer in enumerate(model.model.layers):
            layer.register_forward_hook(lambda *_, n=number: self.passes[-1][3].update([n]))
        kind, get = EarlyExitCandidateGenerator, EarlyExitCandidateGenerator.get_candidates
        told = kind.update_candidate_strategy

        def getting(own: Any, ids: Tensor, *args: Any, **kwargs: Any) -> Any:
            self._drafting = True
            found = get(own, ids, *args, **kwargs)
            self._drafting = False
            self._proposed, self._known = found[0][0].tolist(), ids.shape[1]
            return found

        def telling(own: Any, ids: Tensor, scores: Tensor, matches: int) -> None:
            told(own, ids, scores, matches)
            for at in range(self._known, self._known + int(matches)):
                self.accepted.add(tuple(self._proposed[: at + 1]))

        monkeypatch.setattr(kind, "get_candidates", getting)
        monkeypatch.setattr(kind, "update_candidate_strategy", telling)

    def _begin(self, _: Any, args: Any, kwargs: Any) -> None:
        ids, cache = kwargs["input_ids"][0].tolist(), kwargs.get("cache")
        cache = kwargs.get("past_key_values") if cache is None else cache  # before 5.24
        held = 0 if cache is None else int(cache.get_seq_length())
        text = self._texts[self._drafting] = self._texts[self._drafting][:held] + ids
        self.passes.append((self._drafting, tuple(text), len(ids), Counter()))

    def counts(self, text: list[int]) -> Rows:
        """Return how often each layer ran in drafts and in verification, [tokens, 2 layers]."""
        found = np.zeros((len(text), 2 * LAYERS), dtype=np.int64)
        for drafting, given, new, layers in self.passes:
            for at in range(len(given) - new, len(given)):
                if at < len(text) and given[: at + 1] == tuple(text[: at + 1]):
                    for layer, times in layers.items():
                        found[at, (0 if drafting else LAYERS) + layer] += times
        return found

    def runs(self) -> Counter[tuple[bool, int]]:
        """Return all runs of layers, of tokens kept or rejected."""
        found: Counter[tuple[bool, int]] = Counter()
        for drafting, _, new, layers in self.passes:
            for layer, times in layers.items():
                found[drafting, layer] += times * new
        return found


def drafting(*, agree: float = 0.1, drafts: int = 4) -> Any:
    """Return a model whose later layers change little, so that some drafts are accepted."""
    model: Any = tiny.backbone(seed=0)
    for layer in model.model.layers[EXIT:]:
        layer.mlp.down_proj.weight.data *= agree
        layer.self_attn.o_proj.weight.data *= agree
    config = model.generation_config
    config.num_assistant_tokens, config.assistant_confidence_threshold = drafts, 0.0
    config.num_assistant_tokens_schedule = "constant"
    config.eos_token_id = None
    return model


def wrapped(model: Any) -> skipviz.SkipModel:
    return skipviz.from_parts(model, tiny.tokenizer(), name="drafts", family=LayerSkip())


def prompt() -> Tensor:
    ids: Tensor = tiny.tokenizer()("The quick brown fox", return_tensors="pt").input_ids
    return ids


def write(model: Any, **options: Any) -> Any:
    given = {"max_new_tokens": NEW, "do_sample": False, "assistant_early_exit": EXIT} | options
    torch.manual_seed(5)
    ids = prompt()
    return model.generate(ids, attention_mask=torch.ones_like(ids), **given)


@pytest.mark.parametrize("agree", [0.02, 0.25, 1.0])
@pytest.mark.parametrize("options", [{}, {"do_sample": True}, {"max_new_tokens": 9}])
def test_what_ran_is_what_hooks_count(
    agree: float, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = drafting(agree=agree)
    plain = write(model, **options)
    witness = Witness(model, monkeypatch)
    with skipviz.record(wrapped(model)) as recording:
        made = write(model, **options)
    assert torch.equal(made, plain)
    trace, final = recording.trace, made[0].tolist()
    text = trace.tokens.filter(source="sequence 0")
    assert text["token_id"].to_list() == final[: text.height]
    assert len(final) - text.height in (0, 1)  # the last is run only if it was drafted
    counts = witness.counts(final)
    assert (counts[text.height :] == 0).all()
    recorded = trace.matrix("exec_count").astype(np.int64)
    assert np.array_equal(recorded[: text.height], counts[: text.height])
    assert np.array_equal(text["layers_used"].to_numpy(), counts[: text.height].sum(1))
    start = prompt().shape[1]
    phases = [
        "prefill" if at < start
        else "draft" if tuple(final[: at + 1]) in witness.accepted else "decode"
        for at in range(text.height)
    ]  # fmt: skip
    drafts = [at for at, phase in enumerate(text["phase"]) if phase == "draft"]
    assert [at for at, phase in enumerate(phases) if phase == "draft"] == [
        at for at in drafts if tuple(final[: at + 1]) in witness.accepted
    ]
    # The last one that was drafted is of the text where it ends there, and not counted as a match.
    extra = [at for at in drafts if tuple(final[: at + 1]) not in witness.accepted]
    assert extra in ([], [len(final) - 1])
    every = recorded.sum(axis=0)
    runs = witness.runs()
    assert every.tolist() == [runs[first, n] for first in (True, False) for n in range(LAYERS)]


def test_the_example_is_true() -> None:
    dense = skipviz.from_parts(drafting(), tiny.tokenizer(), name="dense")
    names = {"skipviz": skipviz, "dense": dense}
    (example,) = doctest.DocTestFinder(recurse=False).find(LayerSkip, globs=names)
    assert doctest.DocTestRunner(verbose=False).run(example).failed == 0
    assert example.examples


def test_rejected_drafts_are_a_sequence_of_their_own() -> None:
    model = wrapped(drafting(agree=0.25))
    with skipviz.record(model) as recording:
        write(model.model)
    tokens = recording.trace.tokens
    rejected = tokens.filter(source="sequence 0, rejected drafts")
    assert rejected.height > 3
    assert rejected["phase"].unique().to_list() == ["draft"]
    assert rejected["nll"].null_count() == rejected.height
    assert tokens.filter(phase="draft", source="sequence 0").height > 3
    assert rejected["context"].min() > prompt().shape[1]  # type: ignore[operator]
    assert "drafts" in {note.label for note in skipping_notes(recording.trace)}
    draft = recording.trace.matrix("exec_count")[:, :LAYERS]
    assert (draft[:, EXIT:] == 0).all()
    assert draft[:, :EXIT].max() > 1  # what was drafted last is run again behind a rejection


def test_losses_are_those_of_the_whole_model() -> None:
    model = drafting(agree=0.25)
    with skipviz.record(wrapped(model)) as recording:
        made = write(model)
    text = recording.trace.tokens.filter(source="sequence 0")
    with torch.inference_mode():
        logits = model(made).logits[0].float()
    known = text["nll"].is_not_null().to_numpy()
    assert known.sum() >= NEW - 2
    assert not known[-1]
    losses = F.cross_entropy(logits[:-1], made[0, 1:], reduction="none").numpy()
    found = text["nll"].to_numpy()
    assert np.abs(found[:-1] - losses[: text.height - 1])[known[:-1]].max() < 1e-4
    follows = text["surprisal"].to_numpy()[1:][known[:-1]]
    assert np.array_equal(follows, found[:-1][known[:-1]])


def test_the_first_token_of_the_vocabulary_has_a_loss_too() -> None:
    model = drafting(agree=0.02)
    rows = model.lm_head.weight.data
    rows[0] = rows[write(model)[0, prompt().shape[1] + 2]] * 4  # written again and again
    with skipviz.record(wrapped(model)) as recording:
        write(model)
    text = recording.trace.tokens.filter(source="sequence 0")
    before = text.filter(text["token_id"].shift(-1) == 0)
    assert before.filter(phase="draft").height > 3
    assert before["nll"].null_count() == 0


def test_two_generations_and_other_exits_in_one_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    model = drafting(agree=0.25)
    with skipviz.record(wrapped(model), statistics=False) as recording:
        first = write(model)
        second = write(model, assistant_early_exit=2, max_new_tokens=8)
    sources = recording.trace.tokens["source"].unique(maintain_order=True).to_list()
    assert [name for name in sources if "rejected" not in name] == [
        "sequence 0", f"sequence {1 + ('sequence 0, rejected drafts' in sources)}",
    ]  # fmt: skip
    texts = recording.trace.tokens.filter(~pl.col("source").str.contains("rejected"))
    each = [part["token_id"].to_list() for part in texts.partition_by("sequence")]
    assert each[0] == first[0].tolist()[: len(each[0])]
    assert each[1] == second[0].tolist()[: len(each[1])]
    ran = recording.trace.matrix("exec_count")[texts["token"].to_numpy()]
    assert (ran[len(each[0]) :, 2:LAYERS] == 0).all()
    assert (ran[: len(each[0]), 2] > 0).any()


def test_a_text_that_ends_with_a_drafted_end_token() -> None:
    model = drafting(agree=0.02)
    made = write(model)[0].tolist()
    start = prompt().shape[1]
    end = next(token for token in made[start + 2 :] if token not in made[: start + 2])
    model.generation_config.eos_token_id = end
    with skipviz.record(wrapped(model)) as recording:
        ended = write(model, eos_token_id=end)[0].tolist()
    assert ended == made[: made.index(end) + 1]
    text = recording.trace.tokens.filter(source="sequence 0")["token_id"].to_list()
    assert text == ended[: len(text)]
    assert len(text) >= len(ended) - 1


def test_the_model_is_left_as_it_was_and_other_threads_are_not_heard() -> None:
    model = drafting()
    before = set(vars(model))
    found: list[Tensor] = []
    with skipviz.record(wrapped(model)) as recording:
        assert "generate" in vars(model)
        thread = threading.Thread(target=lambda: found.append(write(model)))
        thread.start()
        thread.join()
        copied = copy.deepcopy(model)
        own = write(model)
        assert copied.generate.__self__ is copied
    assert set(vars(model)) == before
    assert torch.equal(found[0], own)
    assert recording.trace.tokens.filter(source="sequence 1").is_empty()
    assert len({id(layer) for layer in copied.model.layers}) == LAYERS


def test_a_generate_of_the_users_own_is_called_and_stays() -> None:
    model = drafting()
    plain, seen = write(model), []
    whole = model.generate

    def own(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs.get("assistant_early_exit"))
        return whole(*args, **kwargs)

    model.generate = own
    with skipviz.record(wrapped(model)) as recording, skipviz.record(wrapped(model)):
        copied = copy.deepcopy(model)
        assert torch.equal(write(model), plain)
    assert seen[0] == EXIT
    assert model.generate is own
    count = len(seen)
    copied.generate(prompt(), max_new_tokens=1)
    assert len(seen) == count + 1
    assert recording.trace.tokens.filter(source="sequence 0")["phase"][-1] in ("draft", "decode")


def test_what_cannot_be_recorded_is_said_at_the_end() -> None:
    model = wrapped(drafting())
    with pytest.raises(RecordingError, match="there were none"), skipviz.record(model):
        write(model.model, assistant_early_exit=None)
    with pytest.raises(RecordingError, match="there were none"), skipviz.record(model):
        model.model(prompt())
    with pytest.raises(RecordingError, match="from 1 to 5"), skipviz.record(model):
        write(model.model, assistant_early_exit=LAYERS)
    plain = skipviz.from_parts(model.model, tiny.tokenizer(), name="plain")
    assert plain.family.name == "dense"
    with pytest.raises(RecordingError, match="family=LayerSkip"), skipviz.record(plain):
        write(model.model)
    broken = pytest.raises(RecordingError, match="broken off")
    with broken, skipviz.record(model), pytest.raises(ValueError, match="max_new_tokens"):
        write(model.model, max_new_tokens=-1)
    with pytest.raises(InputError, match="skips only in drafting"):
        skipviz.trace(model, tiny.TEXT)


def test_the_library_refuses_drafts_that_a_configuration_asks_for() -> None:
    plain = skipviz.from_parts(drafting(), tiny.tokenizer(), name="plain")
    plain.model.generation_config.assistant_early_exit = EXIT
    with pytest.raises(InputError, match="asks for drafts"):
        skipviz.generate(plain, "The quick brown", max_new_tokens=9)
