"""The services around the shop, in one process: mail, analytics, inventory, cache.

Each is real (SMTP and HTTP on loopback sockets) and each answers after its latency.
What they received is kept in a ledger that the runner reads at the end. The process
ends when its standard input does, so it never outlives the runner.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections import Counter
from dataclasses import dataclass, field

import uvicorn
from aiosmtpd.smtp import SMTP, Envelope, Session
from cachetools import TTLCache
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shop.mail import RAW
from shop.settings import Latencies


@dataclass(slots=True)
class Ledger:
    """What the services have received, in the order of arrival."""

    mails: list[dict[str, object]] = field(default_factory=list)
    events: list[dict[str, object]] = field(default_factory=list)
    synced: list[int] = field(default_factory=list)
    shipped: Counter[str] = field(default_factory=Counter)
    purged: list[str] = field(default_factory=list)


class MailServer:
    """Takes mails by SMTP; aiosmtpd calls it once a mail is complete."""

    def __init__(self, ledger: Ledger, seconds: float) -> None:
        """Keep where mails go and how long the server takes for one."""
        self._ledger = ledger
        self._seconds = seconds

    async def handle_DATA(  # noqa: N802 (aiosmtpd looks for this very name)
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        """Store the mail and accept it."""
        await asyncio.sleep(self._seconds)
        raw = bytes(envelope.original_content or b"")
        self._ledger.mails.append(
            {"recipients": envelope.rcpt_tos, "raw": raw.decode(RAW)}
        )
        return "250 OK"


class WebServices:
    """Analytics, inventory and cache, spoken to by HTTP."""

    def __init__(self, ledger: Ledger, latencies: Latencies) -> None:
        """Keep what is shared by the endpoints."""
        self._ledger = ledger
        self._latencies = latencies
        self._cache: TTLCache[str, bytes] = TTLCache(maxsize=10_000, ttl=3600)

    def app(self) -> Starlette:
        """Return the ASGI application."""
        return Starlette(
            routes=[
                Route("/events", self.take_event, methods=["POST"]),
                Route("/inventory/{order:int}", self.take_lines, methods=["PUT"]),
                Route("/cache/{key:path}", self.look_up, methods=["GET"]),
                Route("/cache/{key:path}", self.keep, methods=["PUT"]),
                Route("/cache/{key:path}", self.forget, methods=["DELETE"]),
                Route("/ledger", self.show_ledger, methods=["GET"]),
            ]
        )

    async def take_event(self, request: Request) -> Response:
        """Collect one analytics event."""
        event = await request.json()
        await asyncio.sleep(self._latencies.event / 1000)
        self._ledger.events.append(event)
        return Response(status_code=202)

    async def take_lines(self, request: Request) -> Response:
        """Take an order's lines off the stock; an order counts once."""
        order, lines = request.path_params["order"], await request.json()
        await asyncio.sleep(self._latencies.inventory / 1000)
        if order not in self._ledger.synced:
            self._ledger.shipped.update(lines)
        self._ledger.synced.append(order)
        return Response(status_code=204)

    async def look_up(self, request: Request) -> Response:
        """Return a cached value."""
        value = self._cache.get(request.path_params["key"])
        if value is None:
            return Response(status_code=404)
        return Response(value, media_type="application/json")

    async def keep(self, request: Request) -> Response:
        """Cache a value."""
        self._cache[request.path_params["key"]] = await request.body()
        return Response(status_code=204)

    async def forget(self, request: Request) -> Response:
        """Drop a value, once every node of the cache has agreed."""
        await asyncio.sleep(self._latencies.cache / 1000)
        key = request.path_params["key"]
        self._cache.pop(key, None)
        self._ledger.purged.append(key)
        return Response(status_code=204)

    async def show_ledger(self, request: Request) -> Response:
        """Tell the runner what has arrived."""
        ledger = self._ledger
        return JSONResponse(
            {
                "mails": ledger.mails,
                "events": ledger.events,
                "synced": ledger.synced,
                "shipped": ledger.shipped,
                "purged": ledger.purged,
            }
        )


async def serve(latencies: Latencies) -> None:
    """Run all services until standard input ends; print their two ports first."""
    ledger = Ledger()
    loop = asyncio.get_running_loop()
    smtp_socket, http_socket = _listening(), _listening()
    mail = MailServer(ledger, latencies.mail / 1000)
    # hostname: without it aiosmtpd asks the resolver for this machine's name.
    smtp = await loop.create_server(
        lambda: SMTP(mail, hostname="localhost", loop=loop), sock=smtp_socket
    )
    web = uvicorn.Server(
        uvicorn.Config(
            WebServices(ledger, latencies).app(),
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=1,
        )
    )

    def stop() -> None:
        loop.remove_reader(sys.stdin)
        web.should_exit = True

    loop.add_reader(sys.stdin, stop)
    ports = {"smtp": _port(smtp_socket), "http": _port(http_socket)}
    print(json.dumps(ports), flush=True)
    async with smtp:
        await web.serve(sockets=[http_socket])


def _listening() -> socket.socket:
    """Return a socket that already queues connections, on a free loopback port."""
    # With the protocol named, asyncio sets TCP_NODELAY on what it accepts; without it,
    # each conversation of several lines would wait 40 ms for a delayed ACK.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    listener.setblocking(False)
    return listener


def _port(listener: socket.socket) -> int:
    """Return the port a socket listens on."""
    port: int = listener.getsockname()[1]
    return port


if __name__ == "__main__":
    asyncio.run(serve(Latencies(**json.loads(sys.argv[1]))))
