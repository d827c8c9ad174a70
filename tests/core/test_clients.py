"""G1: with a test client, calls have run when the client's call returns."""

import httpx
import pytest
from stage import Boom, answering, replying
from starlette.testclient import TestClient
from werkzeug.test import Client

from postlude import defer
from postlude.asgi import PostludeMiddleware as ASGIMiddleware
from postlude.wsgi import PostludeMiddleware as WSGIMiddleware


@pytest.fixture
def seen():
    """What the calls of `work` did."""
    return []


@pytest.fixture
def work(seen, form):
    """What a handler does: it defers calls of every rule, one of them nested."""

    def outer():
        seen.append("plain")
        defer(form(seen.append), "nested")

    def body():
        defer(form(outer))
        defer(form(seen.append), "always").always()
        defer(form(seen.append), "never").when(lambda outcome: False)

    return body


GOOD, BAD = ["plain", "always", "nested"], ["always"]
any_status = pytest.mark.parametrize(("status", "runs"), [(200, GOOD), (404, BAD)])


@any_status
@pytest.mark.parametrize("lifespan", [True, False])
def test_starlettes_client(work, seen, status, runs, lifespan):
    """Starlette's TestClient, with and without `with`, waits for the calls (G1)."""
    client = TestClient(ASGIMiddleware(answering(work, status)))
    if lifespan:
        with client:
            response = client.get("/")
            assert seen == runs
    else:
        response = client.get("/")
        assert seen == runs
    assert (response.status_code, response.text) == (status, "hello")


@any_status
async def test_httpx_on_an_asgi_app(work, seen, status, runs):
    """Httpx's ASGITransport waits for the calls (G1)."""
    transport = httpx.ASGITransport(ASGIMiddleware(answering(work, status)))
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        response = await client.get("/")
        assert seen == runs
    assert (response.status_code, response.text) == (status, "hello")


@any_status
def test_httpx_on_a_wsgi_app(work, seen, status, runs):
    """Httpx's WSGITransport waits for the calls (G1)."""
    transport = httpx.WSGITransport(WSGIMiddleware(replying(work, status)))
    with httpx.Client(transport=transport, base_url="http://t") as client:
        response = client.get("/")
        assert seen == runs
    assert (response.status_code, response.text) == (status, "hello")


@any_status
def test_werkzeugs_client(work, seen, status, runs):
    """Werkzeug's client, and so Flask's, waits for the calls (G1)."""
    response = Client(WSGIMiddleware(replying(work, status))).get("/")
    assert seen == runs
    assert (response.status_code, response.text) == (status, "hello")


def test_an_exception_reaches_the_test_after_the_calls(work, seen):
    """What the app raises comes out of the client, and its calls are judged (G1)."""

    async def app(scope, receive, send):
        work()
        raise Boom

    with pytest.raises(Boom):
        TestClient(ASGIMiddleware(app)).get("/")
    assert seen == BAD


def test_an_exception_of_a_wsgi_app_reaches_the_test(work, seen):
    """What a WSGI app raises comes out of the client, and its calls are judged (G1)."""

    def app(environ, start_response):
        work()
        raise Boom

    with pytest.raises(Boom):
        Client(WSGIMiddleware(app)).get("/")
    assert seen == BAD


def test_a_failing_call_does_not_reach_the_client(seen, form):
    """A failing call changes no answer in a test either (G1, D2)."""

    def fail():
        raise Boom

    def body():
        defer(form(fail))
        defer(form(seen.append), "next")

    response = TestClient(ASGIMiddleware(answering(body))).get("/")
    assert (response.status_code, seen) == (200, ["next"])
