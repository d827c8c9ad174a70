"""D3, D4: where calls run, and with whose context."""

import asyncio
import threading
from contextvars import ContextVar

import pytest
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.utils import translation

from postlude import defer, failure_store

request_id = ContextVar("request_id", default="none")


def views(act):
    """Return a sync and an async view that do the same."""

    def in_thread(request):
        act()
        return HttpResponse("ok")

    async def on_loop(request):
        act()
        return HttpResponse("ok")

    return {"sync": in_thread, "async": on_loop}


both_kinds = pytest.mark.parametrize("kind", ["sync", "async"])


@both_kinds
def test_calls_have_the_values_of_their_call_site(kind, site, get, events):
    """Each call sees context variables as they were where it was deferred (D4)."""

    def note():
        events.append(request_id.get())

    async def note_async(_how="async"):
        await asyncio.sleep(0)
        note()

    def act():
        for value in ("first", "second"):
            request_id.set(value)
            defer(note)
            defer(note_async)
            defer(lambda: note_async("awaitable"))
        request_id.set("changed later")

    site(views(act)[kind])
    get()
    assert events == [*get.sent, *["first"] * 3, *["second"] * 3]


@both_kinds
def test_a_call_keeps_its_values_to_itself(kind, site, get, events):
    """What a call sets is not seen by the next one of its unit (D4)."""

    async def change():
        request_id.set("mine")

    async def note():
        events.append(request_id.get())

    def act():
        request_id.set("the request's")
        defer(request_id.set, "mine")
        defer(change)
        defer(note)
        defer(lambda: events.append(request_id.get()))

    site(views(act)[kind])
    get()
    assert events == [*get.sent, *["the request's"] * 2]


@both_kinds
def test_calls_have_the_language_of_their_request(kind, site, get, events):
    """A mail that is rendered in a call is in the language of its request (D4)."""

    def act():
        translation.activate("de")
        defer(lambda: events.append(translation.get_language()))

    site(views(act)[kind])
    get()
    assert events == [*get.sent, "de"]


@both_kinds
@pytest.mark.parametrize(
    "get", ["wsgi", "wsgi-wrapped", "asgi", "asgi-wrapped"], indirect=True
)
def test_sync_calls_run_in_threads_of_their_own(kind, site, get):
    """On a server, sync calls run in Postlude's threads (D3)."""
    names = []
    site(views(lambda: defer(lambda: names.append(thread_name())))[kind])
    get()
    assert names[0].startswith("postlude-")


def thread_name():
    """Return the name of the running thread."""
    return threading.current_thread().name


SYNC_ONLY = f"{__name__}.sync_only"


def sync_only(get_response):
    """Make a middleware that makes Django leave the loop."""

    def middleware(request):
        return get_response(request)

    return middleware


@both_kinds
@pytest.mark.parametrize("middleware", [(), (SYNC_ONLY,)], ids=["async", "sync-only"])
async def test_async_calls_run_on_the_loop_of_the_server(
    middleware, kind, site, remote, events
):
    """Under ASGI async calls run on the loop that serves, whatever Django does (D3)."""
    loops = []

    async def look():
        loops.append(asyncio.get_running_loop())

    site(views(lambda: defer(look))[kind], *middleware)
    await (await remote(get_asgi_application())).get("/")
    assert loops == [asyncio.get_running_loop()]


def test_the_record_names_the_request(site, get, reported):
    """A failed call's record says which request and route it belonged to (E1)."""

    def view(request):
        defer(int, "no number")
        return HttpResponse("ok")

    site(view)
    get("/orders/7")
    assert len(reported()) == 1
    unit = list(failure_store().list())[-1].unit
    assert (unit["method"], unit["path"], unit["status"]) == ("GET", "/orders/7", 200)
    assert unit["route"] == "^.*$"
