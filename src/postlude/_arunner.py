"""Runs calls on an asyncio loop: the async twin of `_runner` (D1, D2, D3)."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections import deque
from collections.abc import Callable
from time import monotonic
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from postlude import _call, _names, _process, _reporting, _runner, _scope, _threads
from postlude._scope import DeferScope, held
from postlude._settings import in_force
from postlude._waiting import Keepers, resolve
from postlude.exceptions import DRAIN_ON_LOOP
from postlude.instrumentation import _instruments
from postlude.transactions._around import check_committed

if TYPE_CHECKING:
    from postlude._call import DeferredCall
    from postlude._types import Handle, Runner, Ticket

# Measured: after the last `send`, uvloop needs one turn of the loop before the bytes
# are written, daphne two; 1 ms is enough on every server, and lets the units that end
# within it share one timer and one hop to the threads.
_PAUSE = 0.001
_UNSURE_PAUSE = 0.01
"""The same under granian, whose Rust threads write after `send` has returned. Measured:
calls that began 1 ms later were early by up to 0.4 ms, one in 200."""
_EARLY = 0.001
"""Seconds that a timer may be early by the other clock."""
_CANCEL_GRACE = 1.0
"""Seconds that a cancelled call has for its cleanup before the next one runs."""


class LoopRunner:
    """Runs the units of one event loop. One per loop: `runner_for()`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.lifespans = 0
        """How many applications on this loop will tell us before it ends."""
        self._pause = _UNSURE_PAUSE if "granian.asgi" in sys.modules else _PAUSE
        self._light = 0
        """How many units there may be before each is counted; set now and then."""
        self._batch: list[DeferScope] = []
        self._timer: asyncio.TimerHandle | None = None
        self._looks = False
        self._tasks: dict[DeferredCall, asyncio.Task[None]] = {}
        self._backlog: deque[tuple[DeferScope, DeferredCall | None, Any]] = deque()
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
        scope._outstanding = 0
        if (mine[0] > _process.LIGHT or len(held) > self._light) and not _process.admit(
            scope
        ):
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
        self._light = limits.max_pending // _process.LIGHT
        threads = _threads.threads()
        threads.see()
        sync: list[DeferScope] = []
        for scope in batch:
            calls = scope._calls
            if calls and not calls[0].is_async:
                scope.on_loop = False
                sync.append(scope)
            elif self._backlog or len(self._tasks) >= limits.concurrency:
                self._backlog.append((scope, None, None))
            else:
                self._begin(scope)
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

    def _step(self, scope: DeferScope) -> None:
        """Begin what the unit has next; the caller holds it."""
        if scope.starts_in_thread():
            scope.on_loop = False
            _threads.threads().submit(scope)
        elif self._backlog or len(self._tasks) >= in_force().concurrency:
            self._backlog.append((scope, None, None))
        else:
            self._begin(scope)

    def _begin(self, scope: DeferScope) -> None:
        """Begin a unit's next call, an async one; or put the unit down."""
        batch = scope.take()
        if isinstance(batch, list):
            _threads.spread(scope, batch)
        elif batch is not None:
            self._start(scope, batch, None)

    # -- calls --------------------------------------------------------------

    def start(
        self, scope: DeferScope, call: DeferredCall, awaitable: Any = None
    ) -> None:
        """Begin an async call, or await what a sync one returned. Any thread."""
        scope.on_loop = True
        if not self._soon(self._start_or_wait, scope, call, awaitable):
            self._leave_to_fallback(scope).start(scope, call, awaitable)

    def _start_or_wait(
        self, scope: DeferScope, call: DeferredCall, awaitable: Any
    ) -> None:
        if len(self._tasks) >= in_force().concurrency:
            self._backlog.append((scope, call, awaitable))
        else:
            self._start(scope, call, awaitable)

    def _start(self, scope: DeferScope, call: DeferredCall, awaitable: Any) -> None:
        if awaitable is None:
            call.started = monotonic()
            _runner.running[call] = scope
            if _threads.unwatched():
                _threads.threads().see()
        task = asyncio.Task(
            self._run(scope, call, awaitable),
            loop=self.loop,
            name="postlude",  # a number would cost more
            context=call._context,
        )
        self._tasks[call] = task
        if self.lifespans and (call._plain or call._timeout is None):
            return
        if not self.lifespans:
            # Nobody says when this loop ends. `asyncio.run` then cancels all tasks that
            # it knows of; the keeper is among them and waits, the calls must not be.
            # Meant for other kinds of tasks (asyncio.tasks.__all__); 3.11 to 3.13.
            asyncio.tasks._unregister_task(task)
        if call._timeout is not None:
            self.loop.call_later(call._timeout, self._expire, scope, call)
        if call._timeout is not None or not self.lifespans:
            # A task that is cancelled before its first step never runs `_run`.
            task.add_done_callback(lambda _task: self._stopped(scope, call))

    async def _run(self, scope: DeferScope, call: DeferredCall, awaitable: Any) -> None:
        """Await one call; whatever it raises ends here (D2).

        As a task's result, `SystemExit` would end the loop, and the server with it.
        """
        error: BaseException | None = None
        handle = call._handle
        if (
            handle is not None
            and handle.asks
            and awaitable is None
            and not await _begun(call, handle)
        ):
            self._done(scope, call, None)
            return
        try:
            if call.exception is not None:  # its condition raised
                raise call.exception
            if (
                scope._around
                or _instruments.instruments
                or (awaitable is not None and call._observers is not None)
            ):
                await _runner.aobserved(scope._around, call, awaitable)
            else:
                _call.here.set(call)
                result: Any = awaitable
                if result is None:
                    result = call.fn(*call.args, **call.kwargs)
                if type(result) is CoroutineType or (
                    result is not None and _names.is_awaitable(result)
                ):
                    await result
                call._context = _runner.OVER
            if scope._gates is not None:
                check_committed(scope, call)
        except BaseException as exc:  # noqa: BLE001 - D2
            error = exc
            call._context = _runner.OVER
        if (
            handle is not None
            and (handle.asks or error is not None)
            and _runner.running.pop(call, None) is not None
        ):
            await _end(scope, call, handle, error)
        self._done(scope, call, error)
        del scope, call, error  # as in _runner.execute()

    def _done(
        self, scope: DeferScope, call: DeferredCall, error: BaseException | None
    ) -> None:
        if self._tasks.pop(call, None) is None:
            return  # done before, or given up: somebody else holds the unit
        if error is None and _runner.running.pop(call, None) is not None:
            call.state = "done"
            if _instruments.instruments:
                _instruments.tell(scope, call)
        elif call.state == "running":
            _runner.conclude(call, error)
        if self._backlog:
            self._work_off()
        if not scope.settled():
            return
        if scope._calls or not scope.put_down():
            self._step(scope)

    def _stopped(self, scope: DeferScope, call: DeferredCall) -> None:
        """See to a call whose task has ended, if it never got to its first step."""
        if call in self._tasks:
            self._done(scope, call, asyncio.CancelledError())

    def _next(self, scope: DeferScope) -> None:
        if scope.settled():
            self._step(scope)

    def _work_off(self) -> None:
        """Begin what waited for other async calls to end (D6)."""
        backlog, self._backlog = self._backlog, deque()
        while backlog and len(self._tasks) < in_force().concurrency:
            waiting, call, awaitable = backlog.popleft()
            if call is None:
                self._step(waiting)
            else:
                self._start(waiting, call, awaitable)
        backlog.extend(self._backlog)
        self._backlog = backlog

    def _expire(self, scope: DeferScope, call: DeferredCall) -> None:
        """Cancel an async call at its time-out (D5)."""
        task = self._tasks.get(call)
        if task is None:
            return
        began = monotonic() if call.started is None else call.started
        left = began + (call._timeout or 0.0) - monotonic()
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
            self._work_off()
            self._next(scope)

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
        unbegun: list[DeferredCall] = []
        for call in [c for c in self._tasks if _runner.running.get(c) is scope]:
            if _is_unbegun(self._tasks.pop(call)):
                unbegun.append(call)
                free = False
            elif _runner.give_up(call, "lost") is not None:
                _reporting.lost(scope, call, "its event loop was closed")
                free = scope.settled()
        fallback = self._leave_to_fallback(scope)
        for call in unbegun:
            if _runner.running.pop(call, None) is not None:
                fallback.start(scope, call)
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
            await self.loop.run_in_executor(None, _process.lose, left, why)
        for task in list(self._tasks.values()):
            task.cancel()
        # After this, some servers end without any other hook.
        for close in _process.closers:
            until = max(deadline, monotonic() + 1.0)
            await self.loop.run_in_executor(None, close, until)
        if _reporting.writes():
            await self.loop.run_in_executor(None, _reporting.flush)

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

    def turn(self, seconds: float) -> None:
        """Run a loop that has no thread, for a while."""
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def forked(self) -> None:
        """Forget the parent's units in a forked child."""
        self._batch.clear()
        self._looks = False
        self._tasks.clear()
        self._backlog.clear()


