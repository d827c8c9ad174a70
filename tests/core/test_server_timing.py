"""The setting `server_timing`: what a response says about itself (E4)."""

import re

import pytest
import trio
from stage import ASGIServer, answering, replying, visit

from postlude import configure, defer
from postlude.asgi import PostludeMiddleware as ASGIMiddleware
from postlude.wsgi import PostludeMiddleware

VALUE = re.compile(r'app;dur=\d+\.\d, deferred;desc="2 calls"')


def two():
    """Defer two calls."""
    defer(list)
    defer(list)


async def over_asgi():
    """Give the headers of a request over ASGI."""
    async with ASGIServer(answering(two)) as server:
        answer = await server.begin()
    return [(name.decode(), value.decode()) for name, value in answer.headers]


def over_trio():
    """Give the headers of a request under trio."""
    sent = []

    async def receive():
        raise NotImplementedError

    async def send(message):
        sent.extend(message.get("headers", ()))

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    trio.run(ASGIMiddleware(answering(two)), scope, receive, send)
    return [(name.decode(), value.decode()) for name, value in sent]


def over_wsgi():
    """Give the headers of a request over WSGI."""
    return visit(PostludeMiddleware(replying(two))).headers


def timings(headers):
    """Give the values of the header, with whatever case its name has."""
    return [value for name, value in headers if name.lower() == "server-timing"]


async def test_asgi_tells_the_time_and_the_calls():
    """With the setting, the head says how long it took and what was deferred (E4)."""
    configure(server_timing=True)
    (value,) = timings(await over_asgi())
    assert VALUE.fullmatch(value)


@pytest.mark.parametrize("over", [over_trio, over_wsgi])
def test_others_tell_it_too(over):
    """Under trio and WSGI as well (E4)."""
    configure(server_timing=True)
    (value,) = timings(over())
    assert VALUE.fullmatch(value)


async def test_by_default_nobody_is_told():
    """It tells strangers about the inside, so it is off (E4)."""
    for headers in (await over_asgi(), over_wsgi()):
        assert timings(headers) == []
