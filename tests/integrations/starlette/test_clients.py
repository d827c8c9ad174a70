"""G1: calls have run when a client of this process returns, whatever client it is."""

import asyncio
from contextlib import asynccontextmanager, nullcontext

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from postlude import current_scope, defer


async def note(events, what):
    """Note, as an async call."""
    events.append(what)


@pytest.fixture
def app(application, events):
    """An application whose endpoint defers sync and async calls, nested ones too."""

    def nest():
        defer(note, events, "nested")

    async def endpoint(request):
        defer(events.append, "sync")
        defer(note, events, "async")
        defer(nest)
        return PlainTextResponse("ok")

    return application(Route("/", endpoint))


EXPECTED = ["last byte", "sync", "async", "nested"]


def test_a_client_without_a_lifespan(app, client, events):
    """`TestClient` without `with` ends its loop with each request (G1)."""
    for _ in range(3):
        client(app).get("/")
    assert events == EXPECTED * 3


def test_a_client_with_a_lifespan(app, client, events):
    """`with TestClient` keeps its loop: calls have run when a request returns (G1)."""
    with client(app) as running:
        for number in range(1, 4):
            running.get("/")
            assert events == EXPECTED * number


@pytest.mark.parametrize("lives", [True, False], ids=["lifespan", "no-lifespan"])
async def test_an_asynchronous_client(lives, app, watched, lifespan, events):
    """An `ASGITransport` of httpx returns when the calls have run (G1)."""
    seen = watched(app)
    transport = httpx.ASGITransport(seen)
    async with (
        lifespan(seen) if lives else nullcontext(),
        httpx.AsyncClient(transport=transport, base_url="http://x") as web,
    ):
        for number in range(1, 4):
            await web.get("/")
            assert events == EXPECTED * number
            assert current_scope() is None


@pytest.fixture
def held(application, events):
    """An application whose call starts, and then waits until it is released."""

    class Held:
        started = asyncio.Event()
        release = asyncio.Event()
        ended = asyncio.Event()

    async def call():
        Held.started.set()
        await Held.release.wait()
        events.append("call")
        Held.ended.set()

    async def endpoint(request):
        defer(call)
        return PlainTextResponse("ok")

    @asynccontextmanager
    async def live(app):
        yield
        events.append("app closed")

    Held.app = application(Route("/", endpoint), lifespan=live)
    return Held


async def test_a_server_answers_before_the_calls_have_run(
    held, remote, lifespan, events
):
    """With a lifespan a request is over while its call runs; the end waits (B2, D7)."""
    async with lifespan(held.app):
        web = await remote(held.app)
        assert (await web.get("/")).text == "ok"
        await held.started.wait()
        events.append("answered")
        held.release.set()
    assert events == ["answered", "call", "app closed"]


async def test_without_a_lifespan_the_request_stays(held, remote, events):
    """Where nobody will tell of the end, the app call ends after its calls (D7)."""
    web = await remote(held.app)
    request = asyncio.create_task(web.get("/"))
    await held.started.wait()
    assert not request.done()
    held.release.set()
    assert (await request).text == "ok"
    assert events == ["call"]


async def test_cancelling_the_request_does_not_cancel_its_calls(held, remote, events):
    """A request's task that is cancelled while it stays takes no call with it (B5)."""
    web = await remote(held.app)
    request = asyncio.create_task(web.get("/"))
    await held.started.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    held.release.set()
    await held.ended.wait()
    assert events == ["call"]
