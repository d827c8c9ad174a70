"""`python -m benchmarks.drive REQUESTS CALLS APP`: an ASGI app without any server.

Requests come from within, as uvicorn hands them over: a task each, sixteen at a time.
Timers end after every sixteen requests, and the clock stands still: under callgrind
everything takes fifty times as long, and no instruction may depend on that.
"""

import asyncio
import itertools
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import uvloop

time.monotonic = itertools.repeat(0.0).__next__  # before anybody imports its name

APP = import_module(f"benchmarks.apps.{sys.argv[3]}")
AT_A_TIME = 16
WARM_UP = 160


class Clockwork(uvloop.Loop):
    """A loop whose timers are fired by hand."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def call_later(  # type: ignore[override]
        self, _delay: float, callback: Callable[..., object], *args: Any, **_: Any
    ) -> tuple[Callable[..., object], tuple[Any, ...]]:
        """Keep a callback for the next `fire`; whoever gets None asks for another."""
        timer = callback, args
        self._waiting.append(timer)
        return timer

    def fire(self) -> None:
        """Have all timers end."""
        due, self._waiting = self._waiting, []
        for callback, args in due:
            self.call_soon(callback, *args)


async def receive() -> dict[str, Any]:
    """Have nothing to say: the client stays and waits."""
    return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]


async def send(_message: dict[str, Any]) -> None:
    """Take a part of the answer."""


class Deferred:
    """Knows how many calls should have run; each look at the count is a tick."""

    def __init__(self) -> None:
        self._due = 0
        self._looks = 0

    async def run(self, loop: Clockwork, calls: int) -> None:
        """Turn the loop until so many more calls have run, in whatever thread."""
        loop.fire()
        await asyncio.sleep(0)
        self._due += calls
        while not self._all_ran():
            await asyncio.sleep(0)
            time.sleep(0.001)  # noqa: ASYNC251 - to wait must cost no instructions

    def _all_ran(self) -> bool:
        self._looks += 1
        return APP.tick() >= self._due + self._looks - 1


async def serve(loop: Clockwork, deferred: Deferred, requests: int, calls: int) -> None:
    """Let the app answer requests, and wait for what they deferred."""
    app = APP.app
    for _ in range(requests // AT_A_TIME):
        tasks: list[asyncio.Task[None]] = [
            loop.create_task(app(_scope(), receive, send))  # type: ignore[arg-type]
            for _ in range(AT_A_TIME)
        ]
        for task in tasks:
            await task
        await deferred.run(loop, AT_A_TIME * calls)


def _scope() -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 51000),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1:8000")],
        "state": {},
    }


async def main(loop: Clockwork, requests: int, calls: int) -> None:
    """Serve requests, and some more before them to warm up."""
    started = asyncio.Event()

    async def receive_lifespan() -> dict[str, Any]:
        return await receive() if started.is_set() else {"type": "lifespan.startup"}

    async def send_lifespan(_message: dict[str, Any]) -> None:
        started.set()

    app = APP.app
    lifespan: asyncio.Task[None] = loop.create_task(
        app({"type": "lifespan"}, receive_lifespan, send_lifespan)  # type: ignore[arg-type]
    )
    await started.wait()
    await serve(loop, Deferred(), WARM_UP + requests, calls)
    lifespan.cancel()


if __name__ == "__main__":
    own = Clockwork()
    own.run_until_complete(main(own, int(sys.argv[1]), int(sys.argv[2])))
    os._exit(0)
