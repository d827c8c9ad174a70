"""Runs async calls in tasks of one event loop: many in one, those that wait alone."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Coroutine
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Any

from postlude import _acall, _reporting, _runner, _threads
from postlude._settings import in_force
from postlude.instrumentation import _instruments

if TYPE_CHECKING:
    from postlude._call import DeferredCall
    from postlude._scope import DeferScope

_EARLY = 0.001
"""Seconds that a timer may be early by the other clock."""
_SLICE = 0.001
"""Seconds of calls that do not wait, after which the loop gets its turn."""
_CANCEL_GRACE = 1.0
"""Seconds that a cancelled call has for its cleanup before the next one runs."""


class LoopTasks:
    """The async calls of one loop that are ready, begin and run. On the loop only."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.lifespans = 0
        """How many applications on this loop will tell us before it ends."""
        self._tasks: dict[DeferredCall, asyncio.Task[None]] = {}
        """The calls that wait for something, each in a task of its own."""
        self._ready: deque[tuple[DeferScope, DeferredCall | None, Any]] = deque()
        """What may begin: a unit, a call, or the rest of one that gave an awaitable."""
        self._driver: asyncio.Task[None] | None = None
        """Begins what is ready."""
        self._waits: set[int] = set()
        """The places whose calls have waited for something."""

    def _step(self, scope: DeferScope) -> None:
        """Begin what the unit has next; the caller holds it."""
        if scope.starts_in_thread():
            scope.on_loop = False
            _threads.threads().submit(scope)
        else:
            self._line_up(scope, None, None)

    def _line_up(
        self, scope: DeferScope, call: DeferredCall | None, awaitable: Any
    ) -> None:
        self._ready.append((scope, call, awaitable))
        self._begin()

    def _begin(self) -> None:
        """Have a task begin what is ready, if none will and not too much waits (D6)."""
        if (
            not self._ready
            or self._driver is not None
            or len(self._tasks) >= in_force().concurrency
        ):
            return
        if _threads.unwatched():
            _threads.threads().see()
        self._driver = self._make_task(self._drive(), Context())
        self._driver.add_done_callback(self._driven)

    def _driven(self, task: asyncio.Task[None]) -> None:
        """See that a task has ended; a cancelled one may not have begun."""
        if self._driver is task:
            self._driver = None
            self._begin()

    async def _drive(self) -> None:  # noqa: C901, PLR0912 - the road of most async calls
        """Begin what is ready, one call after another, until one of them waits.

        A task of its own costs an async call as much as all else does, and many calls
        never wait for anything. The first that does has this task to itself from then
        on, and for the others there is a new one. That costs twice: a call from a place
        whose calls have waited before gets a task of its own at once, and so does one
        that has something around it.
        """
        task: Any = self._driver
        ready = self._ready
        began = now = monotonic()
        while ready:
            scope, call, awaitable = ready.popleft()
            while True:
                if call is None:
                    # What _take() does for plain calls, without the call of it.
                    if scope._ok is None:
                        scope._ok = scope._succeeded()
                    line = scope._calls
                    if not line and scope.put_down():
                        break
                    try:
                        call = line.pop(0)
                    except IndexError:  # it was taken back just now
                        continue
                    if call._plain and call.is_async and scope._ok:
                        call.state = "running"
                        scope._outstanding = 1
                    elif (call := self._take(scope, call)) is None:
                        break
                if (
                    awaitable is not None
                    or not call._plain
                    or scope._around
                    or _instruments.instruments
                    or (self._waits and place(call) in self._waits)
                ):
                    self._give_task(scope, call, awaitable)
                    if len(self._tasks) >= in_force().concurrency:
                        return
                    break
                call.started = now = monotonic()
                _runner.running[call] = scope
                remainder = _acall.begin(scope, call)
                if remainder is not None:
                    self._waits.add(place(call))
                    self._note(task, scope, call)
                    self._driver = None
                    self._begin()
                    await remainder
                    del remainder  # as in _runner.execute()
                    self._ended(scope, call)
                    del scope, call
                    return
                call = None
                if (scope._outstanding != 1 or scope.wake) and not scope.settled():
                    break
                # What the call said to "its" task (3.11 to 3.13) is not for the next.
                if now - began > _SLICE or task._must_cancel:
                    ready.appendleft((scope, None, None))
                    return
            del scope, call

    def _go_on(self, scope: DeferScope) -> None:
        """Begin what a held unit has next, while there is room for it."""
        call = self._take(scope)
        if call is None:
            return
        if place(call) in self._waits:
            self._give_task(scope, call, None)
        else:
            self._line_up(scope, call, None)

    def _take(
        self, scope: DeferScope, first: DeferredCall | None = None
    ) -> DeferredCall | None:
        """Give the unit's next call if it is an async one; others start elsewhere."""
        batch = scope.take(first)
        if batch is None or (not isinstance(batch, list) and batch.is_async):
            return batch
        scope.on_loop = False
        _threads.spread(scope, batch)
        return None

    def _give_task(self, scope: DeferScope, call: DeferredCall, awaitable: Any) -> None:
        """Begin a call in a task of its own."""
        if awaitable is None:
            call.started = monotonic()
            _runner.running[call] = scope
        steps = _acall.run(scope, call, awaitable, self._ended)
        task = self._make_task(steps, call._context)
        self._note(task, scope, call)
        if call._timeout is not None or not self.lifespans:
            # A task that is cancelled before its first step never runs its coroutine.
            task.add_done_callback(lambda _task: self._stopped(scope, call))

    def _note(
        self, task: asyncio.Task[None], scope: DeferScope, call: DeferredCall
    ) -> None:
        """Note the task that a call has to itself, and when its time is over."""
        self._tasks[call] = task
        if call._timeout is not None:
            self.loop.call_later(_left(call), self._expire, scope, call)

    def _ended(self, scope: DeferScope, call: DeferredCall) -> None:
        """Go on after a call that waited."""
        if self._tasks.pop(call, None) is not None:  # else deserted
            self._next(scope)

    def _stopped(self, scope: DeferScope, call: DeferredCall) -> None:
        """See to a call whose task has ended, if it never got to its first step."""
        if call in self._tasks:
            if call.state == "running":
                _runner.conclude(call, asyncio.CancelledError())
            self._ended(scope, call)

    def _make_task(
        self, steps: Coroutine[Any, Any, None], context: Context
    ) -> asyncio.Task[None]:
        # A name with a number would cost more.
        task = asyncio.Task(steps, loop=self.loop, name="postlude", context=context)
        if not self.lifespans:
            # Nobody says when this loop ends. `asyncio.run` then cancels all tasks that
            # it knows of; the keeper is among them and waits, the calls must not be.
            # Meant for other kinds of tasks (asyncio.tasks.__all__); 3.11 to 3.13.
            asyncio.tasks._unregister_task(task)
        return task

    def _next(self, scope: DeferScope) -> None:
        """Go on after a call that waited."""
        if scope.settled():
            if self._ready:  # others come first
                self._step(scope)
            else:
                self._go_on(scope)
        self._begin()

    def _expire(self, scope: DeferScope, call: DeferredCall) -> None:
        """Cancel an async call at its time-out (D5)."""
        task = self._tasks.get(call)
        if task is None:
            return
        left = _left(call)
        if left > _EARLY:  # it waited for the queue first, or still does
            self.loop.call_later(left, self._expire, scope, call)
            return
        if _runner.give_up(call, "timed_out") is not None:
            _reporting.timed_out(scope, call, "was cancelled")
        task.cancel()
        self.loop.call_later(_CANCEL_GRACE, self._desert, scope, call)

    def _desert(self, scope: DeferScope, call: DeferredCall) -> None:
        """Go on without a call that does not heed its cancellation."""
        if self._tasks.pop(call, None) is not None:
            _reporting.deaf(call, _CANCEL_GRACE)
            self._next(scope)


def is_unbegun(task: asyncio.Task[None]) -> bool:
    """Tell whether a task was made for a call of which nothing has run yet."""
    steps: Any = task.get_coro()
    if inspect.getcoroutinestate(steps) != inspect.CORO_CREATED:
        return False
    unbegun = inspect.getcoroutinelocals(steps)["awaitable"] is None
    steps.close()  # it will not be awaited, and that is no mistake
    return unbegun


def place(call: DeferredCall) -> int:
    """Give the address of the instruction that deferred a call; cheaper than a key."""
    return id(call._code) + call._lasti


def _left(call: DeferredCall) -> float:
    """Give the seconds that are left of a call's time, if it has begun."""
    began = monotonic() if call.started is None else call.started
    return began + (call._timeout or 0.0) - monotonic()
