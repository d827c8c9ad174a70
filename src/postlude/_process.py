"""The process: what it runs at most, its fork, its end (D6, D7, D8)."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from postlude import _call, _reporting, _runner, _scope, _threads
from postlude._scope import DeferScope, current, held, waiting
from postlude._settings import in_force
from postlude.instrumentation import _instruments

if TYPE_CHECKING:
    from postlude._call import DeferredCall
    from postlude._types import Runner, Ticket

_monotonic = time.monotonic
ENDED = "the process ended before it was done"

fallback: Runner
"""Runs what no loop is left for; set by `postlude._background`."""
runners: WeakSet[Any] = WeakSet()
"""All runners of this process; each has `drain(deadline)`. Drained at its end."""
_process_lock = threading.Lock()


def register(runner: Runner) -> None:
    """Have *runner* drained when the process ends."""
    from postlude.instrumentation import _discovery  # noqa: PLC0415 - once per runner

    _discovery.discover()
    _hook_exit()
    runners.add(runner)


closers: list[Callable[[float], object]] = []
"""What must be waited for at the end besides units; each takes a deadline on the clock
of `time.monotonic`, and blocks."""
enders: list[Callable[[], object]] = []
"""What must not begin anything any more, when the end begins."""
servers: list[Callable[[], object]] = []
"""What runs in a process that serves requests."""
serving = False
"""Whether this process has begun to serve."""


def serve() -> None:
    """See the first request, or the lifespan's begin, of this process."""
    global serving
    serving = True
    for begin in servers:
        begin()
    if servers:
        _hook_exit()


forks: list[Callable[[], object]] = []
"""What begins anew in a forked child."""


def begin_to_end() -> None:
    """See that the process, or its event loop, is about to end."""
    for end in enders:
        end()


over = False
"""Whether the process has come to its very end: no thread will run a call any more."""
_hooked = False


def _hook_exit() -> None:
    global _hooked, over
    with _process_lock:
        if _hooked:
            return
        _hooked = True
    # Both: granian's workers (before 3.13) skip atexit, others skip this one. No public
    # name exists for "before non-daemonic threads are joined"; checked on 3.11 to 3.13.
    register_early: Callable[..., object] | None
    register_early = getattr(threading, "_register_atexit", None)
    if register_early is not None:
        try:
            # Registered last and so run first: pools that calls use must still work.
            import concurrent.futures.thread  # pyright: ignore[reportUnusedImport]  # noqa: F401, PLC0415 - for its own registration

            register_early(_drain_early)
        except RuntimeError:  # the interpreter is shutting down already, hooks or not
            over = True
    atexit.register(_end)


LIGHT = 8
"""What a unit may bring uncounted, while all units together are far from the bound."""


def is_light(weight: int) -> bool:
    """Tell whether a unit's calls need no counting: few, and few units are there."""
    return weight <= LIGHT and len(held) * LIGHT <= in_force().max_pending


def admit(scope: DeferScope) -> bool:
    """Apply `overflow` to a unit that is held, at `max_pending` (D6).

    False means that the calls were dropped; `scope.stay` that the request's own task
    should wait for them.
    """
    limits = in_force()
    weight = len(scope._calls)
    if is_light(weight):
        return True
    if _load.with_another(weight) <= limits.max_pending:
        return True
    if limits.overflow == "hand_over" and _call.carrier is not None:
        _call.carrier.unload(scope)
        if not scope._calls and scope.put_down():
            return False
    if limits.overflow != "drop":
        scope.stay = True
        return True
    for call in scope.abandon():
        call.end_dropped("overflow")
    scope.take()
    return False


class _Load:
    """How many calls all held units brought.

    Counting them costs a look at each, so it is done anew only after an eighth as many
    more have come; in between what came is added, and what has ended is not taken off.
    """

    def __init__(self) -> None:
        self._known = 0
        self._left = 0

    def with_another(self, weight: int) -> int:
        """Give the number, with a unit of *weight* calls that is held already."""
        self._left -= 1
        self._known += weight
        if self._left <= 0 or self._known > in_force().max_pending:
            self._known = sum(n for (n,) in list(held.values()))
            self._left = len(held) // 8
        return self._known


_load = _Load()


_FEW = 64
_looked: tuple[float, int] = (0.0, 0)


def load() -> tuple[int, int]:
    """Tell how many calls of ended units are pending, and how many run.

    Many units are counted twenty times a second at most: this is asked at every call.
    """
    global _looked
    when, pending = _looked
    if len(held) <= _FEW or _monotonic() - when > 1 / 20:
        pending = sum(len(scope._calls) for scope in list(held))
        _looked = _monotonic(), pending
    return pending + len(waiting), len(_runner.running)


