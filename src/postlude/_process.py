"""The process: what it runs at most, its fork, its end (D6, D7, D8)."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from postlude import _reporting, _runner, _threads
from postlude._scope import DeferScope, current
from postlude._settings import settings

if TYPE_CHECKING:
    from postlude._types import Runner

_monotonic = time.monotonic

fallback: Runner
"""Runs what no loop is left for; set by `postlude._background`."""
runners: WeakSet[Any] = WeakSet()
"""All runners of this process; each has `drain(deadline)`. Drained at its end."""
_process_lock = threading.Lock()


def register(runner: Runner) -> None:
    """Have *runner* drained when the process ends."""
    _hook_exit()
    runners.add(runner)


_hooked = False


def _hook_exit() -> None:
    global _hooked
    with _process_lock:
        if _hooked:
            return
        _hooked = True
    # Registered last and so run first: pools that calls use must still take work.
    import concurrent.futures.thread  # pyright: ignore[reportUnusedImport]  # noqa: F401, PLC0415 - for its own registration

    # Both: granian's workers (before 3.13) skip atexit, others skip this one. No public
    # name exists for "before non-daemonic threads are joined"; checked on 3.11 to 3.13.
    register_early: Callable[..., object] | None
    register_early = getattr(threading, "_register_atexit", None)
    if register_early is not None:
        try:
            register_early(drain)
        except RuntimeError:  # the interpreter is shutting down already
            pass
    atexit.register(_end)


_LIGHT = 8
"""What a unit may bring uncounted, while all units together are far from the bound."""


def admit(scope: DeferScope, runner: Runner) -> bool:
    """Have *runner* count a unit's calls; apply `overflow` at `max_pending` (D6).

    False means that the calls were dropped; `scope.stay` that the request's own task
    should wait for them.
    """
    active = runner.active
    active[scope] = weight = scope.pending
    limits = settings()
    if weight <= _LIGHT and len(active) * _LIGHT <= limits.max_pending:
        return True
    if sum(sum(list(r.active.values())) for r in list(runners)) <= limits.max_pending:
        return True
    if limits.overflow == "wait":
        scope.stay = True
        return True
    for call in scope.abandon():
        scope._refuse(call, "overflow")
    scope.take()
    return False


def drain(grace: float | None = None) -> None:
    """Wait until no call is left, nested ones included; blocks (D7).

    What has not ended after *grace* seconds (default: the setting) is recorded as
    lost. Runs by itself when the interpreter exits.

    Raises:
        RuntimeError: called on an event loop that has calls to run.
    """
    deadline = _monotonic() + (settings().grace if grace is None else grace)
    # Again and again: a loop that was closed hands its units to another runner.
    while busy := [runner for runner in list(runners) if runner.active]:
        for runner in busy:
            runner.drain(deadline)


over = False
"""Whether the process has come to its very end: no thread will run a call any more."""


def _end() -> None:
    global over
    drain()
    over = True


def wait_for(
    active: dict[DeferScope, int],
    deadline: float,
    pause: Callable[[float], object] = time.sleep,
) -> None:
    """Block until *active* is empty; at the deadline record what is left as lost.

    *pause* passes some seconds, and may do something useful meanwhile.
    """
    try:
        while active and _monotonic() < deadline:
            if not _threads.threads().help():
                pause(0.005)
    finally:  # a second signal ends at once, and even then nothing is silent
        lose(active, "the process ended before it was done")


def lose(active: dict[DeferScope, int], why: str) -> None:
    """Record all calls of these units that have not ended as lost."""
    for scope in list(active):
        running = list(_runner.running.items())
        for call in [call for call, unit in running if unit is scope]:
            if _runner.give_up(call, "lost") is not None:
                _reporting.lost(scope, call, f"{why}, while it ran")
        for call in scope.abandon():
            if call.state == "pending":
                call.state = "lost"
                _reporting.lost(scope, call, f"{why}, before it began")
        active.pop(scope, None)


def _after_fork() -> None:
    """Begin anew in a forked child: the parent keeps and runs its own calls (D8)."""
    global _process_lock
    _threads.forked()
    DeferScope._lock = threading.Lock()
    DeferScope.forks += 1
    _process_lock = threading.Lock()
    _runner.running.clear()
    for runner in list(runners):
        runner.forked()
    current.set(None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
