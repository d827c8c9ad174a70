import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, Router

from postlude import defer
from postlude.integrations.starlette import PostludeMiddleware, install


class Caller:
    """A middleware of the outer application that defers on both sides."""

    def __init__(self, app, events):
        self.app = app
        self.events = events

    async def __call__(self, scope, receive, send):
        """Serve a request."""
        defer(self.events.append, "outer before").always()
        await self.app(scope, receive, send)
        defer(self.events.append, "outer after").always()


def inner_application(endpoint):
    """Return an application with its own installation."""
    inner = Starlette(routes=[Route("/", endpoint)])
    install(inner)
    return inner


def inner_middleware(endpoint):
    """Return an application with its own middleware."""
    middleware = [Middleware(PostludeMiddleware)]
    return Starlette(routes=[Route("/", endpoint)], middleware=middleware)


def inner_router(endpoint):
    """Return a router with its own middleware."""
    return Router([Route("/", endpoint)], middleware=[Middleware(PostludeMiddleware)])


inner_kinds = pytest.mark.parametrize(
    "inner", [inner_application, inner_middleware, inner_router]
)


@pytest.fixture
def nested(application, client, events):
    """Make a client of an application with an inner one mounted at `/inner`."""

    def nested(inner, endpoint, **options):
        mounted = Mount("/inner", inner(endpoint))
        middleware = [Middleware(Caller, events=events)]
        return client(application(mounted, middleware=middleware), **options)

    return nested


@inner_kinds
def test_a_mounted_application_joins_the_unit(inner, nested, events):
    """Calls of a mounted application wait for the outer one's end, in one line (A8)."""

    async def endpoint(request):
        defer(events.append, "inner")
        return PlainTextResponse("ok")

    assert nested(inner, endpoint).get("/inner/").text == "ok"
    assert events == ["last byte", "outer before", "inner", "outer after"]


@inner_kinds
def test_a_mounted_application_has_the_same_unit(inner, application, client, events):
    """A name inside replaces the call of that name outside: it is one unit (A8)."""

    class Naming(Caller):
        async def __call__(self, scope, receive, send):
            defer(events.append, "replaced").named("mail")
            await self.app(scope, receive, send)

    async def endpoint(request):
        defer(events.append, "first")
        defer(events.append, "mail").named("mail")
        return PlainTextResponse("ok")

    middleware = [Middleware(Naming, events=events)]
    app = application(Mount("/inner", inner(endpoint)), middleware=middleware)
    client(app).get("/inner/")
    assert events == ["last byte", "first", "mail"]


@inner_kinds
def test_a_mounted_application_drops_nothing_of_the_outer_unit(inner, nested, events):
    """The outer unit judges: its answer, not the inner one's opinion, decides (A8)."""

    async def endpoint(request):
        defer(events.append, "inner")
        return PlainTextResponse("missing", 404)

    assert nested(inner, endpoint).get("/inner/").status_code == 404
    assert events == ["last byte", "outer before", "outer after"]


@pytest.mark.parametrize("installed", ["install", "both"], indirect=True)
@inner_kinds
def test_an_error_of_a_mounted_application_is_the_units(inner, nested, events):
    """An exception that leaves a mounted application fails the one unit (A8, C1)."""
    seen = []

    async def endpoint(request):
        seen.append(defer(events.append, "inner").always())
        raise LookupError("no such order")

    client = nested(inner, endpoint, raise_server_exceptions=False)
    assert client.get("/inner/").status_code == 500
    assert "inner" in events
    (call,) = seen
    assert isinstance(call.outcome.exception, LookupError)
