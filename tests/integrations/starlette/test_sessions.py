from asyncio import to_thread
from threading import Event

import pytest
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from harness.wire import TIMEOUT
from postlude import TooLateError, defer

CHANGES = {
    "set": lambda session: session.__setitem__("late", True),
    "delete": lambda session: session.__delitem__("user"),
    "pop": lambda session: session.pop("user"),
    "clear": lambda session: session.clear(),
    "update": lambda session: session.update(late=True),
    "setdefault": lambda session: session.setdefault("late", True),
}


def sessions():
    """Return the middleware that keeps sessions in cookies."""
    return Middleware(SessionMiddleware, secret_key="-" * 50)


async def show(request):
    """Answer with what the session holds."""
    return PlainTextResponse(repr(dict(request.session)))


@pytest.fixture
def with_session(application, client):
    """Make a client of an application with sessions; `/` logs in, `/show` shows."""

    def with_session(deferred):
        async def login(request):
            request.session["user"] = "ada"
            defer(deferred, request)
            return PlainTextResponse("hello")

        app = application(
            Route("/", login),
            Route("/show", show),
            middleware=[sessions()],
        )
        return client(app)

    return with_session


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changing_the_session_in_a_call_is_an_error(change, with_session, reported):
    """A change of `request.session` after the answer is a `TooLateError` (B7)."""
    client = with_session(lambda request: change(request.session))
    assert client.get("/").text == "hello"
    (error,) = reported()
    assert isinstance(error, TooLateError)
    assert "the session" in str(error)
    assert client.get("/show").text == "{'user': 'ada'}"


def test_changing_the_session_in_an_async_call_is_an_error(with_session, reported):
    """An async call may not change the session either (B7)."""

    async def change(request):
        request.session["late"] = True

    client = with_session(change)
    client.get("/")
    assert [type(error) for error in reported()] == [TooLateError]


def test_reading_the_session_in_a_call_is_fine(with_session, events, reported):
    """A call may read what the request has put into the session (B7)."""
    client = with_session(lambda request: events.append(request.session["user"]))
    client.get("/")
    assert events == ["last byte", "ada"]
    assert reported() == []


def test_the_session_is_closed_from_the_last_byte_on(application, client, reported):
    """A change is an error as soon as calls run, though middleware still works (B7)."""
    called = Event()

    def change(request):
        try:
            request.session["late"] = True
        finally:
            called.set()

    class Lingering:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            await self.app(scope, receive, send)
            assert await to_thread(called.wait, TIMEOUT)

    async def endpoint(request):
        defer(change, request)
        return PlainTextResponse("ok")

    app = application(
        Route("/", endpoint), middleware=[sessions(), Middleware(Lingering)]
    )
    assert client(app).get("/").text == "ok"
    assert [type(error) for error in reported()] == [TooLateError]