_instruments.load = load


def state() -> tuple[int, tuple[tuple[str, str, float], ...], tuple[str, ...]]:
    """Tell how many calls are pending, which run since when, and which limits are met.

    Of those that run, the fifty that began first; times are Unix seconds.
    """
    limits = in_force()
    running = sorted(
        ((call.started, call) for call in list(_runner.running) if call.started),
        key=lambda pair: pair[0],
    )
    pending, _ = load()
    in_loops = sum(call.is_async for _, call in running)
    met = {
        "threads": len(running) - in_loops >= limits.threads,
        "concurrency": in_loops >= limits.concurrency,
        "max_pending": pending + len(running) >= limits.max_pending,
    }
    passed = time.time() - _monotonic()
    shown = tuple((c.name, c.site, began + passed) for began, c in running[:_SHOWN])
    return pending, shown, tuple(name for name, is_met in met.items() if is_met)


_SHOWN = 50
_reporting.look = state


def drain(grace: float | None = None) -> None:
    """Wait until no call is left, nested ones included; blocks (D7).

    What has not ended after *grace* seconds (default: the setting) is recorded as
    lost. Runs by itself when the interpreter exits.

    Raises:
        RuntimeError: called on an event loop that has calls to run.
    """
    deadline = _monotonic() + (in_force().grace if grace is None else grace)
    # Again and again: a loop that was closed hands its units to another runner.
    while not idle():
        for runner in list(runners):
            runner.drain(deadline)
        if _monotonic() >= deadline:
            lose([*held, *_with_waiting()], ENDED)
    for close in closers:
        close(max(deadline, _monotonic() + 1.0))
    _reporting.flush()


def idle() -> bool:
    """Tell whether no call is left in this process.

    Looks twice: between putting a unit down and seeing that a call came meanwhile, its
    holder holds nothing.
    """
    if held or waiting:
        return False
    time.sleep(0.0005)
    return not (held or waiting)


def units(runner: Runner) -> list[DeferScope]:
    """Give the units that *runner* has not finished, waiting ones included."""
    every = dict.fromkeys([*list(held), *_with_waiting()])
    return [scope for scope in every if scope.runner is runner]


def _with_waiting() -> list[DeferScope]:
    scopes = [call._scope for call in list(waiting)]
    return [scope for scope in scopes if scope is not None]


def _drain_early() -> None:
    begin_to_end()
    drain()


def _end() -> None:
    global over
    _drain_early()
    over = True


def wait_for(
    runner: Runner,
    deadline: float,
    pause: Callable[[float], object] = time.sleep,
) -> None:
    """Block until *runner* has no unit; at the deadline record what is left as lost.

    *pause* passes some seconds, and may do something useful meanwhile.
    """
    try:
        while units(runner) and _monotonic() < deadline:
            threads = _threads.threads()
            threads.hurry()
            if not threads.help():
                pause(0.005)
    finally:  # a second signal ends at once, and even then nothing is silent
        lose(units(runner), ENDED)


_HANDING_OVER = 1.5
"""Seconds that the queue has to take what was not finished: with `grace` less than the
ten after which container runtimes kill."""


def lose(scopes: list[DeferScope], why: str) -> None:
    """Hand over what these units have not ended, or record it as lost."""
    leaving: list[tuple[DeferScope, DeferredCall, str, Ticket | None]] = []
    for scope in scopes:
        running = list(_runner.running.items())
        for call in [call for call, unit in running if unit is scope]:
            if _runner.give_up(call, "lost") is not None:
                ticket = _reporting.carry(call)
                leaving.append((scope, call, f"{why}, while it ran", ticket))
        for call in scope.abandon():
            if (refusal := call.refusal()) is not None:
                call.end_dropped(refusal)
                continue
            call.state = "lost"
            end = "before it began"
            if call.waits_for_commit():
                end = f"and its transaction on {call.awaited()} had not ended"
            ticket = _reporting.carry(call)
            leaving.append((scope, call, f"{why}, {end}", ticket))
        held.pop(scope, None)
    # Asked for all before the first is waited for: the engine takes many at once.
    until = _monotonic() + _HANDING_OVER
    for scope, call, reason, ticket in leaving:
        _reporting.left(scope, call, reason, ticket, until)


def _after_fork() -> None:
    """Begin anew in a forked child: the parent keeps and runs its own calls (D8)."""
    global _process_lock, serving
    serving = False
    _threads.forked()
    DeferScope._lock = threading.Lock()
    _scope.forks += 1
    _process_lock = threading.Lock()
    _runner.running.clear()
    held.clear()
    waiting.clear()
    for runner in list(runners):
        runner.forked()
    current.set(None)
    _reporting.forked()
    for begin in forks:
        begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
