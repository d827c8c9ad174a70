from contextlib import suppress

import pytest
from starlette.endpoints import WebSocketEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocketDisconnect

from postlude import DeferScope, current_scope, defer


async def note(events, what):
    """Note, as an async call."""
    events.append(what)


@pytest.fixture
def connect(application, client):
    """Connect to a WebSocket endpoint, in a client with a loop of its own."""

    def connect(endpoint, **options):
        app = application(WebSocketRoute("/", endpoint), **options)
        return client(app).websocket_connect("/")

    return connect


def test_the_unit_of_a_websocket_ends_when_it_closes(connect, events):
    """Calls of a WebSocket wait until it is closed, then run in order (B4)."""

    async def endpoint(websocket):
        await websocket.accept()
        while (text := await websocket.receive_text()) != "bye":
            defer(events.append, f"sync {text}")
            defer(note, events, f"async {text}")
            await websocket.send_text(f"{current_scope()}")
        await websocket.close()
        events.append("closed")

    with connect(endpoint) as session:
        for text in ("one", "two"):
            session.send_text(text)
            assert "open" in session.receive_text()
        session.send_text("bye")
    assert events == ["closed", "sync one", "async one", "sync two", "async two"]


def test_a_block_in_a_websocket_is_a_smaller_unit(connect, events):
    """The calls of a block per message have run before the next message (B4, B6)."""

    async def endpoint(websocket):
        await websocket.accept()
        defer(events.append, "outer")
        for _ in range(2):
            async with DeferScope():
                defer(events.append, await websocket.receive_text())
            await websocket.send_text(f"{events}")

    with connect(endpoint) as session:
        session.send_text("one")
        assert session.receive_text() == "['one']"
        session.send_text("two")
        assert session.receive_text() == "['one', 'two']"
    assert events == ["one", "two", "outer"]


def test_a_client_that_leaves_does_not_fail_a_websocket(connect, events):
    """A disconnect ends the unit as a success that was not delivered (B4, B5)."""
    calls = []

    async def endpoint(websocket):
        await websocket.accept()
        calls.append(defer(events.append, "call"))
        await websocket.receive_text()

    # Whether the client sees the exception or has cancelled it before is chance.
    with suppress(WebSocketDisconnect), connect(endpoint) as session:
        session.close(1001)
    assert events == ["call"]
    assert calls[0].outcome.ok
    assert not calls[0].outcome.delivered
    assert "1001" in calls[0].outcome.reason


def test_an_exception_in_a_websocket_is_a_failure(connect, events):
    """An endpoint that raises drops plain calls; always calls run (C1, B4)."""
    error = LookupError("no such room")
    calls = []

    async def endpoint(websocket):
        await websocket.accept()
        calls.append(defer(events.append, "plain"))
        defer(events.append, "always").always()
        raise error

    with pytest.raises(LookupError), connect(endpoint) as session:
        session.receive_text()
    assert events == ["always"]
    assert calls[0].reason == "outcome"
    assert calls[0].outcome.exception is error


def test_a_refused_websocket_is_judged_by_its_answer(connect, events):
    """A denial response of 403 drops plain calls (C1, B4)."""

    async def endpoint(websocket):
        defer(events.append, "plain")
        defer(events.append, "always").always()
        await websocket.send_denial_response(PlainTextResponse("no", 403))

    with pytest.raises(WebSocketDisconnect), connect(endpoint):
        pass
    assert events == ["always"]


def test_endpoint_classes_defer_from_each_of_their_methods(connect, events):
    """`WebSocketEndpoint` defers on connect, on receive and on disconnect (A1, B4)."""

    class Room(WebSocketEndpoint):
        encoding = "text"

        async def on_connect(self, websocket):
            defer(events.append, "connected")
            await websocket.accept()

        async def on_receive(self, websocket, data):
            defer(events.append, data)
            await websocket.send_text("ok")

        async def on_disconnect(self, websocket, close_code):
            defer(events.append, "left")

    with connect(Room) as session:
        session.send_text("hello")
        assert session.receive_text() == "ok"
        assert events == []
    assert events == ["connected", "hello", "left"]
