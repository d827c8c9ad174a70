"""Point of the pattern: middleware that logs activity and tracks metrics (A1)."""

import pytest
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from postlude import defer


class PureMiddleware:
    """Defers before and after the handler, as an ASGI middleware."""

    def __init__(self, app, events, name):
        self.app = app
        self.events = events
        self.name = name

    async def __call__(self, scope, receive, send):
        """Serve a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        defer(self.events.append, f"{self.name} before").always()
        try:
            await self.app(scope, receive, send)
        finally:
            defer(self.events.append, f"{self.name} after").always()


class BaseMiddleware(BaseHTTPMiddleware):
    """Defers before and after the handler, as Starlette's own kind of middleware."""

    def __init__(self, app, events, name):
        super().__init__(app)
        self.events = events
        self.name = name

    async def dispatch(self, request, call_next):
        """Serve a request."""
        defer(self.events.append, f"{self.name} before").always()
        response = await call_next(request)
        defer(self.events.append, f"{self.name} {response.status_code}").always()
        return response


def stack(events, *classes):
    """Return these middleware, outermost first, each with its number as its name."""
    return [
        Middleware(cls, events=events, name=f"{number}")
        for number, cls in enumerate(classes)
    ]


def endpoints(events):
    """Return a sync and an async endpoint that defer one call."""

    def in_thread(request):
        defer(events.append, "handler")
        return PlainTextResponse("ok")

    async def on_loop(request):
        return in_thread(request)

    return {"sync": in_thread, "async": on_loop}


both_kinds = pytest.mark.parametrize("kind", ["sync", "async"])


@both_kinds
def test_base_middleware_may_defer_after_the_handler(kind, application, client, events):
    """Stacked `BaseHTTPMiddleware` defers on both sides of the handler (A1)."""
    middleware = stack(events, BaseMiddleware, BaseMiddleware, BaseMiddleware)
    app = application(Route("/", endpoints(events)[kind]), middleware=middleware)
    client(app).get("/")
    assert events == [
        "last byte",
        *("0 before", "1 before", "2 before", "handler"),
        *("2 200", "1 200", "0 200"),
    ]


@both_kinds
def test_pure_middleware_may_defer_after_the_handler(kind, application, client, events):
    """Stacked ASGI middleware defers on both sides, also late (A1, A6)."""
    middleware = stack(events, PureMiddleware, PureMiddleware)
    app = application(Route("/", endpoints(events)[kind]), middleware=middleware)
    client(app).get("/")
    assert events == [
        "last byte",
        *("0 before", "1 before", "handler"),
        *("1 after", "0 after"),
    ]


@both_kinds
@pytest.mark.parametrize(
    "classes",
    [(BaseMiddleware, PureMiddleware), (PureMiddleware, BaseMiddleware)],
    ids=["base-outside", "pure-outside"],
)
def test_both_kinds_of_middleware_together(classes, kind, application, client, events):
    """Both kinds in one stack lose no call, and run none early (A1, B1)."""
    app = application(
        Route("/", endpoints(events)[kind]), middleware=stack(events, *classes)
    )
    client(app).get("/")
    assert events[:4] == ["last byte", "0 before", "1 before", "handler"]
    assert sorted(events[4:]) == sorted(
        f"{number} {'200' if cls is BaseMiddleware else 'after'}"
        for number, cls in enumerate(classes)
    )


def test_middleware_sees_refused_requests_too(application, client, events):
    """The activity log has requests that no route answers and that are refused (A1)."""

    async def refuse(request):
        raise HTTPException(403)

    middleware = stack(events, BaseMiddleware)
    running = client(application(Route("/refused", refuse), middleware=middleware))
    running.get("/refused")
    running.get("/unknown")
    assert events == [
        *("last byte", "0 before", "0 403"),
        *("last byte", "0 before", "0 404"),
    ]


@pytest.mark.parametrize("installed", ["install", "both"], indirect=True)
@pytest.mark.parametrize("client_raises", [True, False])
def test_middleware_may_defer_when_the_handler_raised(
    client_raises, application, client, events
):
    """What middleware defers on the way out of an exception runs after the 500 (A1)."""

    async def fail(request):
        raise LookupError("no such order")

    app = application(
        Route("/", fail), middleware=stack(events, PureMiddleware, PureMiddleware)
    )
    running = client(app, raise_server_exceptions=client_raises)
    if client_raises:
        with pytest.raises(LookupError):
            running.get("/")
    else:
        assert running.get("/").status_code == 500
    assert events == [
        "last byte",
        *("0 before", "1 before"),
        *("1 after", "0 after"),
    ]


def test_middleware_may_defer_after_a_stream(application, client, events):
    """Calls of middleware and body wait together for the end of a stream (A1, B1)."""

    async def body():
        for number in range(3):
            defer(events.append, f"part {number}")
            yield b"part"
            events.append("sent")

    async def endpoint(request):
        return StreamingResponse(body())

    middleware = stack(events, PureMiddleware)
    app = application(Route("/", endpoint), middleware=middleware)
    assert client(app).get("/").text == "partpartpart"
    assert events == [
        *("sent", "sent", "sent"),
        "last byte",
        *("0 before", "part 0", "part 1", "part 2", "0 after"),
    ]


@pytest.mark.parametrize("size", [10, 100_000])
def test_calls_follow_a_compressed_body(size, application, client, events):
    """A body that `GZipMiddleware` sees has left before any call begins (B1)."""

    async def endpoint(request):
        defer(events.append, "handler")
        return PlainTextResponse("x" * size)

    app = application(Route("/", endpoint), middleware=[Middleware(GZipMiddleware)])
    response = client(app).get("/")
    assert len(response.text) == size
    assert ("content-encoding" in response.headers) == (size > 500)
    assert events == ["last byte", "handler"]
