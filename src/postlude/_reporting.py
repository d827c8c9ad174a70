"""What the world is told of calls that did not end as they should."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from postlude._log import say
from postlude._settings import settings
from postlude.failures import FailureRecord, FailureStore
from postlude.failures.memory import MemoryFailureStore

if TYPE_CHECKING:
    from postlude._call import DeferredCall
    from postlude._scope import DeferScope

_store: FailureStore | None = None
watchers: tuple[Callable[[DeferredCall], object], ...] = ()
"""Who wants to see each failed call; the testing kit."""


def failure_store() -> FailureStore:
    """Give the failure store of this process."""
    global _store
    if _store is None:
        _store = MemoryFailureStore(settings().failures_kept)
    return _store


def failed(scope: DeferScope, call: DeferredCall, exc: BaseException) -> None:
    """Log once at ERROR with traceback and place, and record (E1)."""
    call.exception = exc
    _record(scope, call, "failed")
    kind = type(exc).__qualname__
    text = "deferred call %s failed: %s: %s (deferred at %s)"
    args = call.name, kind, _text(exc), call.site
    say(logging.ERROR, text, *args, call=call, exc_info=exc)


def timed_out(scope: DeferScope, call: DeferredCall, what: str) -> None:
    """Log and record a call that had its time; *what* says what becomes of it (D5)."""
    _record(scope, call, "timed_out")
    text = "deferred call %s timed out after %s s and %s (deferred at %s)"
    say(logging.ERROR, text, call.name, call._timeout, what, call.site, call=call)


def lost(scope: DeferScope, call: DeferredCall, why: str) -> None:
    """Log and record a call that could not run or end (D7)."""
    _record(scope, call, "lost")
    text = "deferred call %s was lost: %s (deferred at %s)"
    say(logging.ERROR, text, call.name, why, call.site, call=call)


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
    limit = settings().soft_limit
    say(logging.WARNING, text, call.name, seconds, limit, call.site, call=call)


def _record(scope: DeferScope, call: DeferredCall, state: str) -> None:
    try:
        for see in watchers:
            see(call)
        failure_store().add(FailureRecord.of(call, scope.describe(), state))
    except BaseException as exc:  # noqa: BLE001 - a failing store hurts nobody (E3)
        text = "the failure store failed; this failure is in the log only"
        say(logging.ERROR, text, exc_info=exc)


def _text(exc: BaseException) -> str:
    try:
        return str(exc)
    except BaseException:  # noqa: BLE001 - a str of the user's may do anything
        return "<its text raised>"
