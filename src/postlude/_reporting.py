"""What the world is told of calls that did not end as they should."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from postlude._call import logger
from postlude._settings import settings
from postlude.failures import FailureRecord, FailureStore
from postlude.failures.memory import MemoryFailureStore

if TYPE_CHECKING:
    from postlude._call import DeferredCall
    from postlude._scope import DeferScope

_store: FailureStore | None = None
watchers: tuple[Callable[[DeferredCall], object], ...] = ()
"""Who wants to see each failed call; the testing kit."""


def failures() -> FailureStore:
    """Give the failure store of this process."""
    global _store
    if _store is None:
        _store = MemoryFailureStore(settings().failures_kept)
    return _store


def failed(scope: DeferScope, call: DeferredCall, exc: BaseException) -> None:
    """Log once at ERROR with traceback and place, and record (E1)."""
    call.exception = exc
    _record(scope, call, "failed")
    logger.error(
        "deferred call %s failed: %s: %s (deferred at %s)",
        call.name,
        type(exc).__qualname__,
        _text(exc),
        call.site,
        exc_info=exc,
        extra={"postlude_call": call},
    )


def timed_out(scope: DeferScope, call: DeferredCall, what: str) -> None:
    """Log and record a call that had its time; *what* says what becomes of it (D5)."""
    _record(scope, call, "timed_out")
    logger.error(
        "deferred call %s timed out after %s s and %s (deferred at %s)",
        call.name,
        call._timeout,
        what,
        call.site,
        extra={"postlude_call": call},
    )


def lost(scope: DeferScope, call: DeferredCall, why: str) -> None:
    """Log and record a call that could not run or end (D7)."""
    _record(scope, call, "lost")
    logger.error(
        "deferred call %s was lost: %s (deferred at %s)",
        call.name,
        why,
        call.site,
        extra={"postlude_call": call},
    )


def ended_after_all(call: DeferredCall) -> None:
    """Say that a call which was given up has ended by itself."""
    logger.warning(
        "deferred call %s, given up as %s, has ended after all (deferred at %s)",
        call.name,
        call.state,
        call.site,
        extra={"postlude_call": call},
    )


def deaf(call: DeferredCall, seconds: float) -> None:
    """Say that an async call goes on although it was cancelled."""
    logger.warning(
        "deferred call %s is still running %g s after it was cancelled "
        "(deferred at %s)",
        call.name,
        seconds,
        call.site,
        extra={"postlude_call": call},
    )


def slow(call: DeferredCall, seconds: float) -> None:
    """Say that a call is over the soft limit while it still runs (D5)."""
    logger.warning(
        "deferred call %s is still running after %.0f s; work over %g s belongs on a "
        "queue (deferred at %s)",
        call.name,
        seconds,
        settings().soft_limit,
        call.site,
        extra={"postlude_call": call},
    )


def _record(scope: DeferScope, call: DeferredCall, state: str) -> None:
    try:
        for see in watchers:
            see(call)
        failures().add(FailureRecord.of(call, scope.describe(), state))
    except Exception:  # noqa: BLE001 - a failing store hurts nobody (E3)
        logger.exception("the failure store failed; the record is in the log only")


def _text(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception:  # noqa: BLE001 - a str of the user's exception may do anything
        return "<its text raised>"
