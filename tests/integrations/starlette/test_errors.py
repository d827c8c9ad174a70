import pytest
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, RedirectResponse, StreamingResponse
from starlette.routing import Route

from postlude import defer


class OutOfStockError(Exception):
    """What an endpoint raises and a handler answers."""


class Both:
    """Defers a plain call and one that always runs, and keeps them."""

    def __init__(self, events):
        self.events = events

    def __call__(self):
        """Defer both."""
        self.plain = defer(self.events.append, "plain")
        self.always = defer(self.events.append, "always").always()


@pytest.fixture
def defer_both(events):
    """Defer a plain call and one that always runs."""
    return Both(events)


def raising(exception, defer_both):
    """Return a sync and an async endpoint that defer, then raise."""

    def in_thread(request):
        defer_both()
        raise exception

    async def on_loop(request):
        defer_both()
        raise exception

    return {"sync": in_thread, "async": on_loop}


both_kinds = pytest.mark.parametrize("kind", ["sync", "async"])


@both_kinds
@pytest.mark.parametrize("status", [400, 404, 409, 503])
def test_an_http_exception_drops_plain_calls(
    status, kind, application, client, events, defer_both
):
    """After `HTTPException` a plain call is dropped, an always call runs (C1)."""
    endpoint = raising(HTTPException(status), defer_both)[kind]
    assert client(application(Route("/", endpoint))).get("/").status_code == status
    assert events == ["last byte", "always"]
    assert (defer_both.plain.state, defer_both.plain.reason) == ("dropped", "outcome")
    outcome = defer_both.always.outcome
    assert (outcome.ok, outcome.status, outcome.exception) == (False, status, None)


@pytest.mark.parametrize("status", [302, 303, 307, 308])
def test_a_redirect_is_a_success(status, application, client, events, defer_both):
    """After a redirect plain calls run (C1)."""

    async def endpoint(request):
        defer_both()
        return RedirectResponse("/elsewhere", status)

    app = application(Route("/", endpoint))
    assert client(app, follow_redirects=False).get("/").status_code == status
    assert events == ["last byte", "plain", "always"]


@both_kinds
@pytest.mark.parametrize("status", [200, 409])
def test_a_handled_exception_is_judged_by_its_answer(
    status, kind, application, client, events, defer_both
):
    """What an exception handler answers decides, not that there was one (C1)."""

    async def handle(request, exc):
        return PlainTextResponse("handled", status)

    app = application(
        Route("/", raising(OutOfStockError(), defer_both)[kind]),
        exception_handlers={OutOfStockError: handle},
    )
    assert client(app).get("/").text == "handled"
    plain = ["plain"] if status == 200 else []
    assert events == ["last byte", *plain, "always"]
    assert defer_both.always.outcome.exception is None


@both_kinds
def test_an_exception_handler_may_defer(kind, application, client, events):
    """Calls deferred by an exception handler, sync or async, run too (A1)."""

    def in_thread(request, exc):
        defer(events.append, "handled").always()
        return PlainTextResponse("handled", 409)

    async def on_loop(request, exc):
        return in_thread(request, exc)

    async def endpoint(request):
        raise OutOfStockError

    handler = {"sync": in_thread, "async": on_loop}[kind]
    app = application(
        Route("/", endpoint), exception_handlers={OutOfStockError: handler}
    )
    client(app).get("/")
    assert events == ["last byte", "handled"]


def without_bytes(events):
    """Leave out the last bytes.

    Under a client in this process, plain `add_middleware` cannot wait for the 500 that
    is sent outside of it: the client would return before the calls have run (G1).
    """
    return [event for event in events if event != "last byte"]


outermost = pytest.mark.parametrize("installed", ["install", "both"], indirect=True)


@both_kinds
def test_an_unhandled_exception_is_a_failure(
    kind, application, client, events, defer_both
):
    """An unhandled exception drops plain calls; always calls run (C1)."""
    error = OutOfStockError()
    app = application(Route("/", raising(error, defer_both)[kind]))
    response = client(app, raise_server_exceptions=False).get("/")
    assert response.status_code == 500
    assert without_bytes(events) == ["always"]
    assert defer_both.plain.reason == "outcome"
    outcome = defer_both.always.outcome
    assert (outcome.ok, outcome.status) == (False, 500)
    assert outcome.exception is error


@outermost
@both_kinds
@pytest.mark.parametrize("client_raises", [True, False])
def test_calls_follow_the_500(
    client_raises, kind, application, client, events, defer_both
):
    """Installed outermost, calls begin after the last byte of the 500 (B1)."""
    app = application(Route("/", raising(OutOfStockError(), defer_both)[kind]))
    running = client(app, raise_server_exceptions=client_raises)
    if client_raises:
        with pytest.raises(OutOfStockError):
            running.get("/")
    else:
        running.get("/")
    assert events == ["last byte", "always"]


@both_kinds
def test_the_client_raises_what_the_endpoint_raised(
    kind, application, client, events, defer_both
):
    """A test client that lets exceptions through lets the calls run first (G1)."""
    error = OutOfStockError()
    app = application(Route("/", raising(error, defer_both)[kind]))
    with pytest.raises(OutOfStockError) as raised:
        client(app).get("/")
    assert raised.value is error
    assert without_bytes(events) == ["always"]


@pytest.mark.parametrize("key", [500, Exception])
def test_the_handler_of_the_500_may_defer(key, application, client, events):
    """The handler of the 500, outside of `add_middleware`, may defer (A1)."""

    async def error_page(request, exc):
        defer(events.append, "reported").always()
        return PlainTextResponse("sorry", 500)

    async def endpoint(request):
        defer(events.append, "audit").always()
        raise OutOfStockError

    app = application(Route("/", endpoint), exception_handlers={key: error_page})
    assert client(app, raise_server_exceptions=False).get("/").text == "sorry"
    assert without_bytes(events) == ["audit", "reported"]


def test_an_exception_after_the_start_is_a_failure(
    application, client, events, defer_both
):
    """A body that breaks in the middle fails the unit, whatever its status (C1)."""

    async def body():
        yield b"begun"
        defer_both()
        raise OutOfStockError

    async def endpoint(request):
        return StreamingResponse(body())

    # Starlette 0.40 lets the group of its tasks through.
    with pytest.raises((OutOfStockError, ExceptionGroup)) as raised:
        client(application(Route("/", endpoint))).get("/")
    assert events == ["always"]
    assert defer_both.plain.reason == "outcome"
    assert defer_both.always.outcome.exception is raised.value


def test_a_failing_call_leaves_the_answer_alone(application, client, events, reported):
    """What a call raises is logged; the answer and later calls are untouched (D2)."""
    error = OutOfStockError()

    def fail():
        raise error

    async def fail_async():
        raise error

    async def endpoint(request):
        defer(fail)
        defer(fail_async)
        defer(events.append, "next")
        return PlainTextResponse("ok")

    assert client(application(Route("/", endpoint))).get("/").text == "ok"
    assert events == ["last byte", "next"]
    assert reported() == [error, error]
