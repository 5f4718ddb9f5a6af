"""What listens and what forces, for each thread apart, for every family whose gates are hooked.

Hooks sit on modules that threads share. Which observers and plans are active is kept in
``ContextVar``s, so that a hook of one thread stays silent in another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn

from skipviz.families.base import EventSink
from skipviz.families.plan_run import PlanRun

Hooks = Iterable[tuple[nn.Module, Callable[..., Any]]]

_OBSERVERS: ContextVar[tuple[EventSink, ...]] = ContextVar("observers", default=())
_PLANS: ContextVar[tuple[PlanRun, ...]] = ContextVar("plans", default=())


@contextmanager
def observing(sink: EventSink, hooks: Hooks) -> Iterator[None]:
    """Keep forward hooks on modules that call only while this block is open, in its thread.

    Parameters
    ----------
    sink
        What observes.
    hooks
        A module and what it calls after a forward, which must change nothing.
    """
    with _active(_OBSERVERS, sink, hooks, prepend=False):
        yield


@contextmanager
def forcing(run: PlanRun, hooks: Hooks) -> Iterator[None]:
    """Keep forward hooks that replace decisions, as ``observing`` does.

    They come first, so that observers read what was forced whoever came first.
    """
    with _active(_PLANS, run, hooks, prepend=True):
        yield


def forced_now(module: nn.Module) -> Tensor | None:
    """Return where a plan of this thread has just decided instead of this module."""
    forced: Tensor | None = None
    for run in _PLANS.get():
        if run.last_forced is not None and run.last_forced[0] is module:
            mask = run.last_forced[1]
            forced = mask if forced is None else forced | mask
    return forced


_TEMPORARY = "skipviz_temporary"


def drop_temporary_hooks(model: nn.Module) -> None:
    """Take hooks off a copied model that were there for the length of somebody's run."""
    for module in model.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key in [key for key, hook in hooks.items() if hasattr(hook, _TEMPORARY)]:
                del hooks[key]
                module._forward_hooks_with_kwargs.pop(key, None)
                module._forward_pre_hooks_with_kwargs.pop(key, None)


@contextmanager
def _active(
    variable: ContextVar[tuple[Any, ...]], item: object, hooks: Hooks, *, prepend: bool
) -> Iterator[None]:
    token = variable.set((*variable.get(), item))

    def only_here(hook: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any) -> Any:
            return hook(*args) if any(item is each for each in variable.get()) else None

        setattr(called, _TEMPORARY, True)
        return called

    handles = [
        module.register_forward_hook(only_here(hook), prepend=prepend) for module, hook in hooks
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        variable.reset(token)
