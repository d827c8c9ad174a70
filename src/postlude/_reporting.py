"""What the world is told of calls that did not end as they should."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from postlude import _call
from postlude._log import say
from postlude._settings import Settings, in_force, settings, when_loaded
from postlude.exceptions import QueueError
from postlude.failures import Batch, FailureRecord, FailureStore, _retry
from postlude.instrumentation import _instruments

if TYPE_CHECKING:
    from postlude._call import DeferredCall
    from postlude._scope import DeferScope
    from postlude._types import Ticket
    from postlude.failures._writer import State, Writer

_KEPT = 1_000
"""Failure records that are kept in memory by default."""
_store: FailureStore | None = None
_making = threading.Lock()
_spec: object = None
_writer: Writer | None = None
"""Writes for a store that may wait for something; none for memory."""
_replaced: list[Writer] = []
"""Writers of stores that other settings named; each writes what it has, and is gone."""
look: State  # installed by postlude._process
"""How many calls are pending, which run since when, and which limits are met."""
watchers: tuple[Callable[[DeferredCall], object], ...] = ()
"""Who wants to see each failed call; the testing kit."""


def failure_store() -> FailureStore:
    """Give the failure store of this process.

    Raises:
        SettingsError: the environment has an unknown or impossible setting.
    """
    settings()
    return _current()


_retry.own_store = failure_store


def _current() -> FailureStore:
    global _store
    if _store is None:
        from postlude.failures.memory import (  # noqa: PLC0415 - not every process has one
            MemoryFailureStore,
        )

        with _making:
            if _store is None:
                _store = MemoryFailureStore(in_force().failures_kept or _KEPT)
    return _store


def prepare() -> None:
    """Load what the first failure needs, so that no request waits for it.

    Raises:
        SettingsError: a setting is unknown or impossible.
    """
    from importlib import import_module  # noqa: PLC0415 - `import postlude` is small

    import_module("postlude._codec")
    settings()
    _current()


def _choose(chosen: Settings) -> None:
    """Take the store and the instruments that the settings name, when they are read."""
    global _spec, _store, _writer
    if chosen.instruments:
        from postlude.instrumentation import _discovery  # noqa: PLC0415 - few say which

        _discovery.install(chosen.instruments)
    if chosen.failures is _spec or chosen.failures == _spec:
        return
    store = None
    if chosen.failures is not None:
        from postlude.failures._opening import open_store  # noqa: PLC0415 - few have one

        store = open_store(chosen.failures)
    before, _spec, _store = _writer, chosen.failures, store
    if before is not None:
        _instruments.uninstall(before)
        _writer = None
        before.close()
        _replaced.append(before)
    if store is not None:
        watch(store)


def watch(store: FailureStore) -> None:
    """Have every call counted for *store*, besides the failures."""
    global _writer
    from postlude.failures._writer import Writer  # noqa: PLC0415 - few have a store

    if _writer is not None:
        _instruments.uninstall(_writer)
    _writer = Writer(store, look)  # noqa: F821 - declared above, set by _process
    _instruments.install(_writer)


def flush(timeout: float = 2.0) -> bool:
    """Wait until all records are in the store; False if they are not."""
    while _replaced:
        _replaced.pop().join(timeout)
    return _writer is None or _writer.flush(timeout)


def writes() -> bool:
    """Tell whether records are written by a thread, which `flush` waits for."""
    return _writer is not None


def forked() -> None:
    """Begin anew in a forked child: the parent writes its own records (D8)."""
    _replaced.clear()
    if _writer is not None:
        watch(_writer.store)


STORE_FAILED = "the failure store failed; this failure is in the log only"
when_loaded.append(_choose)


def failed(
    scope: DeferScope, call: DeferredCall, exc: BaseException
) -> FailureRecord | None:
    """Log once at ERROR with traceback and place, and record (E1)."""
    call.exception = exc
    from postlude._hints import hint  # noqa: PLC0415 - only where something failed

    advice = hint(call, exc)
    if _instruments.instruments:
        _instruments.tell(scope, call)
    record = _record(scope, call, "failed", advice)
    kind = type(exc).__qualname__
    text = "deferred call %s failed: %s: %s (deferred at %s)"
    args: tuple[object, ...] = (call.name, kind, text_of(exc), call.site)
    if advice is not None:
        text += " - hint: %s"
        args += (advice,)
    say(logging.ERROR, text, *args, call=call, exc_info=exc)
    return record


def timed_out(scope: DeferScope, call: DeferredCall, what: str) -> None:
    """Log and record a call that had its time; *what* says what becomes of it (D5)."""
    if call._handle is not None and call._handle.timed_out(scope, call):
        return
    tell(scope, call)
    record = _record(scope, call, "timed_out")
    if call._handle is not None:
        call._handle.failed(call, record)
    text = "deferred call %s timed out after %s s and %s (deferred at %s)"
    say(logging.ERROR, text, call.name, call._timeout, what, call.site, call=call)


def lost(scope: DeferScope, call: DeferredCall, why: str) -> None:
    """Log and record a call that could not run or end, and is not carried (D7)."""
    ticket = carry(call)
    left(scope, call, why, ticket, monotonic() + _GIVEN)


_GIVEN = 2.0
"""Seconds that the queue has to take one call that is lost here."""


def left(
    scope: DeferScope, call: DeferredCall, why: str, ticket: Ticket | None, until: float
) -> None:
    """Settle a call that this process does not finish; waits for the queue *until*."""
    if ticket is not None and _is_taken(call, ticket, until):
        call.state = "handed_over"
        tell(scope, call)
        text = "deferred call %s was handed to the queue: %s (deferred at %s)"
        say(logging.WARNING, text, call.name, why, call.site, call=call)
        return
    tell(scope, call)
    _record(scope, call, "lost")
    text = "deferred call %s was lost: %s (deferred at %s)"
    say(logging.ERROR, text, call.name, why, call.site, call=call)


def carry(call: DeferredCall) -> Ticket | None:
    """Begin to hand over a call that this process does not finish, if it can be."""
    carrier, handle = _call.carrier, call._handle
    ran = call.started is not None
    try:
        if handle is not None:
            return handle.leaving(call, ran=ran)
        return None if carrier is None else carrier.carry(call, ran=ran)
    except BaseException as exc:  # noqa: BLE001 - then it is recorded as lost
        text = "deferred call %s could not be handed to the queue"
        say(logging.ERROR, text, call.name, call=call, exc_info=exc)
        return None


def _is_taken(call: DeferredCall, ticket: Ticket, until: float) -> bool:
    try:
        ticket.wait(max(0.0, until - monotonic()))
    except QueueError as exc:
        text = "deferred call %s could not be handed to the queue: %s"
        say(logging.ERROR, text, call.name, exc, call=call)
        return False
    return True


def tell(scope: DeferScope, call: DeferredCall) -> None:
    """Tell the instruments that a call has ended."""
    if _instruments.instruments:
        _instruments.tell(scope, call)


def keep(record: FailureRecord, text: str, *args: object) -> None:
    """Record and log a failure that is of no call of this process (E1)."""
    say(logging.ERROR, text, *args)
    try:
        _keep(record)
    except BaseException as exc:  # noqa: BLE001 - a failing store hurts nobody (E3)
        say(logging.ERROR, STORE_FAILED, exc_info=exc)


def ended_after_all(call: DeferredCall) -> None:
    """Say that a call which was given up has ended by itself."""
    text = "deferred call %s, given up as %s, has ended after all (deferred at %s)"
    say(logging.WARNING, text, call.name, call.state, call.site, call=call)


def deaf(call: DeferredCall, seconds: float) -> None:
    """Say that an async call goes on although it was cancelled."""
    text = "deferred call %s is still running, %g s after its cancel (deferred at %s)"
    say(logging.WARNING, text, call.name, seconds, call.site, call=call)


def slow(call: DeferredCall, seconds: float) -> None:
    """Say that a call is over the soft limit while it still runs (D5)."""
    text = (
        "deferred call %s is still running after %.0f s; work over %g s belongs on a "
        "queue (deferred at %s)"
    )
    limit = in_force().soft_limit
    say(logging.WARNING, text, call.name, seconds, limit, call.site, call=call)


def _record(
    scope: DeferScope, call: DeferredCall, state: str, advice: str | None = None
) -> FailureRecord | None:
    record = None
    try:
        for see in watchers:
            see(call)
        record = FailureRecord.of(call, scope.describe(), state, advice)
        if not scope.keep(record):
            _keep(record)
    except BaseException as exc:  # noqa: BLE001 - a failing store hurts nobody (E3)
        say(logging.ERROR, STORE_FAILED, exc_info=exc)
    return record


def _keep(record: FailureRecord) -> None:
    if _writer is None or _writer.store.immediate:
        _current().write(Batch((record,)))
    else:
        _writer.failed(record)


def text_of(exc: BaseException) -> str:
    """Give what an exception says, if that can be had."""
    try:
        return str(exc)
    except BaseException:  # noqa: BLE001 - a str of the user's may do anything
        return "<its text raised>"
