"""The one way to put hooks on modules for a while, in one thread.

Threads share the modules of a model. A hook put on here is called in the thread that put it on and
in no other, and comes off however its block ends.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from skipviz.families.plan_run import PlanRun

Hooks = Iterable[tuple[nn.Module, Callable[..., Any]]]


@dataclass(frozen=True, eq=False)
class Hook:
    """What a module calls before or after its forward; ``before`` and ``after`` make it.

    Attributes
    ----------
    module
        The module.
    call
        What it calls, as torch calls forward hooks.
    first
        Whether it is called before the forward.
    with_kwargs
        Whether it is given the forward's keyword arguments too.
    """

    module: nn.Module
    call: Callable[..., Any]
    first: bool
    with_kwargs: bool


def before(module: nn.Module, call: Callable[..., Any], *, with_kwargs: bool = False) -> Hook:
    """Return a hook on what a module is given: ``call(module, args)``, or with its ``kwargs``."""
    return Hook(module, call, first=True, with_kwargs=with_kwargs)


def after(module: nn.Module, call: Callable[..., Any], *, with_kwargs: bool = False) -> Hook:
    """Return a hook on what it returns: ``call(module, args, result)``, or ``kwargs`` before it."""
    return Hook(module, call, first=False, with_kwargs=with_kwargs)


@contextmanager
def hooked(hooks: Iterable[Hook], *, prepend: bool = False) -> Iterator[None]:
    """Keep hooks on modules while this block is open, for forwards of this thread alone.

    Parameters
    ----------
    hooks
        What ``before`` and ``after`` return.
    prepend
        Whether they are called before hooks that are on already.
    """
    thread = threading.get_ident()

    def here(call: Callable[..., Any]) -> Callable[..., Any]:
        call = under_guard(call)

        # Whatever it is given: torch looks up a hook's options after the hook, so one that another
        # thread has just taken off is called without its keyword arguments.
        def called(*given: Any) -> Any:
            return call(*given) if threading.get_ident() == thread else None

        setattr(called, _TEMPORARY, True)
        return called

    with ExitStack() as stack:
        for hook in hooks:
            module = hook.module
            on = module.register_forward_pre_hook if hook.first else module.register_forward_hook
            handle = on(here(hook.call), prepend=prepend, with_kwargs=hook.with_kwargs)
            stack.callback(handle.remove)
        yield


@contextmanager
def guarded(guard: Callable[..., None]) -> Iterator[None]:
    """Have hooks that are put on in this block called by a guard, as ``guard(call, *given)``.

    A guard may take note of what they raise, where a run of the user's must not be disturbed.
    """
    outer, _HERE.guard = _HERE.guard, guard
    try:
        yield
    finally:
        _HERE.guard = outer


def under_guard(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return what is called instead of a hook that is put on now: the guard, if there is one."""
    guard = _HERE.guard
    return call if guard is None else functools.partial(guard, call)


def observing(hooks: Hooks) -> AbstractContextManager[None]:
    """Keep forward hooks on modules that call only while this block is open, in its thread.

    Parameters
    ----------
    hooks
        A module and what it calls after a forward, which must change nothing.
    """
    return hooked(after(module, call) for module, call in hooks)


@contextmanager
def forcing(run: PlanRun, hooks: Hooks) -> Iterator[None]:
    """Keep forward hooks that replace decisions, as ``observing`` does.

    They come first, so that observers read what was forced whoever came first.
    """
    outer = _HERE.plans
    with hooked((after(module, call) for module, call in hooks), prepend=True):
        _HERE.plans = (*outer, run)
        try:
            yield
        finally:
            _HERE.plans = outer


def forced_now(module: nn.Module) -> Tensor | None:
    """Return where a plan of this thread has just decided instead of this module."""
    forced: Tensor | None = None
    for run in _HERE.plans:
        if run.last_forced is not None and run.last_forced[0] is module:
            mask = run.last_forced[1]
            forced = mask if forced is None else forced | mask
    return forced


_TEMPORARY = "skipviz_temporary"


def drop_temporary_hooks(model: nn.Module) -> None:
    """Take hooks off a copied model that were on the original for the length of a block."""
    for module in model.modules():
        for hooks, with_kwargs in (
            (module._forward_hooks, module._forward_hooks_with_kwargs),
            (module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs),
        ):
            for key in [key for key, hook in hooks.items() if hasattr(hook, _TEMPORARY)]:
                del hooks[key]
                with_kwargs.pop(key, None)


class _Here(threading.local):
    """What holds in this thread.

    The plans that force decisions, the outermost first, and what calls hooks that are put on.
    """

    plans: tuple[PlanRun, ...] = ()
    guard: Callable[..., None] | None = None


_HERE = _Here()
