"""Runs units that have no event loop of their own: WSGI, blocks, scripts (B6, D3)."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from postlude import _call, _greenlets, _process, _runner, _scope, _threads
from postlude._log import logger
from postlude.exceptions import SYNC_BLOCK, QueueError

if TYPE_CHECKING:
    import asyncio

    from postlude._arunner import LoopRunner
    from postlude._call import DeferredCall
    from postlude._scope import DeferScope


class BackgroundRunner:
    """Runs sync calls in threads and async ones on a loop of Postlude's own."""

    def __init__(self) -> None:
        self._loop_runner: LoopRunner | None = None
        self._threadless: LoopRunner | None = None
        self._lock = threading.Lock()
        self._registered = False

    def resume(self, scope: DeferScope, delay: float = 0.0) -> None:
        """Run what *scope* has pending, *delay* seconds from now at the earliest."""
        self.register()
        if not _process.admit(scope):
            return
        if _process.over:  # another exit hook defers: there is no later
            run_here(scope)
        elif scope.starts_in_thread():
            due = _runner._monotonic() + delay if delay else 0.0
            _threads.threads().submit(scope, None, due)
        else:  # no thread is needed, and none may be free
            self._loop().step(scope, delay)

    def register(self) -> None:
        """Have the end of the process wait for units that run here."""
        if not self._registered:
            self._registered = True
            _process.register(self)

    def start(
        self, scope: DeferScope, call: DeferredCall, awaitable: Any = None
    ) -> None:
        """Begin an async call on Postlude's own loop, whose thread starts now."""
        self._loop().start(scope, call, awaitable)

    def _loop(self) -> LoopRunner:
        return self._loop_runner or self._start_loop()

    def _start_loop(self) -> LoopRunner:
        import asyncio  # noqa: PLC0415 - only apps with async calls pay for it

        from postlude._arunner import runner_for  # noqa: PLC0415 - as above

        with self._lock:
            if self._loop_runner is None:
                loop = None if _greenlets.are_threads() else asyncio.new_event_loop()
                threadless = False
                try:
                    if loop is None:
                        loop = _greenlets.run_loop_in_thread()
                    else:
                        _threads.start_thread(loop.run_forever, "postlude-loop")
                except RuntimeError:  # Python 3.12 at its end; drain() turns the loop
                    loop = loop or asyncio.new_event_loop()
                    threadless = True
                runner = runner_for(loop)
                runner.lifespans += 1  # it lives as long as the process
                self._loop_runner = runner
                if threadless:
                    self._threadless = runner
            return self._loop_runner

    def take_over(self, scope: DeferScope) -> None:
        """Run a unit here that another runner was meant for."""
        scope.runner = self
        self.register()

    def drain(self, deadline: float) -> None:
        """Wait, blocking, until no call is left."""
        _process.wait_for(self, deadline, self._pause)

    def _pause(self, seconds: float) -> None:
        """Pass time in a drain; turn the loop whose thread could not start any more."""
        if self._threadless is None:
            time.sleep(seconds)
        else:
            self._threadless.turn(seconds)

    def wait(self, event: threading.Event) -> None:
        """Block until *event* is set by what runs here."""
        while self._threadless is not None and not event.is_set():
            self._threadless.turn(0.001)
        event.wait()

    def forked(self) -> None:
        """Forget the parent's units, loop and lock in a forked child."""
        self._loop_runner = self._threadless = None
        self._lock = threading.Lock()


background = BackgroundRunner()
_process.fallback = background


class Blocks:
    """Ends the units of `with` blocks, commands and calls without a unit (B6, A5)."""

    def run(self, scope: DeferScope) -> None:
        """Run the calls of a `with` block in the calling thread."""
        scope.runner = background
        error = _secure(scope)
        if scope.close():
            loop = running_loop()
            if loop is not None:
                _warn_sync_block("its calls blocked the loop while they ran")
            run_here(scope, loop)
        if error is not None:
            raise error

    async def arun(self, scope: DeferScope) -> None:
        """Run the calls of an `async with` block: sync in threads, async right here."""
        if not scope._durables:
            scope._secured = True
            await self._arun(scope)
            return
        # A block's end is no hot road: a thread for it is simpler than a second way.
        errors: list[QueueError | None] = []
        over = threading.Event()

        def secure() -> None:
            errors.append(_secure(scope))
            over.set()

        _threads.do_in_thread(secure, "postlude-secure")
        while not over.is_set():
            await _moment()
        await self._arun(scope)
        if errors[0] is not None:
            raise errors[0]

    async def _arun(self, scope: DeferScope) -> None:
        loop = running_loop()
        if loop is None:  # trio: no asyncio, so the work stays with this coroutine
            from postlude._trio import run_in_coroutine  # noqa: PLC0415 - only there

            scope.runner = background
            if scope.close():
                await run_in_coroutine(scope)
            return
        from postlude._arunner import runner_for  # noqa: PLC0415 - asyncio is there
        from postlude._waiting import wait  # noqa: PLC0415 - as above

        scope.runner = runner_for(loop)
        if scope.end():
            await wait(scope)


