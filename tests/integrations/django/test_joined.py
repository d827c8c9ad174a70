"""A8: Django's middleware inside the middleware of the protocol."""

import asyncio

import pytest
from django.core.asgi import get_asgi_application
from django.http import HttpResponse

from postlude import asgi, current_scope, defer

wrapped = pytest.mark.parametrize(
    "get", ["wsgi-wrapped", "asgi-wrapped"], indirect=True
)


async def note(events, what):
    """Note, as an async call."""
    events.append(what)


def views(act):
    """Return a sync and an async view that do the same."""

    def in_thread(request):
        return act()

    async def on_loop(request):
        return act()

    return {"sync": in_thread, "async": on_loop}


both_kinds = pytest.mark.parametrize("kind", ["sync", "async"])


@wrapped
@both_kinds
def test_calls_run_once(kind, site, get, events):
    """Installed twice, each call runs once (A8)."""
    units = []

    def act():
        units.append(current_scope())
        defer(events.append, "mail")
        defer(note, events, "metrics")
        events.append("answer")
        return HttpResponse("ok")

    site(views(act)[kind])
    assert get() == (200, b"ok")
    assert events == ["answer", "last byte", "mail", "metrics"]
    assert type(units[0]).__name__ == "Exchange"


@wrapped
@both_kinds
@pytest.mark.parametrize("middleware", [True, False])
def test_an_exception_is_the_units(middleware, kind, site, get, events):
    """With Django's middleware the outer unit knows what the view raised (C1)."""
    error = LookupError("no such order")
    calls = []

    def act():
        calls.append(defer(events.append, "plain"))
        defer(events.append, "always").always()
        raise error

    options = {} if middleware else {"MIDDLEWARE": []}
    site(views(act)[kind], **options)
    assert get()[0] == 500
    assert events == ["last byte", "always"]
    outcome = calls[0].outcome
    assert (outcome.ok, outcome.status) == (False, 500)
    assert outcome.exception is (error if middleware else None)


@wrapped
@both_kinds
def test_without_djangos_middleware(kind, site, get, events):
    """The protocol's middleware alone runs the calls of views too (A1)."""

    def act():
        defer(events.append, "sync")
        defer(note, events, "async")
        return HttpResponse("ok")

    site(views(act)[kind], MIDDLEWARE=[])
    get()
    assert events == ["last byte", "sync", "async"]


async def test_the_lifespan_drains(site, remote, lifespan, events):
    """The wrapper answers the lifespan for Django, and drains at its end (D7)."""
    started, release = asyncio.Event(), asyncio.Event()

    async def call():
        started.set()
        await release.wait()
        events.append("call")

    def view(request):
        defer(call)
        return HttpResponse("ok")

    site(view)
    app = asgi.PostludeMiddleware(get_asgi_application())
    async with lifespan(app):
        web = await remote(app)
        assert (await web.get("/")).text == "ok"
        await started.wait()
        events.append("answered")
        release.set()
    assert events == ["answered", "call"]
