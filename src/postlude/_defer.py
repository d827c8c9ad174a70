"""`defer` and its siblings: what users call."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, ParamSpec

from postlude import _call, _names, _scope, _settings
from postlude._background import background, run_here, running_loop
from postlude._call import DeferredCall
from postlude._scope import DeferScope, current
from postlude._settings import settings
from postlude.exceptions import (
    BAD_DELAY,
    BAD_KEY,
    NO_SCOPE,
    OPTION_NAMES,
    NoScopeError,
    NoScopeWarning,
)
from postlude.transactions import _around
from postlude.transactions._around import close_gates

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["current_call", "current_scope", "defer", "defer_all", "forget", "queue"]

_P = ParamSpec("_P")


def defer(
    fn: Callable[_P, object], /, *args: _P.args, **kwargs: _P.kwargs
) -> DeferredCall:
    """Run `fn(*args, **kwargs)` after the response, from anywhere in a request.

    *fn* may be sync (it runs in Postlude's own threads), async (on the application's
    event loop, under WSGI on Postlude's own), or return an awaitable. It runs with the
    context variables of this place, once the last byte of the response has been handed
    to the server and only if the unit of work succeeded; options on the returned call
    change that. What it raises is logged and recorded and hurts nobody.

    Outside every unit it runs at once, with one warning per place (A5). As a
    decorator, `@defer` above a local function defers that function (A3).

    Raises:
        TypeError: *fn* is not callable, a coroutine object, or a generator function.
        NoScopeError: there is no unit here and the setting `strict` is on.
    """
    try:
        frame = sys._getframe(1)
    except ValueError:  # called from C: a thread's start, a greenlet, atexit
        frame = sys._getframe()
    call = DeferredCall(fn, args, kwargs, copy_context(), frame.f_code, frame.f_lasti)
    scope = current.get()
    if scope is not None and _scope.interceptor is None and _settings.inspects is False:
        if scope._gates is not None or _around.probes:
            close_gates(call, scope)
        call._scope = scope
        scope._calls.append(call)
        if scope._ended:  # after the append, as in add()
            scope._add_late()
    else:
        _register((call,), scope, frame)
    return call


def defer_all(*fns: Callable[[], object]) -> tuple[DeferredCall, ...]:
    """Defer functions that run together once their turn has come (D1).

    The call after the group starts when all of the group have ended. Bind arguments
    with `functools.partial`.

    Raises:
        TypeError: one of *fns* cannot be deferred; none is registered then.
        NoScopeError: there is no unit here and the setting `strict` is on.
    """
    frame = sys._getframe(1)
    code, lasti = frame.f_code, frame.f_lasti
    calls = tuple(DeferredCall(fn, (), {}, copy_context(), code, lasti) for fn in fns)
    group = object()
    for call in calls:
        call._grouped = group
        call._plain = False
    _register(calls, current.get(), frame)
    return calls


def forget(name: str) -> bool:
    """Take back the call of that name in the current unit (C4).

    Returns:
        Whether there was one that had not started.
    """
    scope = current.get()
    return scope is not None and scope.forget(name)


def current_call() -> DeferredCall | None:
    """Give the deferred call that runs here, or None outside of one.

    Its `id` is the same in every attempt, in this process and on the queue: what a
    receiver needs to tell a second delivery from a second order. `attempt` counts from
    1. In a thread that the call started by hand it is None.
    """
    return _call.here.get()


def queue(
    fn: Callable[..., object],
    /,
    *args: Any,
    delay: float = 0.0,
    key: str | None = None,
    retries: int = 3,
    backoff: float | Sequence[float] = 2.0,
    **kwargs: Any,
) -> DeferredCall:
    """Have a worker run `fn(*args, **kwargs)`, never this process.

    In a request it is written to the queue before the response, and begun after it, if
    the unit of work succeeded; outside of one it is written at once.

    Args:
        fn: a function of a module; also async.
        *args: its arguments, written down now.
        delay: seconds before which nobody begins it.
        key: while a job of this key is known, another of it is not taken.
        retries: further runs after the first, if it fails.
        backoff: seconds between runs, as in `.retry()`.
        **kwargs: more of its arguments.

    Raises:
        TypeError: *fn* cannot be called, or has a parameter named like one of these.
        ValueError: *delay*, *retries* or *backoff* is none.
        NoQueueError: no queue is configured.
        QueueOptionError: the engine cannot do that.
        QueueError: outside of a unit, the queue cannot be reached.
        ArgumentError: the function or an argument cannot be carried.
    """
    frame = sys._getframe(1)
    call = DeferredCall(fn, args, kwargs, copy_context(), frame.f_code, frame.f_lasti)
    _refuse_names(fn)
    if not isinstance(key, (str, type(None))) or key == "":
        raise TypeError(BAD_KEY.format(key=key))
    if (pause := _call.seconds(delay)) is None:
        raise ValueError(BAD_DELAY.format(delay=delay))
    call._backed("queue", lambda carrier: carrier.send(call, pause, key))
    call.retry(retries, backoff=backoff)
    scope = current.get()
    if scope is None and _scope.interceptor is None:
        _send_now(call)
        return call
    _register((call,), scope, frame)
    if call.state == "pending" and _call.carrier is not None:
        _call.carrier.collect(call)
    return call


_OWN = ("delay", "key", "retries", "backoff")


def _refuse_names(fn: object) -> None:
    taken = [name for name in _OWN if name in _names.parameters(fn)]
    if taken:
        names = " and ".join(taken)
        short = _names.short(fn)
        raise TypeError(
            OPTION_NAMES.format(names=names, fn=short, short=short, first=taken[0])
        )


def _send_now(call: DeferredCall) -> None:
    """Write a job outside every unit, where no end is waited for."""
    close_gates(call, None)
    if call._gates is None and running_loop() is None and _call.carrier is not None:
        _call.carrier.write(call)
        return
    scope = DeferScope()
    scope.runner = background
    scope.add(call)
    if _call.carrier is not None:
        _call.carrier.join(call)
    scope.end()  # in a thread, or after the commit; what fails there is recorded


def current_scope() -> DeferScope | None:
    """Give the unit that collects here, or None outside every unit."""
    return current.get()


def _register(
    calls: tuple[DeferredCall, ...], scope: DeferScope | None, frame: FrameType
) -> None:
    """Hand calls to the testing kit, to their unit, or run them for want of one."""
    if _settings.inspecting():
        from postlude._inspector import look  # noqa: PLC0415 - not in production

        for call in calls:
            look(call, scope, frame)
    interceptor = _scope.interceptor
    if interceptor is not None:
        calls = tuple(c for c in calls if not interceptor.registered(c, scope))
    for call in calls:
        close_gates(call, scope)
    if scope is not None:
        for call in calls:
            scope.add(call)
    elif calls:
        _without_scope(calls, frame)


_warned: set[tuple[object, int]] = set()


def _without_scope(calls: tuple[DeferredCall, ...], frame: FrameType) -> None:
    """Run calls for which no unit collects, at once; or refuse them (A5)."""
    name = calls[0].name
    if settings().strict:
        for call in calls:
            call._drop("cancelled")
        raise NoScopeError(NO_SCOPE.format(name=name, consequence="was not registered"))
    gated = any(call._gates is not None for call in calls)
    consequence = "runs after the commit" if gated else "ran at once"
    place = (calls[0]._code, calls[0]._lasti)
    if place not in _warned:
        _warned.add(place)
        warnings.warn_explicit(
            NO_SCOPE.format(name=name, consequence=consequence),
            NoScopeWarning,
            frame.f_code.co_filename,
            frame.f_lineno,
        )
    scope = DeferScope()
    for call in calls:
        call._context.run(current.set, scope)  # what it defers itself joins it (A7)
        scope.add(call)
        if call._gates is None:
            call._scope = None  # options that come after it ran have nothing to change
    loop = running_loop()
    if loop is not None and calls[0].is_async:
        from postlude._arunner import runner_for  # noqa: PLC0415 - its loop is running

        scope.runner = runner_for(loop)
        scope.end()
        return
    scope.runner = background
    if scope.close():
        run_here(scope, loop)


def _choose_queue(chosen: _settings.Settings) -> None:
    """Take the job engine that the settings name, when they are read."""
    if chosen.queue is None and _call.carrier is None:
        return
    from postlude.queues import _opening  # noqa: PLC0415 - few have one

    _opening.install(chosen.queue)


_settings.when_loaded.append(_choose_queue)
