"""A1, C1: exception handlers, FastAPI's way."""

import pytest
from fastapi import HTTPException
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from postlude import defer


class OutOfStockError(Exception):
    """What an endpoint raises and a handler answers."""


both_kinds = pytest.mark.parametrize("kind", ["sync", "async"])


def add_handler(app, kind, error, act):
    """Add an exception handler of that kind."""
    if kind == "sync":

        @app.exception_handler(error)
        def in_thread(request, exc):
            return act(exc)

    else:

        @app.exception_handler(error)
        async def on_loop(request, exc):
            return act(exc)


@both_kinds
@pytest.mark.parametrize("status", [200, 303, 409, 503])
def test_a_handler_of_the_users_own(status, kind, app, client, events):
    """A handler defers, and its answer decides which calls run (A1, C1)."""

    def handle(exc):
        defer(events.append, "handler")
        defer(events.append, "report").always()
        return JSONResponse({}, status)

    add_handler(app, kind, OutOfStockError, handle)

    @app.get("/")
    async def endpoint():
        defer(events.append, "endpoint")
        raise OutOfStockError

    client(app, follow_redirects=False).get("/")
    plain = ["endpoint", "handler"] if status < 400 else []
    assert events == ["last byte", *plain, "report"]


def test_a_handler_of_http_exceptions(app, client, events):
    """A handler that replaces FastAPI's own for `HTTPException` defers (A1)."""

    @app.exception_handler(HTTPException)
    async def handle(request, exc):
        defer(events.append, f"refused {exc.status_code}").always()
        return await http_exception_handler(request, exc)

    @app.get("/")
    async def endpoint():
        raise HTTPException(403)

    assert client(app).get("/").status_code == 403
    assert events == ["last byte", "refused 403"]


def test_a_handler_of_validation_errors(app, client, events):
    """A handler that replaces FastAPI's own for a bad request defers (A1)."""

    @app.exception_handler(RequestValidationError)
    async def handle(request, exc):
        defer(events.append, f"{len(exc.errors())} errors").always()
        return JSONResponse({}, 422)

    @app.get("/")
    async def endpoint(number: int):
        """Answer with nothing."""

    assert client(app).get("/", params={"number": "no"}).status_code == 422
    assert events == ["last byte", "1 errors"]


@both_kinds
@pytest.mark.parametrize("key", [500, Exception])
def test_the_handler_of_the_500(key, kind, app, client, events):
    """The handler of unhandled exceptions defers; its calls and others run (A1, C1)."""
    calls = []
    error = OutOfStockError()

    def handle(exc):
        defer(events.append, "report").always()
        return JSONResponse({}, 500)

    add_handler(app, kind, key, handle)

    @app.get("/")
    async def endpoint():
        calls.append(defer(events.append, "plain"))
        defer(events.append, "audit").always()
        raise error

    assert client(app, raise_server_exceptions=False).get("/").json() == {}
    assert [event for event in events if event != "last byte"] == ["audit", "report"]
    assert calls[0].outcome.exception is error
    assert calls[0].outcome.status == 500
