"""A8, D1: requests at the same time are units of their own."""

import asyncio
import threading
from contextlib import nullcontext

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from postlude import current_scope, defer

REQUESTS = 30  # fewer than Starlette has threads for sync endpoints


async def note(events, what):
    """Note, as an async call."""
    events.append(what)


class Crowd:
    """As many visitors as there are requests; all defer while all are there."""

    def __init__(self):
        self.noted = {str(number): [] for number in range(REQUESTS)}
        self.units = set()
        self._threads = threading.Barrier(REQUESTS)
        self._tasks = asyncio.Barrier(REQUESTS)

    def in_thread(self, request):
        """Be a sync endpoint."""
        number = request.path_params["number"]
        self._threads.wait()
        self._begin(number)
        self._threads.wait()
        return self._finish(number)

    async def on_loop(self, request):
        """Be an async endpoint."""
        number = request.path_params["number"]
        await self._tasks.wait()
        self._begin(number)
        await self._tasks.wait()
        return self._finish(number)

    def _begin(self, number):
        defer(self.noted[number].append, 1)
        defer(note, self.noted[number], 2)
        self.units.add(current_scope())

    def _finish(self, number):
        defer(self.noted[number].append, 3)
        defer(self.noted[number].append, "always").always()
        return PlainTextResponse(number, 409 if int(number) % 3 == 0 else 200)


@pytest.mark.parametrize("lives", [True, False], ids=["lifespan", "no-lifespan"])
@pytest.mark.parametrize("kind", ["in_thread", "on_loop"])
async def test_each_request_is_its_own_unit(kind, lives, application, lifespan):
    """Interleaved requests each run their own calls, in order (A8, D1)."""
    crowd = Crowd()
    app = application(Route("/{number}", getattr(crowd, kind)))
    transport = httpx.ASGITransport(app)
    async with (
        lifespan(app) if lives else nullcontext(),
        httpx.AsyncClient(transport=transport, base_url="http://x") as web,
    ):
        await asyncio.gather(*(web.get(f"/{number}") for number in crowd.noted))
    assert len(crowd.units) == REQUESTS
    for number, noted in crowd.noted.items():
        refused = int(number) % 3 == 0
        assert noted == (["always"] if refused else [1, 2, 3, "always"])
