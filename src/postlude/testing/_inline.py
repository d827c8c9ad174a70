"""`inline()`: run at once, and let exceptions through."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Any

from postlude import _scope
from postlude._background import running_loop
from postlude._names import is_async

if TYPE_CHECKING:
    from postlude._call import DeferredCall
    from postlude._scope import DeferScope


class _Inline:
    """Runs every call where it is deferred."""

    def registered(self, call: DeferredCall, scope: DeferScope | None) -> bool:  # noqa: ARG002 - the Interceptor protocol's
        call.state = "running"
        try:
            call._context.run(_run, call)
        except BaseException as exc:
            call.state = "failed"
            call.exception = exc
            raise
        call.state = "done"
        return True

    def holds(self, scope: DeferScope) -> bool:  # noqa: ARG002 - as above
        return False


def _run(call: DeferredCall) -> None:
    result: Any = call.fn(*call.args, **call.kwargs)
    if not (is_async(call.fn) or hasattr(result, "__await__")):
        return
    if running_loop() is None:
        asyncio.run(_await(result))
        return
    # The loop of this thread is busy with the very code that defers.
    thread = _Awaiting(result)
    thread.start()
    thread.join()
    if thread.error is not None:
        raise thread.error


async def _await(awaitable: Any) -> None:
    await awaitable


class _Awaiting(Thread):
    """Awaits one call on a loop of its own."""

    def __init__(self, awaitable: Any) -> None:
        super().__init__(name="postlude-inline", daemon=True)
        self._awaitable = awaitable
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            asyncio.run(_await(self._awaitable))
        except BaseException as exc:  # noqa: BLE001 - raised again where it was deferred
            self.error = exc


@contextmanager
def inline() -> Generator[None]:
    """Run calls at once, in the place that defers them, and let exceptions through.

    Laravel's `withoutDefer`: rules, names and options have no effect (G2). What was
    deferred before stays pending. An async call runs on a loop of its own while the
    deferring code waits.
    """
    before, _scope.interceptor = _scope.interceptor, _Inline()
    try:
        yield
    finally:
        _scope.interceptor = before
