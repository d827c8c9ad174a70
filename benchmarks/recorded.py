"""`python -m benchmarks.recorded`: print what records cost, in microseconds.

A thousand calls a second, as a busy process has them, go to a SQLite file. Timed is
what a request is there for, from the server's call of the application to the return of
the last `send`, and in it `defer()`; and, after the response, what the thread or loop
that runs a call does for the store.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import postlude
from benchmarks.figures import percentile
from postlude import DeferScope, _reporting, defer
from postlude.asgi import PostludeMiddleware
from postlude.instrumentation import _instruments

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = 2_000
TURNS = 3
PAUSE = 0.001
_now = time.perf_counter_ns


def nothing(_order_id: int, _email: str) -> None:
    """End well."""


async def nothing_async(_order_id: int, _email: str) -> None:
    """End well."""


def fail(_order_id: int, _email: str) -> None:
    """Fail."""
    raise ConnectionError("no mail server")


def _timed(fn: Callable[..., object], times: list[int]) -> Callable[..., object]:
    def timed(*args: object) -> object:
        began = _now()
        result = fn(*args)
        times.append(_now() - began)
        return result

    return timed


def _defer(fn: Callable[..., object]) -> list[int]:
    """Defer *fn* again and again, and time `defer()` itself."""
    times: list[int] = []
    for number in range(CALLS):
        with DeferScope():
            began = _now()
            defer(fn, number, "ada@example.com")
            times.append(_now() - began)
        time.sleep(PAUSE)
    return times


def _requests(fn: Callable[..., object]) -> list[int]:
    """Time requests that defer *fn*, one after the other."""
    times: list[int] = []

    async def app(asgi: dict[str, Any], receive: Any, send: Any) -> None:
        if asgi["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        defer(fn, len(times), "ada@example.com")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ordered"})

    async def serve() -> None:
        said: asyncio.Queue[str] = asyncio.Queue()
        wrapped = PostludeMiddleware(app)

        async def receive() -> dict[str, Any]:
            return {"type": await said.get()}

        async def send(_message: dict[str, Any]) -> None:
            pass

        lifespan = asyncio.create_task(wrapped({"type": "lifespan"}, receive, send))
        said.put_nowait("lifespan.startup")
        scope = {"type": "http", "method": "POST", "path": "/orders", "headers": []}
        for _ in range(CALLS):
            await asyncio.sleep(PAUSE)
            began = _now()
            await wrapped({**scope}, receive, send)
            times.append(_now() - began)
        said.put_nowait("lifespan.shutdown")
        await lifespan

    asyncio.run(serve())
    return times


def _watch() -> dict[str, list[int]]:
    """Time from now on what is done for the store around calls that run."""
    times: dict[str, list[int]] = {"before": [], "after": [], "told": [], "made": []}
    around: Any = _instruments.Around
    around.__enter__ = _timed(around.__enter__, times["before"])
    around.__exit__ = _timed(around.__exit__, times["after"])
    _instruments.tell = _timed(_instruments.tell, times["told"])
    _reporting._record = _timed(_reporting._record, times["made"])  # noqa: SLF001 - what a failure costs
    return times


def main() -> None:
    """Take turns without a store and with one; then look closer, with one."""
    logging.getLogger("postlude").disabled = True  # the log is not the store
    kinds: dict[str, Callable[[], list[int]]] = {
        "defer": lambda: _defer(nothing),
        "request": lambda: _requests(nothing),
        "request_async": lambda: _requests(nothing_async),
    }
    p99s: dict[str, dict[bool, list[float]]] = {
        kind: {False: [], True: []} for kind in kinds
    }
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(TURNS + 1):  # the first one is to warm up
            for stored in (False, True):
                path = str(Path(folder, "postlude.db")) if stored else None
                postlude.configure(failures=path)
                postlude.failure_store()
                for kind, measure in kinds.items():
                    p99 = _p99(measure())
                    if turn:
                        p99s[kind][stored].append(p99)
        store = postlude.failure_store()
        times = _watch()
        _defer(nothing)
        parts = zip(times["before"], times["after"], times["told"], strict=True)
        counted = list(map(sum, parts))
        _defer(fail)
        postlude.drain()
        if (kept := store.count()) != CALLS:
            raise SystemExit(f"{kept} of {CALLS} failures are in the store")
    added = {kind: median(of[True]) - median(of[False]) for kind, of in p99s.items()}
    found = {
        **added,
        "counted": _p99(counted),
        "counted_p50": median(counted) / 1_000,
        "failed": _p99(times["made"]),
        "failed_p50": median(times["made"]) / 1_000,
    }
    json.dump(found, sys.stdout)


def _p99(times: list[int]) -> float:
    return percentile([*map(float, times)], 0.99) / 1_000


if __name__ == "__main__":
    main()
