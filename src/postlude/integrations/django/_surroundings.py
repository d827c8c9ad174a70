"""What Django needs around a deferred call: database connections of its own (D4)."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from contextvars import copy_context
from time import monotonic
from typing import TYPE_CHECKING, Any

import asgiref.sync
from asgiref.sync import AsyncToSync, SyncToAsync, ThreadSensitiveContext, sync_to_async
from django.db import close_old_connections

from postlude import _runner
from postlude.exceptions import TOO_LATE, TooLateError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from django.http import HttpRequest

    from postlude._call import DeferredCall
    from postlude._scope import DeferScope


class Connections:
    """Closes database connections around each call as Django does around a request.

    Calls run in other threads than their request, so its connection is never theirs.
    """

    def __init__(self, request: HttpRequest | None, *, keep: bool = False) -> None:
        """Surround the calls of *request*; *keep* its connections in a test client."""
        self._request = request
        self._keep = keep

    def for_retry(self) -> Connections:
        """Give the same without the request: its session is still open."""
        return Connections(None)

    @contextmanager
    def sync(self) -> Generator[None]:
        """Surround a call in one of Postlude's threads."""
        _move_locals()
        if not self._keep:
            close_old_connections()
        try:
            with self._sealed_session():
                yield
        finally:
            if not self._keep:
                close_old_connections()

    @contextmanager
    def _sealed_session(self) -> Generator[None]:
        """Let a change of `request.session` after the response be an error (B7).

        Django saves a session once, before the response; `modified` tells of a change
        that nobody will ever save.
        """
        session = getattr(self._request, "session", None)
        if session is None:
            yield
            return
        session.modified = False
        yield
        if session.modified:
            raise TooLateError(TOO_LATE.format(what="the session"))

    @asynccontextmanager
    async def asynchronous(self) -> AsyncGenerator[None]:
        """Surround an async call: a thread of its own for its ORM work.

        The context variable that the call brings along names the request's thread,
        which may be waiting for this very call. asgiref offers no public way to replace
        it inside a context that has it; checked on asgiref 3.7 to 3.13.
        """
        _move_locals()
        if self._keep:
            with self._sealed_session():
                yield
            return
        own = ThreadSensitiveContext()
        token = SyncToAsync.thread_sensitive_context.set(own)
        try:
            with self._sealed_session():
                yield
        finally:
            await sync_to_async(close_old_connections)()
            SyncToAsync.thread_sensitive_context.reset(token)
            executor = SyncToAsync.context_to_thread_executor.pop(own, None)
            if executor is not None:
                executor.shutdown(wait=False)


async def run_for_client(scope: DeferScope) -> None:
    """Run a unit's calls for Django's test clients before their answer (G1).

    All in the thread that holds the test's database connection: a call sees what the
    test has not committed.
    """
    _forget_executor()  # that of the thread in which the client closes its response
    while (batch := scope.take()) is not None:
        for call in batch if isinstance(batch, list) else (batch,):
            result: Any = None
            if not call.is_async:
                run = sync_to_async(_runner.execute, thread_sensitive=True)
                result = await run(scope, call)
            if not isinstance(result, bool):
                run_async = _await(scope, call, result)
                loop = asyncio.get_running_loop()
                await loop.create_task(run_async, context=call._context)
            scope.settled()


async def _await(scope: DeferScope, call: DeferredCall, awaitable: Any) -> None:
    if awaitable is None:
        call.started = monotonic()
        _runner.running[call] = scope
    try:
        if call.exception is not None:  # its condition raised
            raise call.exception
        await _runner.aobserved(scope._around, call, awaitable)
    except BaseException as exc:  # noqa: BLE001 - a call's failure is its own (D2)
        _runner.conclude(call, exc)
    else:
        _runner.conclude(call, None)


def _move_locals() -> None:
    """Let Django's language and time zone be those of the request (D4).

    They are asgiref `Local`s, which show nothing in another thread than the one that
    set them, unless asgiref itself moves them. Its own function for that is private;
    checked on asgiref 3.7 to 3.13. It moves the executor of the request's thread too,
    which has nothing to do with this call.
    """
    restore = getattr(asgiref.sync, "_restore_context", None)
    if restore is not None:
        restore(copy_context())
        _forget_executor()


def _forget_executor() -> None:
    if hasattr(AsyncToSync.executors, "current"):
        del AsyncToSync.executors.current
