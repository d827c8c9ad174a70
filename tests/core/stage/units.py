"""Units of every kind, each entered and ended in one way, and calls of every form."""

import asyncio
from collections.abc import Callable
from typing import Any

import trio

import postlude
from postlude import DeferScope
from postlude.wsgi import PostludeMiddleware
from stage.servers import ASGIServer, answering, replying, visit
from stage.waiting import PATIENCE


class Boom(Exception):  # noqa: N818 - it stands for no error in particular
    """What the units and calls of these tests raise."""


def _sync(act: Callable[..., object]) -> Callable[..., object]:
    def call(*args: Any, **kwargs: Any) -> None:
        act(*args, **kwargs)

    return call


def _async(act: Callable[..., object]) -> Callable[..., object]:
    async def call(*args: Any, **kwargs: Any) -> None:
        act(*args, **kwargs)

    return call


def _awaitable(act: Callable[..., object]) -> Callable[..., object]:
    call = _async(act)

    def make(*args: Any, **kwargs: Any) -> object:
        return call(*args, **kwargs)

    return make


FORMS = {"sync": _sync, "async": _async, "awaitable": _awaitable}


def in_block(body: Callable[[], object], *, fails: bool = False) -> None:
    """Run *body* in a `with` block."""
    try:
        with DeferScope():
            body()
            if fails:
                raise Boom
    except Boom:
        pass


async def _in_async_block(body: Callable[[], object], fails: bool) -> None:
    try:
        async with DeferScope():
            body()
            if fails:
                raise Boom
    except Boom:
        pass


def in_async_block(body: Callable[[], object], *, fails: bool = False) -> None:
    """Run *body* in an `async with` block on asyncio."""
    asyncio.run(_in_async_block(body, fails))


def in_trio_block(body: Callable[[], object], *, fails: bool = False) -> None:
    """Run *body* in an `async with` block on trio."""
    trio.run(_in_async_block, body, fails)


def in_asgi_request(body: Callable[[], object], *, fails: bool = False) -> None:
    """Run *body* in a request of an ASGI server that is then shut down."""

    async def serve() -> None:
        async with ASGIServer(answering(body, 500 if fails else 200)) as server:
            answer = await server.begin()
        assert answer.body == b"hello"

    asyncio.run(serve())


def in_wsgi_request(body: Callable[[], object], *, fails: bool = False) -> None:
    """Run *body* in a request of a WSGI server, and wait for its calls."""
    answer = visit(PostludeMiddleware(replying(body, 500 if fails else 200)))
    assert answer.body == b"hello"
    postlude.drain(PATIENCE)


UNITS = {
    "block": in_block,
    "async-block": in_async_block,
    "trio-block": in_trio_block,
    "asgi": in_asgi_request,
    "wsgi": in_wsgi_request,
}
