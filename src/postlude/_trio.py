"""Under trio there is no asyncio loop: work stays with its coroutine (D3).

Needs `trio`, which is there when code runs under it. hypercorn's trio worker is the one
server that does.
"""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

import trio

from postlude import _call, _reporting, _runner
from postlude._background import background
from postlude._outcome import Outcome
from postlude._scope import KEY, DeferScope, current, reset
from postlude._settings import in_force

if TYPE_CHECKING:
    from postlude._call import DeferredCall
    from postlude._types import (
        Around,
        ASGIApp,
        ASGIScope,
        Carrier,
        Message,
        Receive,
        Send,
    )


class _Exchange(DeferScope):
    """One request or WebSocket under trio."""

    runner = background
    _status: int | None = None
    _gone: str | None = None

    def __init__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        super().__init__()
        self._asgi = scope
        self._receive = receive
        self._send = send

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] in {"http.disconnect", "websocket.disconnect"}:
            self._gone = "client disconnected"
        return message

    def send(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            if in_force().server_timing:
                timing = (b"server-timing", self.timing().encode())
                headers = [*message.get("headers", ()), timing]
                message = {**message, "headers": headers}
            if _call.carrier is not None:
                self._secured = True  # first, as in asgi
                if self._durables:
                    return self._send_head(message, _call.carrier)
        return self._send(message)

    async def _send_head(self, message: Message, carrier: Carrier) -> None:
        """Send the head when what must survive this process has been written (F2)."""
        try:
            await trio.to_thread.run_sync(carrier.secure, self)
        except BaseException:
            self._status = None  # this head never leaves
            raise
        await self._send(message)

    def _judge(self) -> Outcome:
        if self._asgi["type"] == "http":
            return Outcome.of_response(self._status, self._exception, self._gone)
        return Outcome.of_block(self._exception)


async def serve(
    app: ASGIApp, around: Around | None, scope: ASGIScope, receive: Receive, send: Send
) -> None:
    """Serve one connection; its calls run before this coroutine ends."""
    exchange = _Exchange(scope, receive, send)
    if around is not None:
        exchange.surround(around)
    scope[KEY] = exchange
    token = current.set(exchange)
    try:
        await app(scope, exchange.receive, exchange.send)
    except BaseException as exc:
        exchange._exception = exc
        reset(token)
        # The server answers once this has left; so these calls go to the background.
        exchange.end(0.05)
        raise
    reset(token)
    if exchange.close():
        await run_in_coroutine(exchange)


async def run_in_coroutine(scope: DeferScope) -> None:
    """Run the calls of a closed unit: async ones here, sync ones in threads."""
    background.register()
    with trio.CancelScope(shield=True):  # cancelling the request cancels no call (B5)
        while (batch := scope.take()) is not None:
            async with trio.open_nursery() as nursery:
                for call in batch if isinstance(batch, list) else (batch,):
                    call._context.run(nursery.start_soon, _run, scope, call)


async def _run(scope: DeferScope, call: DeferredCall) -> None:
    if call.is_async:
        await _await(scope, call, None)
    else:
        result: Any = None
        async with trio.open_nursery() as nursery:
            if call._timeout is not None:
                nursery.start_soon(_expire, nursery.cancel_scope, call, call._timeout)
            # abandon_on_cancel: a time-out gives the thread up, as everywhere (D5).
            (result,) = await trio.to_thread.run_sync(
                partial(_boxed, [(scope, call)]),
                abandon_on_cancel=True,
                limiter=_own_limiter(),
            )
            nursery.cancel_scope.cancel()
        if result is None:
            await _give_up(scope, call)
        elif not isinstance(result, bool):
            await _await(scope, call, result)
    call._context = _runner.OVER
    del call  # as in _runner.execute(); Python 3.12 keeps callers' frames, too
    scope.settled()


async def _expire(limit: trio.CancelScope, call: DeferredCall, seconds: float) -> None:
    """Cancel a call's time when it is over, which begins when its thread has begun."""
    left = seconds
    while left > 0:
        await trio.sleep(left)
        began = call.started
        left = seconds if began is None else began + seconds - monotonic()
    limit.cancel()


async def _give_up(scope: DeferScope, call: DeferredCall) -> None:
    """Give up a call in a thread, which may be about to begin it, or to settle it."""
    while _runner.give_up(call, "timed_out") is None:
        if call.state != "running":
            return
        await trio.sleep(0.001)
    _reporting.timed_out(scope, call, "is still running in its thread")


def _boxed(job: list[tuple[DeferScope, DeferredCall]]) -> tuple[Any]:
    """Hide an awaitable result: trio takes it for a mistake of the caller's.

    *job* is emptied: frames of trio's thread would keep the call in its traceback.
    """
    scope, call = job.pop()
    try:
        return (_runner.execute(scope, call),)
    finally:
        del call


async def _await(scope: DeferScope, call: DeferredCall, awaitable: Any) -> None:
    if awaitable is None:
        call.started = monotonic()
        _runner.running[call] = scope
        if (
            call._handle is not None
            and call._handle.asks
            and not await trio.to_thread.run_sync(
                _runner.begun, call, limiter=_own_limiter()
            )
        ):
            return
    error: BaseException | None = None
    with trio.move_on_after(call._timeout or float("inf")) as limit:
        try:
            if call.exception is not None:  # its condition raised
                raise call.exception
            await _runner.aobserved(scope._around, call, awaitable)
        except trio.Cancelled:
            raise
        except BaseException as exc:  # noqa: BLE001 - D2
            error = exc
    if limit.cancelled_caught:
        if _runner.give_up(call, "timed_out") is not None:
            _reporting.timed_out(scope, call, "was cancelled")
    elif call._handle is None or not (call._handle.asks or error is not None):
        _runner.conclude(call, error)
    else:  # it may wait for the queue
        await trio.to_thread.run_sync(
            _runner.conclude, call, error, limiter=_own_limiter()
        )
    del scope, call, error  # as in _runner.execute()


_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("postlude")


def _own_limiter() -> trio.CapacityLimiter:
    try:
        return _limiter.get()
    except LookupError:
        limiter = trio.CapacityLimiter(in_force().threads)
        _limiter.set(limiter)
        return limiter
