"""What Django needs around a deferred call: database connections of its own (D4)."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

from asgiref.sync import SyncToAsync, ThreadSensitiveContext, sync_to_async
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

    def __init__(self, request: HttpRequest, *, keep: bool = False) -> None:
        """Surround the calls of *request*; *keep* its connections in a test client."""
        self._request = request
        self._keep = keep

    @contextmanager
    def sync(self) -> Generator[None]:
        """Surround a call in one of Postlude's threads."""
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


async def run_for_async_client(scope: DeferScope) -> None:
    """Run a unit's calls for Django's `AsyncClient` before its answer (G1).

    Sync ones in the thread that holds the test's database connection.
    """
    while (batch := scope.take()) is not None:
        for call in batch if isinstance(batch, list) else (batch,):
            awaitable: Any = None
            if not call.is_async:
                run = sync_to_async(_runner.execute, thread_sensitive=True)
                awaitable = await run(scope, call)
            if not isinstance(awaitable, bool):
                await _await(scope, call, awaitable)
            scope.settled()


async def _await(scope: DeferScope, call: DeferredCall, awaitable: Any) -> None:
    if awaitable is None:
        call.started = monotonic()
        _runner.running[call] = scope
    try:
        result: Any = awaitable or call.fn(*call.args, **call.kwargs)
        await result
    except BaseException as exc:  # noqa: BLE001 - a call's failure is its own (D2)
        _runner.conclude(call, exc)
    else:
        _runner.conclude(call, None)
