"""The six ways of dynamic depth of the package `economize`, each decided by a policy object.

Recorded: one wrap of `DepthPolicy.decide`, which says for every layer which tokens run it. Read
otherwise: which hidden states the layer changed, and the counts that the package keeps itself.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import economize
import torch
from economize.decoding.generation import Generation
from economize.runtime import LayerRunner, current_phase
from economize.runtime.policy import LayerAction, Route
from economize.techniques.dynamic_depth import (
    CalmConfig,
    FlexiDepthConfig,
    GateSkipConfig,
    LoRADropConfig,
    MoDConfig,
    SkipDecodeConfig,
)
from recorder_kit import Recorder
from tiny import SIZES, TEXTS, VOCABULARY, decode, encode, write_reading
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

LAYERS = 8
NEW = 12
KEPT = {"unit": "block", "kv": "computed", "computed_anyway": False, "scope": "token"}
GATE = {"rule": "gt", "polarity": 1, "skip_path": "identity", **KEPT}
WAYS: dict[str, tuple[Any, dict[str, Any]]] = {
    "mod": (MoDConfig(), GATE),
    "gateskip": (GateSkipConfig(threshold=0.5), GATE | {"rule": "ge"}),
    "gateskip-budget": (
        GateSkipConfig(rule="budget", budget=0.6),
        GATE | {"rule": "topk", "scope": "sequence"},
    ),
    "flexidepth": (FlexiDepthConfig(threshold=0.5), GATE | {"skip_path": "adapter"}),
    "calm": (
        CalmConfig(confidence="softmax", threshold=0.05),
        GATE | {"polarity": -1, "kv": "propagated"},
    ),
    "calm-state": (
        CalmConfig(confidence="state", threshold=0.75),
        GATE | {"polarity": -1, "kv": "propagated"},
    ),
    "skipdecode": (
        SkipDecodeConfig(max_layers=8, min_layers=3, decay=8),
        KEPT | {"rule": "schedule", "skip_path": "identity", "kv": "absent", "scope": "batch"},
    ),
    "loradrop": (LoRADropConfig(period=3), KEPT | {"rule": "schedule", "skip_path": "adapter"}),
}


def model_of(way: Any) -> Any:
    """Return a random Llama with a way of skipping whose gates are random too."""
    torch.manual_seed(0)
    config = LlamaConfig(
        **SIZES,
        num_hidden_layers=LAYERS,
        max_position_embeddings=256,
        eos_token_id=None,
        bos_token_id=None,
    )
    plain = LlamaForCausalLM(config).eval()
    model = economize.apply(plain, way, decoding=economize.DecodeConfig(cycle_length=1))
    for parameter in model.technique_parameters():
        with torch.no_grad():
            parameter.normal_(0, 0.5)
    return model


def mask_of(decision: Any, like: Tensor) -> Tensor:
    """Return [batch, tokens]: which tokens a decision lets run."""
    ran = torch.zeros(like.shape[:2], dtype=torch.bool)
    if decision is LayerAction.RUN:
        return ~ran
    if isinstance(decision, Tensor):
        return decision
    if isinstance(decision, Route):
        return ran.scatter(1, decision.indices, decision.valid)
    return ran


class Rows:
    """Which ids are run at which rows: from the embedding; rows that end are dropped."""

    def __init__(self, prompts: int) -> None:
        self.sequences = list(range(prompts))
        self.ids = torch.zeros(0)

    def drop(self, kept: Tensor) -> None:
        self.sequences = [self.sequences[row] for row in kept.tolist()]


def record(model: Any, recorder: Recorder, stack: ExitStack, *, sites: dict[int, int]) -> None:
    """Record whatever the depth policy of a model decides."""
    technique = next(iter(model.techniques.values()))
    rows = Rows(len(TEXTS))
    make = technique.make_policy

    def made() -> Any:
        policy = make()
        decide, reorder = policy.decide, policy.reorder
        confidence: dict[int, Tensor] = {}
        if measure := getattr(policy, "measure", None):
            policy.measure = _listening(policy, measure, confidence)

        def decided(index: int, hidden: Tensor, ctx: Any) -> Any:
            if index == 1:
                confidence.clear()
                announce(recorder, rows, valid=ctx.valid)
            decision = decide(index, hidden, ctx)
            if index in sites:
                score = getattr(policy, "scores", {}).get(index, confidence.get(index))
                recorder.gate(
                    sites[index],
                    ran=mask_of(decision, hidden),
                    score=score,
                    threshold=None if score is None else threshold_of(technique.config),
                )
            return decision

        def reordered(kept: Tensor) -> None:
            rows.drop(kept)
            reorder(kept)

        policy.decide, policy.reorder = decided, reordered
        return policy

    def embedded(_: Any, args: Any) -> None:
        rows.ids = args[0]

    handle = model.get_input_embeddings().register_forward_pre_hook(embedded)
    stack.callback(handle.remove)
    technique.make_policy = made
    stack.callback(delattr, technique, "make_policy")


def _listening(policy: Any, measure: Any, kept: dict[int, Tensor]) -> Any:
    """Keep CALM's confidence after a layer as the score of the next; unknown where not asked."""

    class Listening:
        head_calls = measure.head_calls

        def __call__(self, index: int, x: Tensor, out: Tensor) -> Tensor:
            found: Tensor = measure(index, x, out)
            kept[index + 1] = found.masked_fill(policy.exited, torch.nan)
            return found

    return Listening()


