"""What each family says of its sites, in whole: rules, scopes, what is skipped, what it costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from torch import nn

from skipviz.families import family_of
from skipviz.families.exits.family import Exits
from skipviz.families.fixed_rates.family import FixedRates
from skipviz.families.fixed_rates.modules import install_rates, set_rates
from skipviz.families.gated.family import Gated
from skipviz.families.powers import Traits, traits_of
from skipviz.schema import Site
from tests import published, tiny
from tests.families.exits.test_family import with_exits

WIDTH, GATE, ADAPTER = 32, 4, 2
ADAPTER_FLOPS = 4 * WIDTH * ADAPTER
GATE_FLOPS = 2 * WIDTH * GATE + 2 * GATE
LINEAR = 2 * WIDTH
"""FLOPs of a router with one number."""
HERE: dict[str, Any] = {"visit": 0, "scope": "token", "computed_anyway": True, "kv": "computed"}


def test_gates_are_on_attention_and_mlp() -> None:
    said = HERE | {
        "rule": "gt", "polarity": 1, "skip_path": "adapter",
        "gate_flops": GATE_FLOPS, "skip_flops": ADAPTER_FLOPS,
    }  # fmt: skip
    model = tiny.gated(seed=0)
    places: list[tuple[int, Any]] = [(layer, u) for layer in range(1, 5) for u in ("attn", "mlp")]
    assert Gated().sites(model) == [Site(layer=layer, unit=u, **said) for layer, u in places]
    Gated().gather(model, gathered=True)
    said["computed_anyway"] = False
    assert Gated().sites(model) == [Site(layer=layer, unit=u, **said) for layer, u in places]


def test_fixed_rates_are_drawn_or_kept() -> None:
    model = tiny.backbone(seed=0)
    install_rates(model, tiny.GATES, seed=0)
    set_rates(model, [0.0, 0.5, 1.0, 0.01, 0.99, 0.0, 1.0, 0.5])
    sites = FixedRates().sites(model)
    rules = ["schedule", "sample", "schedule", "sample", "sample", "schedule", "schedule", "sample"]
    assert [site.rule for site in sites] == rules
    assert {site.gate_flops for site in sites} == {0}
    assert {site.skip_flops for site in sites} == {ADAPTER_FLOPS}


@pytest.mark.parametrize(
    ("rule", "said", "polarity"),
    [("confidence", "ge", -1), ("entropy", "ge", 1), ("patience", "patience", -1)],
)
def test_exits_are_asked_once_for_the_layers_up_to_the_next(
    rule: Any, said: Any, polarity: Any
) -> None:
    model = with_exits(rule=rule)
    # A translator, and the head through all its 32 directions.
    asked = ADAPTER_FLOPS + 2 * WIDTH * (WIDTH + len(tiny.tokenizer()))
    assert Exits().sites(model) == [
        Site(
            **HERE | {"kv": "propagated"},
            layer=layer, unit="block", rule=said, polarity=polarity, skip_path="identity",
            gate_flops=cost, skip_flops=0,
        )
        for layer, cost in ((2, asked), (3, 0), (4, asked), (5, 0))
    ]  # fmt: skip


def test_what_a_loop_repeats_is_decided_by_nobody() -> None:
    model = published.dr_llm()
    assert family_of(model).sites(model) == [
        Site(
            layer=layer, unit="block", rule="argmax", polarity=None, skip_path="identity",
            kv="absent", computed_anyway=False, scope="batch", gate_flops=None, skip_flops=0,
        )
        for layer in range(tiny.LAYERS)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "places", "said"),
    [
        (
            published.flexidepth,
            [(layer, "block") for layer in (3, 4, 5)],
            HERE | {
                "rule": "gt", "polarity": 1, "skip_path": "adapter",
                "computed_anyway": None, "skip_flops": None,
            },
        ),
        (
            published.skipgpt,
            [(layer, unit) for layer in range(tiny.LAYERS) for unit in ("attn", "mlp")],
            HERE | {"rule": "sample", "polarity": -1, "skip_path": "identity"},
        ),
        (
            published.mixture_of_depths,
            [(layer, "block") for layer in (1, 3, 5)],
            HERE | {
                "rule": "topk", "polarity": 1, "skip_path": "identity", "kv": "absent",
                "computed_anyway": False, "gate_flops": LINEAR,
            },
        ),
        (
            lambda: published.router_tuning(target="mlp"),
            [(layer, "mlp") for layer in (1, 3, 5)],
            HERE | {"rule": "ge", "polarity": 1, "skip_path": "identity", "gate_flops": LINEAR},
        ),
        (
            lambda: published.router_tuning(target="block", level="sequence"),
            [(layer, "block") for layer in (1, 3, 5)],
            HERE | {
                "rule": "ge", "polarity": 1, "skip_path": "identity", "scope": "sequence",
                "gate_flops": None,
            },
        ),
    ],
)  # fmt: skip
def test_published_methods(make: Any, places: list[tuple[int, Any]], said: dict[str, Any]) -> None:
    model = make()
    sites = family_of(model).sites(model)
    assert [(site.layer, site.unit) for site in sites] == places
    for site in sites:
        assert {name: getattr(site, name) for name in said} == said


def test_what_holds_of_the_way_it_skips() -> None:
    gated, exits = tiny.gated(seed=0), with_exits()
    inside = Traits(batchable=True, in_backbone=True)
    assert traits_of(family_of(exits), exits) == replace(inside, leaves=True)
    assert traits_of(family_of(gated), gated) == replace(inside, resumable=True)
    alone = Traits(batchable=False, in_backbone=True)
    for model in (published.dr_llm(), published.flexidepth()):
        assert traits_of(family_of(model), model) == alone


class Silent:
    """A family that says nothing of how it skips."""

    name = "silent"

    def __init__(self, **said: Any) -> None:
        given = HERE | {"rule": "gt", "polarity": 1, "skip_path": None} | said
        self._sites = [Site(layer=1, unit="block", **given)]

    def detect(self, model: nn.Module) -> bool:
        return False

    def sites(self, model: nn.Module) -> list[Site]:
        return self._sites

    def observe(self, model: nn.Module, sink: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("said", "batchable"),
    [
        ({}, True), ({"scope": "sequence"}, False), ({"scope": "batch"}, False),
        ({"rule": "topk"}, False), ({"rule": "quantile"}, False), ({"rule": "cumsum"}, False),
        ({"rule": "argmax"}, True),
    ],
)  # fmt: skip
def test_of_a_family_that_does_not_say_the_least_is_taken_on(
    said: dict[str, Any], batchable: bool
) -> None:
    found = traits_of(Silent(**said), nn.Linear(1, 1))
    assert found == Traits(batchable=batchable, in_backbone=False)
