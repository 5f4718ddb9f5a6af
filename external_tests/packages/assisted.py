"""`generate(assistant_early_exit=E)` of transformers: the first E layers draft, the whole verifies.

Recorded: each pass, by hooks on the layers; draft and verification are two visits of a layer, and
rejected drafts are a sequence of their own. Read otherwise: a token is found by its hidden state at
each layer, as one run of the finished text without a cache has it; accepted drafts by what the
library tells its own drafter.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from recorder_kit import Recorder
from tiny import END, SIZES, TEXTS, decode, encode, write_reading
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.generation.candidate_generator import EarlyExitCandidateGenerator

LAYERS = 8
EXIT = 4
NEW = 40
PROMPT = encode(TEXTS[0])
DRAFT, VERIFY = 0, 1
SITES = [
    {
        "layer": layer,
        "unit": "block",
        "visit": visit,
        "rule": "schedule",
        "skip_path": "identity",
        "kv": "absent",
        "computed_anyway": False,
        "scope": "batch",
    }
    for visit in (DRAFT, VERIFY)
    for layer in range(LAYERS)
]
Pass = tuple[bool, list[int], int, list[int]]
"""Whether it drafts, the text up to its last token, how many of it are new, the layers that ran."""


def tiny() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        **SIZES,
        num_hidden_layers=LAYERS,
        max_position_embeddings=256,
        eos_token_id=None,
        bos_token_id=None,
        pad_token_id=END,
    )
    model = LlamaForCausalLM(config).eval()
    for layer in model.model.layers[EXIT:]:  # later layers change little, so that drafts are good
        layer.mlp.down_proj.weight.data *= 0.3
        layer.self_attn.o_proj.weight.data *= 0.3
    model.generation_config.num_assistant_tokens = 4
    model.generation_config.num_assistant_tokens_schedule = "constant"
    model.generation_config.assistant_confidence_threshold = 0.0
    return model


class Passes:
    """Notes every pass, and every draft that was proposed."""

    def __init__(self, model: Any) -> None:
        self.made: list[Pass] = []
        self.proposed: list[list[int]] = []  # texts that end in a draft
        self.matches: list[int] = []
        self._handles = [
            model.model.register_forward_pre_hook(self._begin(model), with_kwargs=True)
        ]
        for number, layer in enumerate(model.model.layers):
            self._handles.append(layer.register_forward_hook(self._ran(number)))
        self._wrapped = EarlyExitCandidateGenerator.get_candidates
        self._told = EarlyExitCandidateGenerator.update_candidate_strategy

        def get(drafter: Any, input_ids: Tensor, **options: Any) -> Any:
            found = self._wrapped(drafter, input_ids, **options)
            text = found[0][0].tolist()
            self.proposed += [text[: at + 1] for at in range(input_ids.shape[1], len(text))]
            return found

        def told(drafter: Any, input_ids: Tensor, scores: Tensor, num_matches: int) -> None:
            self.matches.append(int(num_matches))
            self._told(drafter, input_ids, scores, num_matches)

        EarlyExitCandidateGenerator.get_candidates = get
        EarlyExitCandidateGenerator.update_candidate_strategy = told

    def _begin(self, model: Any) -> Any:
        texts: dict[bool, list[int]] = {True: [], False: []}

        def begin(_: Any, args: Any, kwargs: Any) -> None:
            ids = kwargs["input_ids"][0].tolist()
            cache = kwargs.get("past_key_values")
            drafts = model.config.num_hidden_layers < LAYERS
            text = texts[drafts][: cache.get_seq_length() if cache is not None else 0] + ids
            texts[drafts] = text
            self.made.append((drafts, text, len(ids), []))

        return begin

    def _ran(self, number: int) -> Any:
        return lambda *_: self.made[-1][3].append(number)

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        EarlyExitCandidateGenerator.get_candidates = self._wrapped
        EarlyExitCandidateGenerator.update_candidate_strategy = self._told


def write(path: Path, passes: Passes, final: list[int], *, fault: str = "") -> list[list[int]]:
    """Write what was noted of a generation; return the texts that end in a rejected draft."""
    texts = [text[: at + 1] for _, text, new, _ in passes.made for at in span(text, new)]
    ran = max(len(text) for text in texts if text == final[: len(text)])
    rejected: list[list[int]] = []
    for text in texts:
        if text != final[: len(text)] and text not in rejected:
            rejected.append(text)
    phases = ["prefill"] * len(PROMPT) + [
        "draft" if final[: at + 1] in passes.proposed else "decode"
        for at in range(len(PROMPT), ran)
    ]
    head = {"model": "Llama", "family": "LayerSkip", "policy": f"draft with {EXIT} layers"}
    with Recorder(path, sites=SITES, layers=LAYERS, **head) as recorder:
        words = decode(final[:ran])
        sources = ["text"] * ran
        recorder.tokens([words], sequences=[0], phase=[phases], source=[sources])
        place = {tuple(final[: at + 1]): at for at in range(ran)}
        note(recorder, passes, place, fault=fault)
        if rejected:
            words = decode([text[-1] for text in rejected])
            known = {
                "phase": [["draft"] * len(words)],
                "source": [["rejected drafts"] * len(words)],
            }
            recorder.tokens([words], sequences=[1], **known)
            note(recorder, passes, {tuple(t): at for at, t in enumerate(rejected)}, fault=fault)
    return rejected


def note(recorder: Recorder, passes: Passes, place: dict[Any, int], *, fault: str) -> None:
    for drafts, text, new, layers in passes.made:
        places = [place.get(tuple(text[: at + 1])) for at in span(text, new)]
        kept = [each for each in places if each is not None]
        for layer in layers if kept else ():
            visit = DRAFT if drafts and fault != "all-verify" else VERIFY
            recorder.gate(visit * LAYERS + layer, ran=1, tokens=kept)


def span(text: list[int], new: int) -> range:
    return range(len(text) - new, len(text))


def found_by_state(model: Any, final: list[int], made: dict[str, Any]) -> tuple[Tensor, list[int]]:
    """Return times run [tokens, sites], and how many states per site were of no token."""
    states = layer_states(model, lambda: model.model(torch.tensor([final]), use_cache=False))
    reference = [state[0] for _, state in states]
    count = torch.zeros(len(final), len(SITES), dtype=torch.long)
    unknown = [0] * len(SITES)
    generation = layer_states(model, lambda: model.generate(torch.tensor([PROMPT]), **made))
    starts = [at for at, (layer, _) in enumerate(generation) if layer == 0] + [len(generation)]
    for start, stop in pairwise(starts):
        visit = VERIFY if stop - start == LAYERS else DRAFT
        for layer, state in generation[start:stop]:
            for column in state[0]:
                far = (reference[layer] - column).abs().amax(-1)
                if float(far.min()) < 1e-3:
                    count[int(far.argmin()), visit * LAYERS + layer] += 1
                else:
                    unknown[visit * LAYERS + layer] += 1
    return count, unknown


def layer_states(model: Any, run: Any) -> list[tuple[int, Tensor]]:
    found: list[tuple[int, Tensor]] = []

    def keeper(number: int) -> Any:
        return lambda _, __, output: found.append((number, output.detach().clone()))

    handles = [
        layer.register_forward_hook(keeper(number))
        for number, layer in enumerate(model.model.layers)
    ]
    run()
    for handle in handles:
        handle.remove()
    return found


@torch.no_grad()
def main(folder: Path) -> None:
    model = tiny()
    made = {"max_new_tokens": NEW, "do_sample": False, "assistant_early_exit": EXIT}
    passes = Passes(model)
    final = model.generate(torch.tensor([PROMPT]), **made)[0].tolist()
    passes.remove()
    plain = model.generate(torch.tensor([PROMPT]), max_new_tokens=NEW, do_sample=False)
    path = folder / "transformers.assisted.jsonl"
    rejected = write(path, passes, final)
    write(path.with_name(f"{path.stem}.fault-all-verify.jsonl"), passes, final, fault="all-verify")
    count, unknown = found_by_state(model, final, made)
    ran = int((count.sum(1) > 0).sum())
    at, accepted = len(PROMPT), []
    for matches in passes.matches:
        accepted += range(at, at + matches)
        at += matches + 1
    told = [at for at in range(len(PROMPT), len(final)) if final[: at + 1] in passes.proposed]
    assert told == accepted, (told, accepted)
    write_reading(
        path,
        packages=[],
        readings={
            "found by hidden state": [
                *count[:ran].tolist(),
                *[[None] * len(SITES) for _ in rejected],
            ]
        },
        seen={
            "the text is that of plain greedy decoding": final == plain[0].tolist(),
            "new tokens": len(final) - len(PROMPT),
            "accepted drafts": len(accepted),
            "rejected drafts that ran": len(rejected),
            "layer runs of draft passes": int(count[:, :LAYERS].sum()) + sum(unknown[:LAYERS]),
            "layer runs of verification": int(count[:, LAYERS:].sum()) + sum(unknown[LAYERS:]),
            "layer runs of plain decoding": (len(final) - 1) * LAYERS,
            "runs of rejected drafts": sum(unknown),
        },
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
