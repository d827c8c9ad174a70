"""A8: Django's middleware inside the middleware of the protocol."""

import asyncio
import io

import httpx
import pytest
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.test import RequestFactory

from postlude import asgi, current_scope, defer, drain, wsgi


@pytest.fixture(params=["wsgi", "asgi"])
def get(request, events, watched, lifespan):
    """Request a page of Django's application inside Postlude's middleware."""

    def get_by_wsgi():
        app = wsgi.PostludeMiddleware(get_wsgi_application())
        started = []
        environ = RequestFactory().get("/").environ
        environ["SERVER_SOFTWARE"] = "a server"
        response = app(environ, lambda *args: started.extend(args))
        try:
            body = b"".join(response)
        finally:
            events.append("last byte")
            response.close()
            drain()
        return int(started[0].split()[0]), body

    async def get_by_asgi():
        app = watched(asgi.PostludeMiddleware(get_asgi_application()))
        transport = httpx.ASGITransport(app, client=("192.0.2.1", 50_001))
        async with (
            lifespan(app),
            httpx.AsyncClient(transport=transport, base_url="http://x") as web,
        ):
            response = await web.get("/")
        return response.status_code, response.content

    if request.param == "wsgi":
        return get_by_wsgi
    return lambda: asyncio.run(get_by_asgi())


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


def test_the_body_of_a_stream_may_defer(site, get, events):
    """What a streamed body defers joins the outer unit (A1, B1)."""

    def parts():
        for number in range(3):
            defer(events.append, number)
            yield f"{number}"

    async def async_parts():
        for part in parts():
            yield part

    def view(request):
        body = async_parts() if hasattr(request, "scope") else parts()
        return StreamingHttpResponse(body)

    site(view)
    assert get() == (200, b"012")
    assert events == ["last byte", 0, 1, 2]


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
def test_calls_follow_a_file(site, get, events):
    """Calls run after the last part of a `FileResponse` (B1)."""

    def view(request):
        defer(events.append, "call")
        return FileResponse(io.BytesIO(b"x" * 300_000), content_type="text/plain")

    site(view)
    assert get() == (200, b"x" * 300_000)
    assert events == ["last byte", "call"]


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
