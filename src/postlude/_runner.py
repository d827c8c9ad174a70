"""Runs calls in threads: bounded, ordered, isolating (D1, D2, D3, D6)."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context
from queue import SimpleQueue
from threading import current_thread
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from postlude import _reporting
from postlude._call import logger
from postlude._scope import DeferScope, current
from postlude._settings import settings

if TYPE_CHECKING:
    from postlude._call import DeferredCall
    from postlude._types import Around, Runner, State

_monotonic = time.monotonic
running: dict[DeferredCall, DeferScope] = {}
"""The calls that run in this process now."""


# -- one call -----------------------------------------------------------------


def execute(scope: DeferScope, call: DeferredCall) -> Any:
    """Run a sync call here, in its own context; whatever it raises stays here (D2).

    Returns:
        True when the call has settled, False when it was given up while it ran, or
        the awaitable that it returned, which somebody must await for it to settle.
    """
    call.started = _monotonic()
    running[call] = scope
    if call._timeout is not None:
        threads().watch_over()
    try:
        if call.exception is not None:  # its condition raised
            raise call.exception
        if scope._around:
            result = call._context.run(_surrounded, scope._around, call)
        else:
            result = call._context.run(call.fn, *call.args, **call.kwargs)
    except BaseException as exc:  # noqa: BLE001 - D2
        return conclude(call, exc)
    if result is not None and hasattr(result, "__await__"):
        return result
    if running.pop(call, None) is None:
        return conclude(call, None)
    call.state = "done"
    return True


def _surrounded(around: tuple[Around, ...], call: DeferredCall) -> object:
    if not around:
        return call.fn(*call.args, **call.kwargs)
    with around[0].sync():
        return _surrounded(around[1:], call)


async def asurrounded(
    around: tuple[Around, ...], call: DeferredCall, awaitable: Any
) -> None:
    """Await a call, or what it returned, within its framework's surroundings."""
    if around:
        async with around[0].asynchronous():
            await asurrounded(around[1:], call, awaitable)
        return
    result: Any = awaitable or call.fn(*call.args, **call.kwargs)
    if hasattr(result, "__await__"):
        await result


def conclude(call: DeferredCall, exc: BaseException | None) -> bool:
    """Settle a call that ran; False if it had been given up meanwhile."""
    scope = running.pop(call, None)  # whoever gets it out settles it
    if scope is None:
        _reporting.ended_after_all(call)
        return False
    if exc is None:
        call.state = "done"
    else:
        call.state = "failed"
        _reporting.failed(scope, call, exc)
    return True


def give_up(call: DeferredCall, state: State) -> DeferScope | None:
    """Settle a call that still runs; None if it has settled by itself."""
    scope = running.pop(call, None)
    if scope is not None:
        call.state = state
    return scope


# -- capacity ---------------------------------------------------------------

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


# -- threads ------------------------------------------------------------------


class Threads:
    """Postlude's own threads: started when needed, daemonic, one set per process.

    Daemonic although they are waited for: a thread inherits the flag from whoever
    starts it, and a non-daemonic one would hold the interpreter beyond `grace`.

    Work lies in one queue; idle threads wait for a token. At most one token is on its
    way: whoever gets it passes another on if there is more to do. So a burst of short
    calls costs one wake-up, and a burst of slow ones soon has every thread.
    """

    def __init__(self) -> None:
        self._ready: deque[tuple[DeferScope, DeferredCall | None, float]] = deque()
        self._tokens: SimpleQueue[None] = SimpleQueue()
        self._lock = threading.Lock()
        self._waking = False
        self._size = 0
        self._idle = 0
        self._stuck = 0
        self._watch: threading.Thread | None = None
        self._watched = threading.Event()
        self.parked = True
        self.recent = False

    def submit(
        self, scope: DeferScope, call: DeferredCall | None = None, due: float = 0.0
    ) -> None:
        """Have a thread run *call*, then what the unit has next. Any thread.

        *due* (`time.monotonic`) is when the first call may begin.
        """
        self._ready.append((scope, call, due))
        if not self._waking:
            self._wake()

    def _wake(self) -> None:
        with self._lock:
            if self._waking:
                return
            if self._idle:
                self._idle -= 1
            # Stuck threads are replaced, but by no more than there are threads.
            elif self._size < (limit := settings().threads) + min(self._stuck, limit):
                self._size += 1
                try:
                    start_thread(self._work, f"postlude-{self._size}")
                except RuntimeError:  # at interpreter shutdown; drain() helps out
                    self._size -= 1
                    return
            else:
                return  # all are busy, and look again when they are done
            self._waking = True
        self._tokens.put(None)

    def _work(self) -> None:
        while self._tokens.get() is None:
            self._waking = False
            while (item := self._next()) is not None:
                scope, call, due = item
                if self._ready and not self._waking:
                    self._wake()
                if due and (wait := due - _monotonic()) > 0:
                    time.sleep(wait)
                try:
                    stays = run_unit(scope, call) or self._unstuck()
                except BaseException:  # noqa: BLE001 - a bug of ours costs its unit, not the thread
                    logger.exception("Postlude failed in %s", current_thread().name)
                    stays = True
                if not stays:
                    return
                del item, scope, call  # an idle thread keeps nothing alive

    def _next(self) -> tuple[DeferScope, DeferredCall | None, float] | None:
        try:
            return self._ready.popleft()
        except IndexError:
            pass
        with self._lock:
            if self._ready:  # it came while this thread was not yet counted as idle
                return self._ready.popleft()
            self._idle += 1
            return None

    def _unstuck(self) -> bool:
        """Note that a given-up call ended; False if its thread has been replaced."""
        with self._lock:
            self._stuck -= 1
            if self._size > settings().threads + self._stuck:
                self._size -= 1
                return False
            return True

    def help(self) -> bool:
        """Run one queued unit in the calling thread, if no thread is there for it."""
        with self._lock:
            if self._size > self._stuck or not self._ready:
                return False
            scope, call, _due = self._ready.popleft()
        run_unit(scope, call)
        return True

    def watch_over(self) -> None:
        """Look after running calls: their time-outs and the soft limit (D5)."""
        if self._watch is None:
            with self._lock:
                if self._watch is not None:
                    return
                self._watch = start_thread(self._watching, "postlude-watch")
        self._watched.set()

    def _watching(self) -> None:
        reported: set[DeferredCall] = set()
        while True:
            self._watched.clear()
            # Parked only after a second with no call at all: under load, calls come
            # and go many times a millisecond, and each would wake this thread.
            self.parked = not running and not self.recent
            self.recent = False
            wait = None if self.parked else self._look(reported)
            self._watched.wait(wait)

    def _look(self, reported: set[DeferredCall]) -> float:
        now = _monotonic()
        soft = settings().soft_limit
        wait = 1.0
        calls = list(running.items())
        reported.intersection_update([call for call, _ in calls])
        for call, scope in calls:
            if call.started is None:
                continue
            age = now - call.started
            if age >= soft and call not in reported:
                reported.add(call)
                _reporting.slow(call, age)
            if call._timeout is not None and not call.is_async:
                if age >= call._timeout:
                    self._give_up(scope, call)
                else:
                    wait = min(wait, call._timeout - age)
        return wait

    def _give_up(self, scope: DeferScope, call: DeferredCall) -> None:
        """Abandon a sync call at its time-out; its thread ends when the call does."""
        if give_up(call, "timed_out") is None:
            return
        with self._lock:
            self._stuck += 1
        _reporting.timed_out(scope, call, "is still running in its thread")
        if scope.settled():
            self.submit(scope)


