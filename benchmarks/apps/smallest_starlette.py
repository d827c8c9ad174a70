"""The smallest Starlette app: one plain-text route, and per variant what it defers.

Each variant has an endpoint of its own, so that none pays for choosing. What is called
after the response does next to nothing: it counts, so that lost calls are found.
"""

import itertools
import os
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

Endpoint = Callable[[Request], Awaitable[PlainTextResponse]]

tick = itertools.count().__next__


def nothing() -> None:
    """Stand for a sync call that costs nothing itself."""
    tick()


async def nothing_async() -> None:
    """Stand for an async call that costs nothing itself."""
    tick()


async def plain(_request: Request) -> PlainTextResponse:
    """Answer, and defer nothing."""
    return PlainTextResponse("hello")


async def background_sync(_request: Request) -> PlainTextResponse:
    """Answer with Starlette's own background task."""
    return PlainTextResponse("hello", background=BackgroundTask(nothing))


async def background_async(_request: Request) -> PlainTextResponse:
    """Answer with Starlette's own background task, an async one."""
    return PlainTextResponse("hello", background=BackgroundTask(nothing_async))


async def ran(_request: Request) -> PlainTextResponse:
    """Tell the count of calls that have run; a tick of its own."""
    return PlainTextResponse(str(tick()))


def deferring() -> dict[str, Endpoint]:
    """Make the endpoints that need Postlude."""
    from postlude import defer  # noqa: PLC0415 - the bare app must not load it

    async def async1(_request: Request) -> PlainTextResponse:
        defer(nothing_async)
        return PlainTextResponse("hello")

    async def async4(_request: Request) -> PlainTextResponse:
        defer(nothing_async)
        defer(nothing_async)
        defer(nothing_async)
        defer(nothing_async)
        return PlainTextResponse("hello")

    async def sync1(_request: Request) -> PlainTextResponse:
        defer(nothing)
        return PlainTextResponse("hello")

    async def sync4(_request: Request) -> PlainTextResponse:
        defer(nothing)
        defer(nothing)
        defer(nothing)
        defer(nothing)
        return PlainTextResponse("hello")

    made = async1, async4, sync1, sync4
    return {"unused": plain, **{endpoint.__name__: endpoint for endpoint in made}}


def make(variant: str, way: str) -> ASGIApp:
    """Make the app of a variant; *way* is how Postlude comes in, or "" for not."""
    own = {
        "bare": plain,
        "background-sync": background_sync,
        "background-async": background_async,
    }
    endpoint = own[variant] if not way else deferring()[variant]
    made = Starlette(routes=[Route("/", endpoint), Route("/ran", ran)])
    if way == "install":
        from postlude.integrations.starlette import install  # noqa: PLC0415 - as above

        install(made)
    elif way == "wrap":
        from postlude.asgi import PostludeMiddleware  # noqa: PLC0415 - as above

        return PostludeMiddleware(made)
    return made


app = make(os.environ["BENCH_VARIANT"], os.environ["BENCH_WAY"])
