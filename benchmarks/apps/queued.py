"""A small answer with one deferred call that a queue backs, or not."""

import itertools
import os
import tempfile
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from postlude import configure, defer
from postlude.integrations.starlette import install

tick = itertools.count().__next__
# On the disk that people have, not in memory: what is written is synchronised.
here = Path("build").absolute()
here.mkdir(exist_ok=True)
folder = tempfile.TemporaryDirectory(prefix="postlude-bench-", dir=here)
configure(queue=f"sqlite:///{folder.name}/queue.db")


async def nothing(_order: int) -> None:
    """Stand for a call that costs nothing itself."""
    tick()


async def plain(_request: Request) -> PlainTextResponse:
    """Defer it in memory."""
    defer(nothing, 7)
    return PlainTextResponse("hello")


async def retry(_request: Request) -> PlainTextResponse:
    """Defer it with further runs on the queue, which it never needs."""
    defer(nothing, 7).retry(3)
    return PlainTextResponse("hello")


async def durable(_request: Request) -> PlainTextResponse:
    """Write it down before the answer."""
    defer(nothing, 7).durable()
    return PlainTextResponse("hello")


async def ran(_request: Request) -> PlainTextResponse:
    """Tell the count of calls that have run; a tick of its own."""
    return PlainTextResponse(str(tick()))


VARIANTS = {"plain": plain, "retry": retry, "durable": durable}
endpoint = VARIANTS[os.environ["BENCH_VARIANT"]]
app = Starlette(routes=[Route("/", endpoint), Route("/ran", ran)])
install(app)