_scope.block_runner = Blocks()


def _secure(scope: DeferScope) -> QueueError | None:
    """Write a block's durable calls; if that fails, the block has failed (F2)."""
    if _call.carrier is None or not scope._durables:
        scope._secured = True
        return None
    try:
        _call.carrier.secure(scope)
    except QueueError as exc:
        scope._exception = exc
        return exc
    return None


async def _moment() -> None:
    if running_loop() is not None:
        import asyncio  # noqa: PLC0415 - its loop is running

        await asyncio.sleep(0.001)
    else:
        import trio  # noqa: PLC0415 - only there

        await trio.sleep(0.001)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Give the asyncio loop that runs in this thread, without importing asyncio."""
    module = sys.modules.get("asyncio.events")
    if module is None:
        return None
    loop: asyncio.AbstractEventLoop | None = module._get_running_loop()
    return loop


def run_here(scope: DeferScope, loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Run the calls of a closed unit in the calling thread, async ones on our loop.

    With a running *loop* in this thread, the rest of the unit from its first async
    call on goes to that loop: waiting for it here would wait for ever.
    """
    background.take_over(scope)
    while (batch := scope.take()) is not None:
        calls = batch if isinstance(batch, list) else [batch]
        del batch  # tracebacks keep this frame; it must not keep their calls
        if loop is not None and any(call.is_async for call in calls):
            _continue_on(loop, scope, calls)
            return
        if len(calls) > 1 or calls[0].is_async or calls[0]._timeout is not None:
            _run_elsewhere(scope, calls)
            continue
        result = _runner.execute(scope, calls[0])
        if result is True:
            scope.settled()
        elif loop is not None:
            _continue_on(loop, scope, calls, result)
            return
        else:
            _run_elsewhere(scope, calls, result)
        calls.clear()


def _continue_on(
    loop: asyncio.AbstractEventLoop,
    scope: DeferScope,
    batch: list[DeferredCall],
    awaitable: Any = None,
) -> None:
    from postlude._arunner import runner_for  # noqa: PLC0415 - its loop is running

    _warn_sync_block("its async calls go on in the background")
    runner = runner_for(loop)
    scope.runner = runner
    runner.adopt(scope)
    if awaitable is not None:
        runner.start(scope, batch[0], awaitable)
    else:
        _threads.spread(scope, batch)


def _run_elsewhere(
    scope: DeferScope, batch: list[DeferredCall], awaitable: Any = None
) -> None:
    """Run one batch off this thread and wait for it; this thread keeps the unit."""
    scope.wake = wake = threading.Event()
    try:
        for call in batch:
            if awaitable is not None or call.is_async:
                background.start(scope, call, awaitable)
            else:
                # Not from the pool: blocks inside its calls could use it up and wait.
                _threads.do_in_thread(_Alone(scope, call), "postlude-block")
        background.wait(wake)
    except BaseException:  # Ctrl-C: the unit goes on without this thread
        with scope._lock:
            scope.wake = None
            free = scope._outstanding == 0
        if free:
            background.resume(scope)
        raise
    scope.wake = None


class _Alone:
    """Runs one call in a thread of its own."""

    def __init__(self, scope: DeferScope, call: DeferredCall) -> None:
        self._run = scope, call

    def __call__(self) -> None:
        _threads.run_unit(*self._run)


_warned: set[tuple[str, int]] = set()


def _warn_sync_block(consequence: str) -> None:
    frame = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__")).startswith(
        "postlude."
    ):
        if frame.f_back is None:
            break
        frame = frame.f_back
    place = frame.f_code.co_filename, frame.f_lineno
    if place in _warned:
        return
    _warned.add(place)
    logger.warning(SYNC_BLOCK.format(consequence=consequence, place="%s:%s"), *place)
