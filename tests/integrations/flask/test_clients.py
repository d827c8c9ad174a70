"""G1: calls have run when Flask's test client returns."""

from io import BytesIO
from threading import Event

import pytest
from flask import Response, redirect, request, send_file, session, stream_with_context
from werkzeug.wsgi import FileWrapper

from harness.wire import TIMEOUT
from postlude import defer


@pytest.fixture(autouse=True)
def endpoints(app, events):
    """Endpoints that answer in each way there is."""

    @app.before_request
    def before():
        if request.path != "/redirect":
            defer(events.append, "call")

    @app.get("/text")
    def text():
        session["user"] = "ada"
        return "text"

    @app.get("/empty")
    def empty():
        return "", 204

    @app.get("/redirect")
    def leave():
        defer(events.append, "redirected")
        return redirect("/text")

    @app.get("/file")
    def file():
        return send_file(BytesIO(b"x" * 100_000), "text/plain")

    @app.get("/stream")
    def stream():
        def body():
            for number in range(3):
                defer(events.append, request.args.get("name", number))
                yield f"{number}"
            events.append("end")

        return Response(stream_with_context(body()))


@pytest.mark.parametrize("path", ["/text", "/empty", "/file"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("buffered", [False, True])
def test_calls_have_run_when_the_client_returns(buffered, method, path, client, events):
    """Kept or not, buffered or not, a response's calls have run (G1)."""
    kept = client.open(path, method=method, buffered=buffered)
    assert events == ["call"]
    assert kept.status_code < 300
    client.open(path, method=method, buffered=buffered).close()
    assert events == ["call", "call"]


def test_calls_have_run_in_a_block_of_the_client(client, events):
    """`with client` keeps the request's context; calls have run all the same (G1)."""
    with client:
        client.get("/text")
        assert events == ["call"]
        assert request.path == "/text"
        assert session["user"] == "ada"


def test_redirects_that_are_followed(client, events):
    """Each request on the way is a unit; a redirect is a success (C1, G1)."""
    assert client.get("/redirect", follow_redirects=True).text == "text"
    assert events == ["redirected", "call"]


def test_a_stream_that_is_buffered(client, events):
    """A stream that the client reads to its end has run its calls then (G1, B1)."""
    assert client.get("/stream?name=part", buffered=True).text == "012"
    assert events == ["end", "call", "part", "part", "part"]


def test_a_stream_that_is_open(client, events):
    """The calls of a stream wait until it is read and closed (B1)."""
    with client.get("/stream") as response:
        assert response.text == "012"
        assert events == ["end"]
    assert events == ["end", "call", 0, 1, 2]


def test_a_stream_that_is_cut(client, events):
    """A client that leaves in the middle ends the unit, as a success (B5)."""
    calls = []
    client.application.before_request(lambda: calls.append(defer(int)))
    client.get("/stream").close()
    assert events == ["call", 0]
    assert calls[0].outcome.ok
    assert not calls[0].outcome.delivered


@pytest.mark.parametrize("path", ["/text", "/empty", "/file", "/stream"])
def test_a_server_closes_the_response_before_any_call(
    path, client, app, events, as_server
):
    """Called as by a server, nothing runs before the response is closed (B1)."""
    called = Event()
    app.after_request(lambda response: (defer(called.set), response)[1])
    response = client.get(path, environ_overrides={"SERVER_SOFTWARE": "one of them"})
    assert len(response.data) == {"/text": 4, "/file": 100_000, "/stream": 3}.get(
        path, 0
    )
    events.append("read")
    response.close()
    assert called.wait(TIMEOUT)
    before, after = ["end", "read"], ["call", 0, 1, 2]
    if path != "/stream":
        before, after = ["read"], ["call"]
    assert [event for event in events if event in before] == before
    assert events[len(before) :] == after


def test_a_file_keeps_the_servers_own_wrapper(client, app, events, as_server):
    """`send_file` hands the server its own `wsgi.file_wrapper` (B1)."""
    made = []

    class ServersWrapper(FileWrapper):
        pass

    def watch(inner):
        def outermost(environ, start_response):
            made.append(inner(environ, start_response))
            return made[0]

        return outermost

    app.wsgi_app = watch(app.wsgi_app)
    as_server["environ_overrides"]["wsgi.file_wrapper"] = ServersWrapper
    called = Event()
    app.after_request(lambda response: (defer(called.set), response)[1])
    response = client.get("/file", **as_server)
    assert type(made[0]) is ServersWrapper
    assert len(response.data) == 100_000
    assert events == []
    response.close()
    assert called.wait(TIMEOUT)
    assert events == ["call"]