def announce(recorder: Recorder, rows: Rows, *, valid: Tensor | None) -> None:
    real = torch.ones_like(rows.ids, dtype=torch.bool) if valid is None else valid
    texts = [
        [text if there else None for text, there in zip(decode(ids), line.tolist())]
        for ids, line in zip(rows.ids.tolist(), real)
    ]
    phase = [[current_phase()] * rows.ids.shape[1]] * len(texts)
    recorder.tokens(texts, sequences=rows.sequences, phase=phase, id=rows.ids.tolist())


class Watch:
    """Reads what the runner did with every layer, without asking the policy."""

    def __init__(self, model: Any, stack: ExitStack) -> None:
        self.sequences = list(range(len(TEXTS)))
        self.changed: dict[tuple[int, int], list[tuple[int, bool]]] = {}
        self.routed = self.filled = 0
        apply, drop = LayerRunner._apply, Generation.drop
        computed: list[int] = []
        for layer in model.base_model.model.layers:
            handle = layer.mlp.register_forward_pre_hook(
                lambda _, args: computed.append(args[0].shape[0] * args[0].shape[1])
            )
            stack.callback(handle.remove)

        def applied(runner: Any, index: int, layer: Any, hidden: Tensor, *rest: Any) -> Any:
            ctx, what = rest
            computed.clear()
            out = apply(runner, index, layer, hidden, *rest)
            if isinstance(what, Route):
                self.routed += int(what.valid.sum())
                self.filled += sum(computed) - int(what.valid.sum())
            for row, sequence in enumerate(self.sequences):
                for column in range(hidden.shape[1]):
                    if ctx.valid is not None and not ctx.valid[row, column]:
                        continue
                    where = (sequence, int(ctx.positions[row, column]))
                    before = hidden[row, column]
                    ran = not torch.equal(before, out[row, column])
                    self.changed.setdefault(where, []).append((index, ran))
            return out

        def dropped(generation: Any, finished: list[bool]) -> None:
            self.sequences = [each for each, done in zip(self.sequences, finished) if not done]
            drop(generation, finished)

        LayerRunner._apply = applied
        stack.callback(setattr, LayerRunner, "_apply", apply)
        Generation.drop = dropped
        stack.callback(setattr, Generation, "drop", drop)

    def matrix(self, layers: Any) -> list[list[bool]]:
        """Return whether each layer changed each token's state."""
        of = self.changed
        return [[dict(of[where])[index] for index in layers] for where in sorted(of)]


def prompt_decisions(
    model: Any, prompts: list[Tensor], *, layers: Any
) -> dict[tuple[int, ...], bool]:
    """Return whether each token of each prompt ran each layer: by sequence, position and layer."""
    with ExitStack() as stack:
        watch = Watch(model, stack)
        watch.sequences = list(range(len(prompts)))
        model.decode_batch(prompts, [1] * len(prompts))
        return {
            (*where, index): ran
            for where, runs in watch.changed.items()
            if where[1] < len(prompts[where[0]])
            for index, ran in runs
            if index in layers
        }


