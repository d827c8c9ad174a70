"""Runs one call: in its own context, isolated, recorded (D2, D4)."""

from __future__ import annotations

import time
from contextvars import Context
from typing import TYPE_CHECKING, Any

from postlude import _names, _reporting
from postlude._call import here, set_here
from postlude.exceptions import QueueError
from postlude.instrumentation import _instruments
from postlude.transactions._around import check_committed

if TYPE_CHECKING:
    from postlude._call import DeferredCall
    from postlude._scope import DeferScope
    from postlude._types import Around, State

_monotonic = time.monotonic
OVER = Context()
"""The context of calls that have ended. In its own a call is `current_call()`, and the
two would keep each other alive."""
running: dict[DeferredCall, DeferScope] = {}
"""The calls that run in this process now."""


def execute(scope: DeferScope, call: DeferredCall) -> Any:  # noqa: C901 - the road of every sync call, in one place
    """Run a sync call here, in its own context; whatever it raises stays here (D2).

    Returns:
        True when the call has settled, False when it was given up while it ran, or
        the awaitable that it returned, which somebody must await for it to settle.
    """
    call.started = _monotonic()
    running[call] = scope
    enter = call._context.run
    try:
        if not call._plain:
            if call._handle is not None and call._handle.asks and not begun(call):
                return True
            if call.exception is not None:  # its condition raised
                raise call.exception
        if scope._around or _instruments.instruments:
            result = enter(_observed, scope._around, call)
        else:
            enter(set_here, call)
            result = enter(call.fn, *call.args, **call.kwargs)
        if scope._gates is not None:
            check_committed(scope, call)
    except BaseException as exc:  # noqa: BLE001 - D2
        call._context = OVER
        settled = conclude(call, exc)
        # The traceback keeps this frame, and the call the traceback.
        del scope, call, enter
        return settled
    if result is not None and _names.is_awaitable(result):
        return result
    call._context = OVER
    if not call._plain and call._handle is not None and call._handle.asks:
        return conclude(call, None)
    if running.pop(call, None) is None:
        return conclude(call, None)  # which says that it had been given up
    call.state = "done"
    if _instruments.instruments:
        _instruments.tell(scope, call)
    return True


def begun(call: DeferredCall) -> bool:
    """Ask the queue that stands behind a call, blocking, whether it runs here."""
    assert call._handle is not None  # noqa: S101 - asked before
    ticket = call._handle.beginning(call)
    if ticket is not None:
        call.started = None  # the time that it may take begins afterwards
        try:
            ticket.wait()
        except QueueError:  # begun() sees it too
            pass
        call.started = _monotonic()
    return call._handle.begun(call, ticket)


def _observed(around: tuple[Around, ...], call: DeferredCall) -> object:
    here.set(call)
    observers = _instruments.Around(call)
    observers.__enter__()
    try:
        result = _surrounded(around, call)
    except BaseException as exc:
        observers.__exit__(type(exc), exc, exc.__traceback__)
        here.set(None)  # the context and the call would keep each other alive
        del call, observers  # as in execute()
        raise
    if result is not None and _names.is_awaitable(result):
        call._observers = observers  # the call goes on elsewhere, in the same context
    else:
        observers.__exit__(None, None, None)
    here.set(None)  # as above
    return result


def _surrounded(around: tuple[Around, ...], call: DeferredCall) -> object:
    try:
        if not around:
            return call.fn(*call.args, **call.kwargs)
        with around[0].sync():
            return _surrounded(around[1:], call)
    finally:
        del call  # as in execute()


async def aobserved(
    around: tuple[Around, ...], call: DeferredCall, awaitable: Any
) -> None:
    """Await a call, or what it returned, within all that stands around it."""
    here.set(call)
    observers, call._observers = call._observers, None
    if observers is None:
        observers = _instruments.Around(call)
        observers.__enter__()
    try:
        await asurrounded(around, call, awaitable)
    except BaseException as exc:
        observers.__exit__(type(exc), exc, exc.__traceback__)
        raise
    else:
        observers.__exit__(None, None, None)
    finally:
        here.set(None)  # as in _observed()
        del call, observers  # as in execute()


async def asurrounded(
    around: tuple[Around, ...], call: DeferredCall, awaitable: Any
) -> None:
    """Await a call, or what it returned, within its framework's surroundings."""
    try:
        if around:
            async with around[0].asynchronous():
                await asurrounded(around[1:], call, awaitable)
            return
        result: Any = awaitable
        if result is None:
            result = call.fn(*call.args, **call.kwargs)
        if _names.is_awaitable(result):
            await result
    finally:
        del call  # as in execute()


def conclude(call: DeferredCall, exc: BaseException | None) -> bool:
    """Settle a call that ran, blocking; False if it had been given up meanwhile."""
    scope = running.pop(call, None)  # whoever gets it out settles it
    if scope is None:
        _reporting.ended_after_all(call)
        return False
    if call._handle is not None:
        ticket = call._handle.ending(scope, call, exc)
        if ticket is not None and exc is not None:
            try:
                ticket.wait()
            except QueueError:  # ended() sees it too
                pass
            call._handle.ended(scope, call, exc, ticket)
    elif exc is None:
        call.state = "done"
        if _instruments.instruments:
            _instruments.tell(scope, call)
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
