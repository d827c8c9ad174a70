"""What the three order apps share: the order's own work, and what follows from it."""

import asyncio
import itertools
import json
import os
import socket
import threading
import time
from typing import Any

DEFERS = os.environ.get("BENCH_VARIANT") == "deferred"
"""Whether this process is the app with Postlude or the same app without."""

DATABASE = "127.0.0.1", int(os.environ.get("BENCH_DATABASE", "0"))
"""Where `benchmarks.database` listens: one query of 5 ms is the order's own work."""

EFFECT_SECONDS = 0.02
"""How long each side effect waits for its mail server, collector, service or cache."""

tick = itertools.count().__next__
"""Counts the side effects that ran; `/ran` reads it, which is a tick of its own."""


_local = threading.local()
_streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []


def query() -> None:
    """Wait for the database, over a connection per thread."""
    if not hasattr(_local, "connection"):
        _local.connection = socket.create_connection(DATABASE)
    _local.connection.sendall(b"insert\n")
    _local.connection.recv(100)


async def query_async() -> None:
    """Wait for the database, over a pool of connections."""
    reader, writer = (
        _streams.pop() if _streams else await asyncio.open_connection(*DATABASE)
    )
    writer.write(b"insert\n")
    await reader.readline()
    _streams.append((reader, writer))


def confirm(order: dict[str, Any]) -> dict[str, Any]:
    """Make the answer to an order."""
    lines = [{"sku": order["sku"], "quantity": 1} for _ in range(order["quantity"])]
    return {"id": 4711, "state": "accepted", "lines": lines, "total": "84.00"}


def wait_for_mail_server(order: dict[str, Any]) -> None:
    """Stand for a side effect in blocking code."""
    json.dumps(order)
    time.sleep(EFFECT_SECONDS)
    tick()


def wait_for_inventory(order: dict[str, Any]) -> None:
    """Stand for a second one."""
    wait_for_mail_server(order)


async def wait_for_collector(order: dict[str, Any]) -> None:
    """Stand for a side effect in async code."""
    json.dumps(order)
    await asyncio.sleep(EFFECT_SECONDS)
    tick()


async def wait_for_cache(order: dict[str, Any]) -> None:
    """Stand for a second one."""
    await wait_for_collector(order)
