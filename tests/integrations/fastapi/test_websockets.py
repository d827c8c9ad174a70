import asyncio
from contextlib import nullcontext, suppress
from typing import Annotated

import pytest
from fastapi import Depends, WebSocket, WebSocketDisconnect, WebSocketException
from starlette.testclient import WebSocketTestSession

from postlude import DeferScope, current_scope, defer

# Older ones (Starlette 0.40) leave a session while its endpoint still runs; what they
# wait for, with a lifespan, is the end of the client.
CLIENT_WAITS = not hasattr(WebSocketTestSession, "should_close")


async def note(events, what):
    """Note, as an async call."""
    events.append(what)


def test_the_unit_of_a_websocket_ends_when_it_closes(app, client, events):
    """Calls of a WebSocket and its dependencies run when it is closed (B4, A1)."""

    async def member():
        defer(events.append, "joined")
        yield "ada"
        defer(events.append, "left")

    @app.websocket("/{room}")
    async def chat(websocket: WebSocket, member: Annotated[str, Depends(member)]):
        await websocket.accept()
        try:
            while True:
                defer(note, events, await websocket.receive_text())
                await websocket.send_text(f"{current_scope()}")
        except WebSocketDisconnect:
            defer(events.append, f"{member} gone")

    with client(app).websocket_connect("/room") as session:
        for text in ("one", "two"):
            session.send_text(text)
            assert "open" in session.receive_text()
    assert events == ["joined", "one", "two", "ada gone", "left"]


def test_a_block_in_a_websocket_is_a_smaller_unit(app, client, events):
    """The calls of a block per message have run before the next message (B4, B6)."""

    @app.websocket("/")
    async def chat(websocket: WebSocket):
        await websocket.accept()
        async for text in websocket.iter_text():
            async with DeferScope():
                defer(events.append, text)
            await websocket.send_text(f"{events}")

    with client(app).websocket_connect("/") as session:
        session.send_text("one")
        assert session.receive_text() == "['one']"
        session.send_text("two")
        assert session.receive_text() == "['one', 'two']"


@pytest.mark.parametrize("lives", [True, False], ids=["lifespan", "no-lifespan"])
def test_calls_have_run_when_the_session_is_left(lives, app, client, events):
    """The test client cancels the endpoint on leaving; its calls still run (G1)."""

    async def slow():
        for _ in range(100):
            await asyncio.sleep(0)
        events.append("call")

    @app.websocket("/")
    async def chat(websocket: WebSocket):
        await websocket.accept()
        defer(slow)
        defer(events.append, "next")
        await websocket.close()

    running = client(app)
    with running if lives else nullcontext():
        with (
            pytest.raises(WebSocketDisconnect),
            running.websocket_connect("/") as session,
        ):
            session.receive_text()
        if CLIENT_WAITS:
            assert events == ["call", "next"]
    assert events == ["call", "next"]


def test_an_endpoint_that_only_reads_ends_well(app, client, events):
    """A client that leaves while the endpoint reads is no failure (B5)."""
    calls = []

    @app.websocket("/")
    async def chat(websocket: WebSocket):
        await websocket.accept()
        calls.append(defer(events.append, "call"))
        await websocket.receive_text()

    # Whether the client sees the exception or has cancelled it before is chance.
    with suppress(WebSocketDisconnect), client(app).websocket_connect("/") as session:
        session.close()
    assert events == ["call"]
    assert calls[0].outcome.ok
    assert not calls[0].outcome.delivered


def test_a_websocket_that_raises_is_a_failure(app, client, events):
    """An endpoint's own exception drops plain calls; always calls run (C1)."""

    @app.websocket("/")
    async def chat(websocket: WebSocket):
        await websocket.accept()
        defer(events.append, "plain")
        defer(events.append, "always").always()
        raise LookupError("no such room")

    with (
        pytest.raises(LookupError),
        client(app).websocket_connect("/") as session,
    ):
        session.receive_text()
    assert events == ["always"]


def test_a_websocket_that_is_refused_by_a_dependency(app, client, events):
    """`WebSocketException` before the start closes it; always calls run (C1)."""

    async def refuse():
        defer(events.append, "refused").always()
        raise WebSocketException(1008)

    @app.websocket("/")
    async def chat(websocket: WebSocket, member: Annotated[None, Depends(refuse)]):
        await websocket.accept()

    with (
        pytest.raises(WebSocketDisconnect) as closed,
        client(app).websocket_connect("/"),
    ):
        pass
    assert closed.value.code == 1008
    assert events == ["refused"]
