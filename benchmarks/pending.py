"""`python -m benchmarks.pending KIND`: print the bytes that a pending call occupies."""

import asyncio
import gc
import os
import sys
import threading
import tracemalloc
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from typing import Any

from postlude import DeferScope, configure, defer
from postlude.asgi import PostludeMiddleware

CALLS = 10_000
VARIABLES = [ContextVar[str](f"variable_{number}") for number in range(10)]


def nothing() -> None:
    """Stand for a call."""


def measured(fill: Callable[[], object]) -> float:
    """Give the bytes per call that *fill* leaves behind."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = fill()
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    del kept
    return (after - before) / CALLS


def empty() -> float:
    """Measure calls of one unit, made in a context that holds nothing but the unit."""

    def fill() -> DeferScope:
        scope = DeferScope()
        scope.__enter__()  # never left: its calls stay pending
        for _ in range(CALLS):
            defer(nothing)
        return scope

    return Context().run(measured, fill)


def variables() -> float:
    """Measure calls each of which has ten variables of its own in its context.

    What they hold is shared, since it is the app's. What is counted is the context.
    """

    def one() -> None:
        for variable in VARIABLES:
            variable.set("value")
        defer(nothing)

    def fill() -> DeferScope:
        scope = DeferScope()
        scope.__enter__()
        for _ in range(CALLS):
            copy_context().run(one)
        return scope

    return Context().run(measured, fill)


async def units() -> float:
    """Measure requests that have ended, each with one call behind a slow one.

    What the server made for each request (its ASGI scope) is not counted, although it
    lives as long as the call: its size is the server's.
    """
    blocked, free = threading.Event(), threading.Event()
    configure(threads=1, max_pending=100 * CALLS)

    def slow() -> None:
        blocked.set()
        free.wait()

    async def app(scope: dict[str, Any], _receive: Any, send: Any) -> None:
        defer(scope["work"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    wrapped = PostludeMiddleware(app)  # type: ignore[arg-type]
    lifespan = await _started(PostludeMiddleware(_without_lifespan))
    await _serve(wrapped, _scope(slow))
    await asyncio.to_thread(blocked.wait)
    scopes = [_scope(nothing) for _ in range(CALLS)]
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for scope in scopes:
        await _serve(wrapped, scope)
    await asyncio.sleep(0.1)  # the loop hands its last units over within a millisecond
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    free.set()
    lifespan.cancel()
    return (after - before) / CALLS


def _scope(work: Callable[[], object]) -> dict[str, Any]:
    return {"type": "http", "path": "/", "headers": [], "work": work}


async def _serve(app: Any, scope: dict[str, Any]) -> None:
    # As servers do: a task, and with it a context, for each request.
    await asyncio.create_task(app(scope, _receive, _send))


async def _receive() -> dict[str, Any]:
    return await asyncio.Event().wait()  # type: ignore[return-value]


async def _send(_message: dict[str, Any]) -> None:
    pass


async def _without_lifespan(*_: Any) -> None:
    raise NotImplementedError


async def _started(app: Any) -> asyncio.Task[None]:
    """Start the lifespan, so that requests do not stay with their calls."""
    told = asyncio.Event()
    messages = iter([{"type": "lifespan.startup"}])

    async def receive() -> dict[str, Any]:
        return next(messages, None) or await _receive()

    async def send(_message: dict[str, Any]) -> None:
        told.set()

    task = asyncio.create_task(app({"type": "lifespan"}, receive, send))
    await told.wait()
    return task


if __name__ == "__main__":
    kind = sys.argv[1]
    print(asyncio.run(units()) if kind == "units" else globals()[kind](), flush=True)
    os._exit(0)  # the calls have been measured; nobody needs them to run
