"""Runs calls on an asyncio loop: the async twin of `_runner` (D1, D2, D3)."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from postlude import _process, _reporting, _runner, _scope, _threads
from postlude._atasks import LoopTasks, is_unbegun, place
from postlude._process import LIGHT
from postlude._scope import DeferScope, held
from postlude._settings import in_force
from postlude._waiting import Keepers
from postlude.exceptions import DRAIN_ON_LOOP
from postlude.instrumentation import _instruments

if TYPE_CHECKING:
    from postlude._call import DeferredCall
    from postlude._types import Runner

# Measured: after the last `send`, uvloop needs one turn of the loop before the bytes
# are written, daphne two; 1 ms is enough on every server, and lets the units that end
# within it share one timer and one hop to the threads.
_PAUSE = 0.001
_UNSURE_PAUSE = 0.01
"""The same under granian, whose Rust threads write after `send` has returned. Measured:
calls that began 1 ms later were early by up to 0.4 ms, one in 200."""


class LoopRunner(LoopTasks):
    """Runs the units of one event loop. One per loop: `runner_for()`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._pause = _UNSURE_PAUSE if "granian.asgi" in sys.modules else _PAUSE
        self._light = 0
        """How many units there may be before each is counted; set now and then."""
        self._batch: list[DeferScope] = []
        self._timer: asyncio.TimerHandle | None = None
        self._looks = False
        self._keepers = Keepers(loop)
        _process.register(self)

    # -- units --------------------------------------------------------------

    def resume(self, scope: DeferScope, delay: float = 0.0) -> None:
        """Run what *scope* has pending, from the next millisecond on. Any thread."""
        if _process.admit(scope):
            scope.on_loop = True
            if not self._soon(self._enqueue, scope, delay):
                self._leave_to_fallback(scope).resume(scope, delay)

    def end(self, scope: DeferScope) -> None:
        """End a unit and run its calls: `scope.end()` on the loop's own thread.

        The road of every request that defers, so it is all in one place.
        """
        scope._ended = True  # first, as in close()
        if _instruments.instruments:
            scope.last_byte = monotonic()
        calls = scope._calls
        if not calls or scope._born != _scope.forks:
            return
        mine = [len(calls)]
        if held.setdefault(scope, mine) is not mine or (
            _scope.interceptor is not None and scope._intercepted()
        ):
            return
        scope._ok = scope._finished = scope.wake = None
        scope.stay = False
        if (mine[0] > LIGHT or len(held) > self._light) and not _process.admit(scope):
            return
        if not self.lifespans:
            self._keepers.keep(scope)
        scope.on_loop = True
        self._batch.append(scope)
        if self._timer is None:
            self._timer = self.loop.call_later(self._pause, self._flush)

    def _enqueue(self, scope: DeferScope, delay: float) -> None:
        if not self.lifespans:
            self._keepers.keep(scope)
        if delay > self._pause:
            self.loop.call_later(delay, self._step, scope)
            return
        self._batch.append(scope)
        if self._timer is None:
            self._timer = self.loop.call_later(self._pause, self._flush)

    def adopt(self, scope: DeferScope) -> None:
        """Take over a unit that somebody else began to run."""
        if not self.lifespans:
            self._keepers.keep(scope)

    def step(self, scope: DeferScope, delay: float) -> None:
        """Begin what a unit has next, *delay* seconds from now. Any thread."""
        self._soon(self.loop.call_later, delay, self._step, scope)

    def _flush(self) -> None:
        batch, self._batch, self._timer = self._batch, [], None
        limits = in_force()
        self._light = limits.max_pending // LIGHT
        threads = _threads.threads()
        threads.see()
        sync: list[DeferScope] = []
        for scope in batch:
            # None if all were taken back: whoever holds a unit must put it down.
            first = next(iter(scope._calls), None)
            if first is not None and not first.is_async:
                scope.on_loop = False
                sync.append(scope)
            elif (
                not self._waits
                or self._ready
                or first is None
                or place(first) not in self._waits
                or len(self._tasks) >= limits.concurrency
            ):
                self._ready.append((scope, None, None))
            else:
                self._go_on(scope)
        self._begin()
        if sync:
            threads.submit_all(sync)
            if not self._looks:
                self._looks = True
                self.loop.call_later(self._pause, self._look)

    def _look(self) -> None:
        """See whether the threads get on with what they were given."""
        self._looks = _threads.threads().look()
        if self._looks:
            self.loop.call_later(self._pause, self._look)

    def start(
        self, scope: DeferScope, call: DeferredCall, awaitable: Any = None
    ) -> None:
        """Begin an async call, or await what a sync one returned. Any thread."""
        scope.on_loop = True
        if not self._soon(self._line_up, scope, call, awaitable):
            self._leave_to_fallback(scope).start(scope, call, awaitable)

    # -- the loop's end -----------------------------------------------------

    def _soon(self, step: Callable[..., object], *args: Any) -> bool:
        """Do *step* on the loop: now if this is its thread, else as soon as it can.

        False if the loop is closed, and nothing was done.
        """
        try:
            here = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            here = False
        if here:
            step(*args)
            return True
        try:
            self.loop.call_soon_threadsafe(step, *args)
        except RuntimeError:
            return False
        return True

    def _leave_to_fallback(self, scope: DeferScope) -> Runner:
        """Let the rest of a unit run in the background: its loop is no more."""
        scope.runner = fallback = _process.fallback
        scope.on_loop = False
        return fallback

    def _move(self, scope: DeferScope) -> None:
        """Move a unit of a closed loop; a thread that holds it goes on by itself."""
        free = scope.on_loop
        fallback = self._leave_to_fallback(scope)
        began: list[DeferredCall] = []
        unbegun: list[DeferredCall] = []
        for call in [c for c in self._tasks if _runner.running.get(c) is scope]:
            kind = unbegun if is_unbegun(self._tasks.pop(call)) else began
            kind.append(call)
        for item in [item for item in self._ready if item[0] is scope]:
            self._ready.remove(item)
            if (lined_up := item[1]) is not None:
                (began if item[2] is not None else unbegun).append(lined_up)
        for call in unbegun:
            free = False
            _runner.running.pop(call, None)
            fallback.start(scope, call)
        for call in began:
            if _runner.give_up(call, "lost") is not None:
                _reporting.lost(scope, call, "its event loop was closed")
                free = scope.settled()
        if free:
            fallback.resume(scope)

    def reap(self) -> None:
        """If the loop was closed with calls pending, run them in the background."""
        if self.loop.is_closed():
            for scope in _process.units(self):
                self._move(scope)

    async def adrain(
        self, grace: float, forced: Callable[[], bool] | None = None
    ) -> None:
        """Wait until no call of this loop is left, nested ones included (D7).

        What has not ended after *grace* seconds, or when *forced* says that a second
        signal came, is cancelled and recorded as lost.
        """
        deadline = monotonic() + grace
        _process.begin_to_end()
        while left := _process.units(self):
            if monotonic() >= deadline or (forced and forced()):
                break
            await asyncio.sleep(0.005)  # nothing wakes us for a second signal
        if left:  # it waits for the queue, and the loop need not
            why = "the shutdown's grace was over"
            await self._aside(_process.lose, left, why)
        for task in list(self._tasks.values()):
            task.cancel()
        # After this, some servers end without any other hook.
        for close in _process.closers:
            until = max(deadline, monotonic() + 1.0)
            await self._aside(close, until)
        if _reporting.writes():
            await self._aside(_reporting.flush)

    async def _aside(self, block: Callable[..., object], *args: Any) -> None:
        """Do what blocks in a thread; at interpreter shutdown none may start."""
        try:
            done = self.loop.run_in_executor(None, block, *args)
        except RuntimeError:
            block(*args)
        else:
            await done

    def drain(self, deadline: float) -> None:
        """Wait, blocking, until no call of this loop is left; at interpreter exit."""
        if not _process.units(self):
            return
        if self.loop.is_closed():
            self.reap()
        elif self.loop.is_running():
            _refuse_to_block(self.loop)
            _process.wait_for(self, deadline)
        else:  # stopped without a lifespan: daphne
            self.loop.run_until_complete(self.adrain(deadline - monotonic()))
            self.loop.run_until_complete(self._keepers.gone())

    def turn(self, seconds: float) -> None:
        """Run a loop that has no thread, for a while."""
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def forked(self) -> None:
        """Forget the parent's units in a forked child."""
        self._batch.clear()
        self._looks = False
        self._tasks.clear()
        self._ready.clear()
        self._driver = None


def _refuse_to_block(loop: asyncio.AbstractEventLoop) -> None:
    try:
        here = asyncio.get_running_loop() is loop
    except RuntimeError:
        return
    if here:
        raise RuntimeError(DRAIN_ON_LOOP)


_by_loop: dict[asyncio.AbstractEventLoop, LoopRunner] = {}


def runner_for(loop: asyncio.AbstractEventLoop) -> LoopRunner:
    """Give the runner of *loop*."""
    runner = _by_loop.get(loop)
    if runner is None:
        for other in [r for r in list(_by_loop.values()) if r.loop.is_closed()]:
            _by_loop.pop(other.loop, None)  # first: what it leaves may need a loop
            other.reap()
        runner = _by_loop[loop] = LoopRunner(loop)
    return runner


def _as_runner(runner: LoopRunner) -> Runner:  # pyright: ignore[reportUnusedFunction]  # only to be checked
    return runner  # the type checker proves the protocol here
