"""Runs one async call from its first step to its last (D2, D4)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from time import monotonic
from types import CoroutineType, coroutine
from typing import TYPE_CHECKING, Any

from postlude import _names, _runner
from postlude._call import set_here
from postlude._waiting import answer
from postlude.instrumentation import _instruments
from postlude.transactions._around import check_committed

if TYPE_CHECKING:
    from postlude._call import DeferredCall
    from postlude._scope import DeferScope
    from postlude._types import Handle


def begin(scope: DeferScope, call: DeferredCall) -> Coroutine[Any, Any, None] | None:
    """Run a plain call in a plain unit, in its own context, until it has to wait (D4).

    Returns:
        What must be awaited, then, for it to settle; None: it has settled.
    """
    enter: Callable[..., Any] = call._context.run
    step: Any = None
    try:
        enter(set_here, call)
        step = enter(call.fn, *call.args, **call.kwargs)
        if type(step) is not CoroutineType:
            step = _awaiting(step)
        try:
            waits_for = enter(step.send, None)  # pyright: ignore[reportUnknownMemberType]
        except StopIteration:
            pass  # and out of here: it is nothing that an error happened in
        else:
            return _rest(scope, call, step, waits_for)  # pyright: ignore[reportUnknownArgumentType]
        if scope._gates is not None:
            check_committed(scope, call)
    except BaseException as exc:  # noqa: BLE001 - D2
        call._context = _runner.OVER
        remainder = None
        if call._handle is not None:
            remainder = _end(scope, call, call._handle, exc)
        elif call.state == "running":
            _runner.conclude(call, exc)
        del scope, call, enter, step  # as in _runner.execute()
        return remainder
    call._context = _runner.OVER
    if _runner.running.pop(call, None) is not None:
        call.state = "done"
    return None


async def _awaiting(result: Any) -> None:
    """Await what a call gave that is no coroutine, if it can be awaited."""
    if _names.is_awaitable(result):
        await result


async def _rest(
    scope: DeferScope,
    call: DeferredCall,
    step: Coroutine[Any, Any, Any],
    waits_for: Any,
) -> None:
    """Await a call that has begun to wait, in its own context; nothing is raised."""
    error: BaseException | None = None
    try:
        await rest(call._context.run, step, waits_for)
        if scope._gates is not None:
            check_committed(scope, call)
    except BaseException as exc:  # noqa: BLE001 - D2
        error = exc
    call._context = _runner.OVER
    if error is not None and call._handle is not None:
        await _end(scope, call, call._handle, error)
    elif call.state == "running":
        _runner.conclude(call, error)
    del scope, call, step, error  # as in _runner.execute()


async def run(  # noqa: C901 - the road of every call that has a task, in one place
    scope: DeferScope,
    call: DeferredCall,
    awaitable: Any,
    after: Callable[[DeferScope, DeferredCall], None],
) -> None:
    """Await one call, and then call *after*; whatever it raises ends here (D2).

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
        after(scope, call)
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
            set_here(call)
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
    if handle is not None and (handle.asks or error is not None):
        await _end(scope, call, handle, error)
    elif error is None and _runner.running.pop(call, None) is not None:
        call.state = "done"
        if _instruments.instruments:
            _instruments.tell(scope, call)
    elif call.state == "running":
        _runner.conclude(call, error)
    after(scope, call)
    del scope, call, error  # as in _runner.execute()


@coroutine
def rest(
    enter: Callable[..., Any], step: Coroutine[Any, Any, Any], waits_for: Any
) -> Generator[Any, Any, None]:
    """Await the rest of a coroutine that has begun, in its own context (D4).

    As `yield from` does: https://peps.python.org/pep-0380/#formal-semantics
    """
    go: Callable[[Any], Any]
    while True:
        try:
            given = yield waits_for
            go = step.send
        except GeneratorExit:
            enter(step.close)
            raise
        except BaseException as exc:  # noqa: BLE001 - it is the coroutine's
            given, go = exc, step.throw
        try:
            waits_for = enter(go, given)
        except StopIteration:
            del enter, step, go  # as in _runner.execute()
            return
        finally:
            given = None  # as above: an exception's traceback keeps this frame


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
    """Tell the queue that stands behind a call how it ended, unless it was given up."""
    if _runner.running.pop(call, None) is None:
        return
    ticket = handle.ending(scope, call, error)
    if ticket is not None and error is not None:
        await answer(ticket)
        handle.ended(scope, call, error, ticket)
