"""Running a call again from its record, in a thread or on a loop (E2)."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, TypeVar

from postlude._scope import DeferScope, current
from postlude.failures import _attempt
from postlude.failures._attempt import Attempt, RetryResult, refusal

if TYPE_CHECKING:
    from postlude._types import Around
    from postlude.failures._record import FailureRecord
    from postlude.failures._store import FailureStore

__all__ = ["RetryResult", "aretry", "check", "refusal", "retry", "surround"]

own_store: Callable[[], FailureStore]  # installed by postlude._reporting
_tasks: set[object] = set()
_T = TypeVar("_T")


def retry(record: FailureRecord, store: FailureStore | None = None) -> RetryResult:
    """Run the call of *record* again, with all that it defers, and wait for it.

    It runs in a thread of its own, async calls on Postlude's own loop; on a running
    loop use `aretry`. If it ends well, its record is forgotten; if it fails, the record
    is replaced by the new one: same id, one attempt more. Its options (`.timeout()`,
    `.when()`) are not known any more.

    Args:
        record: from the store.
        store: the one that has the record; default: that of this process.

    Raises:
        ArgumentError: it cannot be run again, and the text says why.
        RecordGoneError: somebody else has run or forgotten it.
        StoreError: the store cannot be used now.
        RuntimeError: called on a running event loop.
    """
    if _has_loop():
        raise RuntimeError(
            "retry() was called on a running event loop, and would block it. Usually "
            "it stands in an async function. Use `await aretry(record, store)`."
        )
    outer = current.get()
    return _in_thread(lambda: _run(record, store, outer))


async def aretry(
    record: FailureRecord, store: FailureStore | None = None
) -> RetryResult:
    """Run the call of *record* again, like `retry`: async calls on this loop.

    Sync calls run in Postlude's threads. Cancelling this cancels no call: it runs to
    its end, and its record is dealt with.

    Raises:
        ArgumentError: it cannot be run again, and the text says why.
        RecordGoneError: somebody else has run or forgotten it.
        StoreError: the store cannot be used now.
    """
    outer = current.get()
    if not _has_loop():
        return await _shielded(record, store, outer)
    import asyncio  # noqa: PLC0415 - its loop is running

    run = _arun(record, store, outer)
    task = asyncio.create_task(run, context=Context())
    _tasks.add(task)  # the loop itself holds tasks weakly
    task.add_done_callback(_tasks.discard)
    return await asyncio.shield(task)


async def _shielded(
    record: FailureRecord, store: FailureStore | None, outer: DeferScope | None
) -> RetryResult:
    """Do the same under trio, where a coroutine has the context of its task."""
    import trio  # noqa: PLC0415 - only there

    results: list[RetryResult] = []
    current.set(None)
    try:
        with trio.CancelScope(shield=True):
            results.append(await _arun(record, store, outer))
    finally:
        current.set(outer)
    return results[0]


def check(record: FailureRecord) -> None:
    """See, without running it, whether the call of *record* can be run again.

    Raises:
        ArgumentError: it cannot, and the text says why.
    """
    _attempt.found(record)


def surround(around: Around) -> None:
    """Put a framework's surroundings around every call that is run again (D4)."""
    if around not in _attempt.arounds:
        _attempt.arounds += (around,)


def _run(
    record: FailureRecord, store: FailureStore | None, outer: DeferScope | None
) -> RetryResult:
    attempt = _made(record, store, outer)
    attempt.within(attempt.claim)
    try:
        with attempt.unit:
            attempt.begin()
    finally:
        attempt.within(attempt.settle)
    return attempt.result()


async def _arun(
    record: FailureRecord, store: FailureStore | None, outer: DeferScope | None
) -> RetryResult:
    attempt = await _off_loop(lambda: _made(record, store, outer))
    await _off_loop(lambda: attempt.within(attempt.claim))
    try:
        async with attempt.unit:
            attempt.begin()
    finally:
        await _off_loop(lambda: attempt.within(attempt.settle))
    return attempt.result()


def _made(
    record: FailureRecord, store: FailureStore | None, outer: DeferScope | None
) -> Attempt:
    if store is None:
        store = own_store()  # noqa: F821 - declared above, set by _reporting
    return Attempt(record, store, outer)


def _in_thread(work: Callable[[], RetryResult]) -> RetryResult:
    """Do *work* in a thread and a context of its own, and wait for it.

    So it meets no transaction and no request of whoever asks.
    """
    results: list[RetryResult] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as exc:  # noqa: BLE001 - raised again below
            errors.append(exc)

    thread = threading.Thread(
        target=lambda: Context().run(run), name="postlude-retry", daemon=True
    )
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _has_loop() -> bool:
    """Tell whether an asyncio loop runs in this thread, without importing asyncio."""
    module = sys.modules.get("asyncio.events")
    return module is not None and module._get_running_loop() is not None


async def _off_loop(work: Callable[[], _T]) -> _T:
    """Do what waits for a file or a database in some thread."""
    if _has_loop():
        import asyncio  # noqa: PLC0415 - its loop is running

        return await asyncio.to_thread(work)
    import trio  # noqa: PLC0415 - only there

    return await trio.to_thread.run_sync(work)
