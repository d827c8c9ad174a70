"""D3, D4: where calls run, and with whose context."""

import asyncio
import threading
from contextvars import ContextVar

import pytest
from anyio.to_thread import current_default_thread_limiter
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from postlude import defer

request_id = ContextVar("request_id", default="none")


def note(events):
    """Note the request's id."""
    events.append(request_id.get())


async def note_async(events):
    """Note it, as an async call."""
    events.append(request_id.get())


def endpoints(act):
    """Return a sync and an async endpoint that do the same."""

    def in_thread(request):
        act()
        return PlainTextResponse("ok")

    async def on_loop(request):
        return in_thread(request)

    return {"sync": in_thread, "async": on_loop}


both_kinds = pytest.mark.parametrize("kind", ["sync", "async"])


@both_kinds
def test_calls_have_the_values_of_their_call_site(kind, application, client, events):
    """Each call sees context variables as they were where it was deferred (D4)."""

    def act():
        for value in ("first", "second"):
            request_id.set(value)
            defer(note, events)
            defer(note_async, events)
        request_id.set("changed later")

    client(application(Route("/", endpoints(act)[kind]))).get("/")
    assert events == ["last byte", "first", "first", "second", "second"]
    assert request_id.get() == "none"


@both_kinds
def test_calls_have_the_values_that_middleware_set(kind, application, client, events):
    """What pure middleware puts into a context variable reaches the calls (D4)."""

    class RequestId:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            request_id.set("from middleware")
            await self.app(scope, receive, send)

    def act():
        defer(note, events)
        defer(note_async, events)

    app = application(
        Route("/", endpoints(act)[kind]), middleware=[Middleware(RequestId)]
    )
    client(app).get("/")
    assert events == ["last byte", "from middleware", "from middleware"]


@both_kinds
def test_a_call_keeps_its_values_to_itself(kind, application, client, events):
    """What a call sets is not seen by the next one of its unit (D4)."""

    def change():
        request_id.set("mine")

    async def change_async():
        request_id.set("mine")

    def act():
        defer(change)
        defer(note, events)
        defer(change_async)
        defer(note_async, events)

    client(application(Route("/", endpoints(act)[kind]))).get("/")
    assert events == ["last byte", "none", "none"]


@both_kinds
def test_sync_calls_run_in_threads_of_their_own(kind, application, client):
    """Sync calls use neither the loop's thread nor the framework's threads (D3)."""
    threads = []
    borrowed = []

    def look():
        threads.append(threading.current_thread())

    async def look_at_the_loop():
        threads.append(threading.current_thread())
        borrowed.append(current_default_thread_limiter().borrowed_tokens)

    def act():
        defer(look)
        defer(look_at_the_loop)

    client(application(Route("/", endpoints(act)[kind]))).get("/")
    sync, loop = threads
    assert sync.name.startswith("postlude-")
    assert sync is not loop
    assert borrowed == [0]


def test_async_calls_run_on_the_loop_of_the_application(application, client):
    """Async calls run on the loop that served the request (D3)."""
    loops = []

    async def look():
        loops.append(asyncio.get_running_loop())

    async def endpoint(request):
        await look()
        defer(look)
        return PlainTextResponse("ok")

    client(application(Route("/", endpoint))).get("/")
    assert loops[0] is loops[1]


def test_awaitables_of_sync_calls_are_awaited_on_that_loop(application, client):
    """`lambda: coro()` is awaited, on the loop that served the request (A1, D3)."""
    loops = []

    async def look(who):
        loops.append(asyncio.get_running_loop())

    async def endpoint(request):
        await look("endpoint")
        defer(lambda: look("call"))
        return PlainTextResponse("ok")

    client(application(Route("/", endpoint))).get("/")
    assert loops[0] is loops[1]