def forced(model: Any, prompts: list[Tensor], *, layers: Any) -> tuple[int, int]:
    """Let tokens run where position and layer add up to an even number; return what obeyed."""
    technique = next(iter(model.techniques.values()))
    make = technique.make_policy

    def made() -> Any:
        policy = make()
        decide = policy.decide

        def decided(index: int, hidden: Tensor, ctx: Any) -> Any:
            decision = decide(index, hidden, ctx)
            if index not in layers or not policy._active:
                return decision
            ran = (ctx.positions + index) % 2 == 0
            policy._masks[index] = ran
            return ran if bool(ran.any()) else LayerAction.SKIP_FILL_KV

        policy.decide = decided
        return policy

    with ExitStack() as stack:
        watch = Watch(model, stack)
        technique.make_policy = made
        stack.callback(delattr, technique, "make_policy")
        model.decode_batch(prompts, [NEW] * len(prompts))
    prompt_too = "prefill" in technique.make_policy().phases
    runs = [
        (ran, (position + index) % 2 == 0)
        for (sequence, position), each in watch.changed.items()
        if prompt_too or position >= len(prompts[sequence])
        for index, ran in each
        if index in layers
    ]
    return sum(ran == wanted for ran, wanted in runs), len(runs)


def one_off(sites: dict[int, int]) -> dict[int, int]:
    """Return the fault of taking the package's layers, from 1, for those from 0."""
    return {index + 1: site for index, site in sites.items()}


def threshold_of(config: Any) -> float | None:
    """Return what a score is compared with; None where scores are ranked."""
    if isinstance(config, MoDConfig):
        return 0.0
    return None if getattr(config, "rule", None) == "budget" else float(config.threshold)


@torch.no_grad()
def main(folder: Path) -> None:
    prompts = [torch.tensor(encode(text)) for text in TEXTS]
    for way, (config, known) in WAYS.items():
        model = model_of(config)
        technique = next(iter(model.techniques.values()))
        layers = getattr(config, "layer_set", lambda count: range(1, count + 1))(LAYERS)
        sites = {index: place for place, index in enumerate(layers)}
        head = [{"layer": index - 1, **known} for index in layers]
        new = [NEW, NEW - 4]
        plain = [each.tokens.tolist() for each in model.decode_batch(prompts, new)]
        counts = technique.last_policy.meter.per_layer()[[index - 1 for index in layers]]
        for fault in ("", ".fault-layer"):
            path = folder / f"economize.{way}{fault}.jsonl"
            with ExitStack() as stack:
                recorder = stack.enter_context(
                    Recorder(path, sites=head, layers=LAYERS, model="Llama", family=way)
                )
                watch = Watch(model, stack)
                record(model, recorder, stack, sites=one_off(sites) if fault else sites)
                got = [each.tokens.tolist() for each in model.decode_batch(prompts, new)]
                assert got == plain, way
            if fault:
                continue
            changed = watch.matrix(layers)
            alone = prompt_decisions(model, prompts[1:], layers=layers)
            whole, again = (prompt_decisions(model, prompts, layers=layers) for _ in range(2))
            other = [prompts[0].clone(), prompts[1]]
            other[0][-1] = (other[0][-1] + 1) % VOCABULARY
            future = prompt_decisions(model, other, layers=layers)
            earlier = [where for where in whole if where[0] == 0 and where[1] < len(prompts[0]) - 1]
            run = torch.tensor(changed).sum(0).tolist()
            write_reading(
                path,
                packages=["economize"],
                readings={"state changed": changed},
                seen={
                    "runs per layer by the package's own count": counts[:, 1].tolist(),
                    "by hidden states": run,
                    "earlier decisions of a prompt moved by another last token": sum(
                        whole[where] != future[where] for where in earlier
                    ),
                    "of": len(earlier),
                    "decisions of a prompt that differ alone and in a batch": sum(
                        alone[(0, *where)] != whole[(1, *where)] for _, *where in alone
                    ),
                    "of its": len(alone),
                    "decisions that differ in two runs": sum(
                        whole[where] != again[where] for where in whole
                    ),
                    "decisions": len(changed) * len(changed[0]),
                    "that run": sum(run),
                    "forced decisions obeyed, and of how many": forced(
                        model, prompts, layers=layers
                    ),
                    "that run beside others that do not": watch.routed,
                    "computed besides, to give rows one length": watch.filled,
                },
            )
            assert run == counts[:, 1].tolist(), (way, run, counts)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
