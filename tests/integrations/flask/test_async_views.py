"""A1, D3: async views of Flask, which run on a loop that ends with the view."""

import asyncio
import threading

import pytest
from asgiref.sync import sync_to_async
from flask import current_app

from harness.wire import TIMEOUT
from postlude import DeferScope, defer

both_kinds = pytest.mark.parametrize("kind", ["sync", "async"])


@pytest.fixture
def note(events):
    """Note the application, as a sync or an async call."""

    def sync(what):
        events.append(f"{what} in {current_app.name}")

    async def asynchronous(what):
        await asyncio.sleep(0)
        sync(what)

    return {"sync": sync, "async": asynchronous}


@both_kinds
def test_an_async_view_may_defer(kind, note, app, client, events):
    """Calls of an async view run after its answer, though its loop is gone (A1)."""

    @app.get("/")
    async def endpoint():
        defer(note[kind], "first")
        await asyncio.sleep(0)
        defer(note[kind], "second")
        events.append("answer")
        return "ok"

    client.get("/")
    assert events == ["answer", "first in shop", "second in shop"]


def test_async_hooks_may_defer(note, app, client, events):
    """Async hooks and error handlers defer as sync ones do (A1)."""

    @app.before_request
    async def before():
        defer(note["async"], "before").always()

    @app.errorhandler(404)
    async def missing(error):
        defer(note["async"], "missing").always()
        return "missing", 404

    client.get("/")
    assert events == ["before in shop", "missing in shop"]


def test_a_block_in_an_async_view(note, app, client, events):
    """`async with DeferScope():` in a view runs its calls before it goes on (B6)."""

    @app.get("/")
    async def endpoint():
        defer(note["sync"], "outer")
        async with DeferScope():
            defer(note["sync"], "sync")
            defer(note["async"], "async")
        events.append("answer")
        return "ok"

    client.get("/")
    assert events == ["sync in shop", "async in shop", "answer", "outer in shop"]


def test_awaitables_are_awaited(note, app, client, events):
    """`lambda: coro()` is awaited, in the application's context (A1, D4)."""

    @app.get("/")
    def endpoint():
        defer(lambda: note["async"]("call"))
        return "ok"

    client.get("/")
    assert events == ["call in shop"]


def test_async_calls_share_one_loop(app, client, as_server):
    """Async calls of several requests run on Postlude's own loop (D3)."""
    seen = []
    done = threading.Event()

    async def look():
        seen.append((asyncio.get_running_loop(), threading.current_thread().name))

    @app.get("/")
    async def endpoint():
        await look()
        defer(look)
        defer(done.set)
        return "ok"

    for _ in range(2):
        done.clear()
        client.get("/", **as_server).close()
        assert done.wait(TIMEOUT)
    views, calls = seen[::2], seen[1::2]
    assert calls[0] == calls[1]
    assert calls[0] not in views
    assert calls[0][1].startswith("postlude-")


@pytest.mark.parametrize("view", ["sync", "async"])
def test_async_calls_may_leave_their_loop(view, app, client, events):
    """`sync_to_async` works in an async call, though its view's loop is gone (D3)."""

    def look():
        events.append(current_app.name)

    async def call():
        await sync_to_async(look)()

    @app.get("/sync")
    def in_thread():
        defer(call)
        return "ok"

    @app.get("/async")
    async def on_loop():
        defer(call)
        return "ok"

    client.get(f"/{view}")
    assert events == ["shop"]