def run_unit(scope: DeferScope, call: DeferredCall | None) -> bool:
    """Run *call*, then what the unit has next, until it must go elsewhere.

    False if a call was given up while it ran: somebody else holds the unit now.
    """
    pool = threads()
    pool.recent = True
    if pool.parked:
        pool.watch_over()
    if call is not None:
        result = execute(scope, call)
        if result is not True:
            return _left(scope, call, result)
        if not scope.settled():
            return True
    while (batch := scope.take()) is not None:
        if isinstance(batch, list) or batch.is_async:
            spread(scope, batch)
            return True
        result = execute(scope, batch)
        if result is not True:
            return _left(scope, batch, result)
    return True


def _left(scope: DeferScope, call: DeferredCall, result: Any) -> bool:
    """Leave a unit that goes on elsewhere; False if its call was given up here."""
    if result is False:
        return False
    assert scope.runner is not None  # noqa: S101 - set before any call runs
    scope.runner.start(scope, call, result)
    return True


def spread(scope: DeferScope, batch: DeferredCall | list[DeferredCall]) -> None:
    """Begin what was taken, each call where it belongs."""
    assert scope.runner is not None  # noqa: S101 - set before any call runs
    for call in batch if isinstance(batch, list) else (batch,):
        if call.is_async:
            scope.runner.start(scope, call)
        else:
            threads().submit(scope, call)


def start_thread(target: Callable[[], object], name: str) -> threading.Thread:
    """Start a daemonic thread that inherits no context of whoever needs it first."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    # Free-threaded builds let a thread inherit its starter's context variables.
    Context().run(thread.start)
    return thread


# -- the process: its threads, its fork, its end --------------------------------

fallback: Runner
"""Runs what no loop is left for; set by `postlude._background`."""
runners: WeakSet[Any] = WeakSet()
"""All runners of this process; each has `drain(deadline)`. Drained at its end."""
_threads: Threads | None = None
_process_lock = threading.Lock()


def threads() -> Threads:
    """Give this process's threads."""
    return _threads or _make_threads()


def _make_threads() -> Threads:
    global _threads
    with _process_lock:
        if _threads is None:
            _threads = Threads()
    return _threads


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
    atexit.register(drain)


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


def wait_for(active: dict[DeferScope, int], deadline: float) -> None:
    """Block until *active* is empty; at the deadline record what is left as lost."""
    try:
        while active and _monotonic() < deadline:
            if not threads().help():
                time.sleep(0.005)
    finally:  # a second signal ends at once, and even then nothing is silent
        lose(active, "the process ended before it was done")


def lose(active: dict[DeferScope, int], why: str) -> None:
    """Record all calls of these units that have not ended as lost."""
    for scope in list(active):
        for call in [call for call, unit in list(running.items()) if unit is scope]:
            if give_up(call, "lost") is not None:
                _reporting.lost(scope, call, f"{why}, while it ran")
        for call in scope.abandon():
            if call.state == "pending":
                call.state = "lost"
                _reporting.lost(scope, call, f"{why}, before it began")
        active.pop(scope, None)


def _after_fork() -> None:
    """Begin anew in a forked child: the parent keeps and runs its own calls (D8)."""
    global _threads, _process_lock
    _threads = None
    DeferScope._lock = threading.Lock()
    _process_lock = threading.Lock()
    running.clear()
    for runner in list(runners):
        runner.forked()
    current.set(None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
