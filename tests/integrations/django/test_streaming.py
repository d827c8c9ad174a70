import asyncio
import gc
from wsgiref.util import FileWrapper

import pytest
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, StreamingHttpResponse
from django.test import RequestFactory

from postlude import defer, drain


def parts(events):
    """Return a body that defers between its parts."""
    for number in range(3):
        defer(events.append, f"call {number}")
        yield f"{number}"
    events.append("end")


async def async_parts(events):
    """Return the same body, asynchronously."""
    for part in parts(events):
        yield part


CALLS = ["call 0", "call 1", "call 2"]


@pytest.fixture
def get_stream(get, site, events):
    """Request a stream of the kind that its way of calling takes without a detour."""

    def get_stream(body, view="sync"):
        chosen = async_parts if get.on_loop else parts

        def in_thread(request):
            defer(events.append, "view")
            return StreamingHttpResponse(body(chosen(events)))

        async def on_loop(request):
            return in_thread(request)

        site({"sync": in_thread, "async": on_loop}[view])
        return get()

    return get_stream


@pytest.mark.parametrize("view", ["sync", "async"])
def test_the_body_of_a_stream_may_defer(view, get, get_stream, events):
    """What a streamed body defers runs after its end, behind the view's calls (A1)."""
    assert get_stream(lambda parts: parts, view) == (200, b"012")
    assert events == ["end", *get.sent, "view", *CALLS]


@pytest.mark.parametrize(
    "get", ["client", "async-client", "wsgi", "wsgi-wrapped"], indirect=True
)
def test_a_body_that_breaks_is_a_failure(get, get_stream, events):
    """A stream that raises in the middle fails its unit, whatever its status (C1)."""
    calls = []

    def break_in_thread(parts):
        yield from parts
        calls.append(defer(events.append, "always").always())
        raise LookupError("no such order")

    async def break_on_loop(parts):
        async for part in parts:
            yield part
        calls.append(defer(events.append, "always").always())
        raise LookupError("no such order")

    def breaking(parts):
        if hasattr(parts, "__aiter__"):
            return break_on_loop(parts)
        return break_in_thread(parts)

    with pytest.raises(LookupError) as raised:
        get_stream(breaking)
    assert [event for event in events if event != "last byte"] == ["end", "always"]
    assert calls[0].outcome.exception is raised.value


# Django leaves the request's body open when a response breaks.
@pytest.mark.filterwarnings("ignore:Unclosed file:ResourceWarning")
@pytest.mark.timeout(10)
async def test_a_broken_stream_does_not_hold_the_loop(site, remote, events):
    """A response that Django never closes ends its unit, and blocks no loop (D3)."""
    called = asyncio.Event()

    async def call():
        called.set()

    async def break_on_loop():
        yield b"begun"
        raise LookupError("no such order")

    def view(request):
        defer(events.append, "sync").always()
        defer(call).always()
        return StreamingHttpResponse(break_on_loop())

    site(view)
    web = await remote(get_asgi_application())
    try:
        await web.get("/")
    except LookupError:
        events.append("broken")
    gc.collect()  # what nobody has closed is collected, on the loop's own thread
    await called.wait()
    assert sorted(events) == ["broken", "sync"]


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
def test_a_stream_of_the_other_kind(get, site, events):
    """A sync body under ASGI, which Django reads ahead in a thread, defers too (A1)."""

    def view(request):
        return StreamingHttpResponse(parts(events))

    site(view)
    assert get() == (200, b"012")
    assert events == ["end", *get.sent, *CALLS]


def test_a_file_keeps_the_servers_own_wrapper(site, events, tmp_path):
    """`FileResponse` hands the server its own `wsgi.file_wrapper` (B1)."""
    path = tmp_path / "order.txt"
    path.write_bytes(b"x" * 100_000)

    def view(request):
        defer(events.append, "call")
        return FileResponse(path.open("rb"), content_type="text/plain")

    site(view)
    environ = RequestFactory().get("/", **{"wsgi.file_wrapper": FileWrapper}).environ
    response = get_wsgi_application()(environ, lambda *_: None)
    assert type(response) is FileWrapper
    assert b"".join(response) == b"x" * 100_000
    assert events == []
    response.close()
    drain()
    assert events == ["call"]


def test_a_stream_that_is_cut(site, events):
    """A server that closes a stream in the middle ends the unit (B5)."""

    def view(request):
        return StreamingHttpResponse(parts(events))

    site(view)
    environ = RequestFactory().get("/").environ
    response = get_wsgi_application()(environ, lambda *_: None)
    assert next(iter(response)) == b"0"
    response.close()
    drain()
    assert events == ["call 0"]
