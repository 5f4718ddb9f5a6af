from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import skipviz
from skipviz.families.hooks import Hook, after, before, hooked
from tests.hooking import hooks_on

PERMANENT = {
    "families/hooks.py", "families/exits/modules.py", "families/fixed_rates/modules.py",
    "families/freezing.py", "families/llama.py",
}  # fmt: skip
"""Where hooks are put on: for a while, and for good on a model that is frozen or given exits."""


def in_another_thread(module: nn.Module, given: Tensor) -> Tensor:
    found: list[Tensor] = []
    thread = threading.Thread(target=lambda: found.append(module(given)))
    thread.start()
    thread.join()
    return found[0]


def test_hooks_hear_and_change_their_own_thread_alone() -> None:
    module, heard = nn.Linear(3, 3), []
    given = torch.randn(2, 3)
    plain = module(given)
    hooks = [
        before(module, lambda _, args: (args[0] + 1,)),
        after(module, lambda _, args, kwargs, out: heard.append(out), with_kwargs=True),
    ]
    with hooked(hooks):
        assert torch.equal(in_another_thread(module, given), plain)
        assert heard == []
        assert not torch.equal(module(given), plain)
        assert len(heard) == 1
    assert hooks_on(module) == 0


def test_another_thread_runs_a_model_as_its_gates_decide(gated: skipviz.SkipModel) -> None:
    model = gated.model
    sites = len(gated.family.sites(model))
    ids = torch.arange(3, 12)[None]

    def logits(given: Tensor) -> Tensor:
        found: Tensor = model(given).logits.detach()
        return found

    class Module(nn.Module):
        def forward(self, given: Tensor) -> Tensor:
            return logits(given)

    plain = logits(ids)
    events: list[int] = []

    class Sink:
        def on_gate(self, site: int, **_: Any) -> None:
            events.append(site)

    plan = skipviz.Plan(torch.zeros(ids.shape[1], sites, dtype=torch.bool).numpy())
    with gated.family.force(model, plan), gated.family.observe(model, Sink()):
        assert torch.equal(in_another_thread(Module(), ids), plain)
        assert events == []
        assert not torch.equal(logits(ids), plain)
    assert events == list(range(sites))
    assert torch.equal(logits(ids), plain)


def test_hooks_come_off_however_the_block_ends() -> None:
    module = nn.Linear(3, 3)
    with pytest.raises(RuntimeError, match="in the middle"), hooked([before(module, print)]):
        raise RuntimeError("in the middle")
    assert hooks_on(module) == 0


def test_hooks_that_cannot_all_be_put_on_come_off_again() -> None:
    module = nn.Linear(3, 3)

    def breaking() -> Iterator[Hook]:
        yield before(module, print)
        raise RuntimeError("no further one")

    with pytest.raises(RuntimeError, match="no further"), hooked(breaking()):
        pass
    assert hooks_on(module) == 0


def test_hooks_that_come_first_are_heard_by_those_behind() -> None:
    module, heard = nn.Linear(3, 3), []
    with (
        hooked([after(module, lambda _, args, out: heard.append(out))]),
        hooked([after(module, lambda _, args, out: out * 0)], prepend=True),
    ):
        module(torch.randn(2, 3))
    assert not heard[0].any()


def test_there_is_one_way_to_put_hooks_on() -> None:
    root = Path(skipviz.__file__).parent
    found = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if "register_forward" in path.read_text(encoding="utf-8")
    }
    assert found - {"recorder_kit.py"} == PERMANENT  # which is copied, and stands alone