def _is_unbegun(task: asyncio.Task[None]) -> bool:
    """Tell whether a task was made for a call of which nothing has run yet."""
    run: Any = task.get_coro()
    if inspect.getcoroutinestate(run) != inspect.CORO_CREATED:
        return False
    unbegun = inspect.getcoroutinelocals(run)["awaitable"] is None
    run.close()  # it will not be awaited, and that is no mistake
    return unbegun


def _refuse_to_block(loop: asyncio.AbstractEventLoop) -> None:
    try:
        here = asyncio.get_running_loop() is loop
    except RuntimeError:
        return
    if here:
        raise RuntimeError(DRAIN_ON_LOOP)


async def _begun(call: DeferredCall, handle: Handle) -> bool:
    """Ask the queue that stands behind a call whether it runs here."""
    ticket = handle.beginning(call)
    if ticket is not None:
        call.started = None  # the time that it may take begins afterwards
        await answer(ticket)
        call.started = monotonic()
    return handle.begun(call, ticket)


async def _end(
    scope: DeferScope, call: DeferredCall, handle: Handle, error: BaseException | None
) -> None:
    """Tell the queue that stands behind a call how it ended."""
    ticket = handle.ending(scope, call, error)
    if ticket is not None and error is not None:
        await answer(ticket)
        handle.ended(scope, call, error, ticket)


async def answer(ticket: Ticket) -> None:
    """Wait for a ticket's answer. A cancellation is raised when it has come."""
    loop = asyncio.get_running_loop()
    came = loop.create_future()

    def tell() -> None:
        try:
            loop.call_soon_threadsafe(resolve, came)
        except RuntimeError:  # the loop is closed, and with it whoever waited
            pass

    ticket.on_end(tell)
    cancelled: asyncio.CancelledError | None = None
    while not came.done():
        try:
            await asyncio.shield(came)
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        raise cancelled


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
