import asyncio
from threading import Event

import pytest
from starlette.responses import FileResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from harness.wire import TIMEOUT
from postlude import DeferScope, defer


async def note(events, what):
    """Note, as an async call."""
    events.append(what)


def test_a_generator_in_a_thread_may_defer(application, client, events):
    """A sync body, which Starlette runs in its threads, defers into its unit (A1)."""

    def body():
        for number in range(3):
            defer(events.append, number)
            yield b"part"

    async def endpoint(request):
        return StreamingResponse(body())

    client(application(Route("/", endpoint))).get("/")
    assert events == ["last byte", 0, 1, 2]


def test_the_unit_of_an_event_stream_ends_when_it_closes(application, client, events):
    """Nothing runs between two events of a stream, all runs after the last one (B4)."""

    async def stream():
        for number in range(3):
            defer(note, events, f"call {number}")
            events.append(f"event {number}")
            yield f"data: {number}\n\n"

    async def endpoint(request):
        return StreamingResponse(stream(), media_type="text/event-stream")

    response = client(application(Route("/", endpoint))).get("/")
    assert response.text == "data: 0\n\ndata: 1\n\ndata: 2\n\n"
    assert events == [
        *("event 0", "event 1", "event 2"),
        "last byte",
        *("call 0", "call 1", "call 2"),
    ]


def test_a_block_in_an_event_stream_is_a_smaller_unit(application, client, events):
    """`async with DeferScope():` in a stream runs its calls before it goes on (B4)."""

    async def stream():
        defer(events.append, "after the stream")
        for number in range(2):
            async with DeferScope():
                defer(events.append, f"sync {number}")
                defer(note, events, f"async {number}")
            yield f"data: {number}\n\n"
        events.append("end of stream")

    async def endpoint(request):
        return StreamingResponse(stream(), media_type="text/event-stream")

    client(application(Route("/", endpoint))).get("/")
    assert events == [
        *("sync 0", "async 0", "sync 1", "async 1"),
        *("end of stream", "last byte", "after the stream"),
    ]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_calls_follow_a_file(method, application, client, events, tmp_path):
    """Calls run after the last part of a file, and after the head of none (B1)."""
    path = tmp_path / "order.txt"
    path.write_bytes(b"x" * 300_000)

    async def endpoint(request):
        defer(events.append, "call")
        return FileResponse(path, media_type="text/plain")

    app = application(Route("/", endpoint))
    response = client(app).request(method, "/")
    assert len(response.content) == (300_000 if method == "GET" else 0)
    assert events == ["last byte", "call"]


def test_a_task_that_outlives_its_request_may_defer(application, client, events):
    """A sub-task defers late into its request's unit, and the call runs (A6)."""
    tasks = set()
    go_on = asyncio.Event()
    called = Event()

    async def outlive():
        await go_on.wait()
        defer(called.set)

    async def start(request):
        tasks.add(asyncio.create_task(outlive()))
        defer(events.append, "early")
        return PlainTextResponse("ok")

    async def finish(request):
        go_on.set()
        return PlainTextResponse("ok")

    app = application(Route("/start", start), Route("/finish", finish))
    with client(app) as running:
        running.get("/start")
        assert events == ["last byte", "early"]
        running.get("/finish")
        assert called.wait(TIMEOUT)
