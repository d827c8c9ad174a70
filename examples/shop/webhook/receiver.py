"""The receiver of the webhooks: an HTTP server that fails now and then, and goes down.

What it answers to the first request for an order, to the second and so on is drawn
from the seed and these two numbers alone: with the same seed it has the same bad luck,
whatever arrives when.
"""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from shop.webhook.delivery import KEY

FAILS = 0.1
"""One time in ten."""
WORK_S = 0.02
"""What the receiver takes to answer."""
OK, BROKEN = 204, 500
POLL_S = 0.02
"""How soon the server notices that it is to stop."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request that arrived."""

    order: int
    key: str | None
    """The idempotency id, if it was sent."""
    status: int
    """What it was answered."""
    at: float
    """When, in seconds of `time.monotonic`."""


@dataclass(slots=True)
class Receiver:
    """Takes webhooks; each is in `requests`, in the order of arrival."""

    seed: int
    port: int = 0
    """The same before and after it was down."""
    requests: list[Request] = field(default_factory=list)
    downtime: tuple[float, float] | None = None
    """From when to when nobody listened, in seconds of `time.monotonic`."""
    _nth: Counter[int] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closing: threading.Event = field(default_factory=threading.Event)
    _server: _Server | None = None
    _break: threading.Thread | None = None

    @property
    def is_down(self) -> bool:
        """Whether nobody listens."""
        return self._server is None

    def take(self, order: int, key: str | None) -> int:
        """Answer a request, by luck."""
        with self._lock:
            self._nth[order] += 1
            draw = random.Random(f"{self.seed}/{order}/{self._nth[order]}")  # noqa: S311 (no secret)
            status = BROKEN if draw.random() < FAILS else OK
            self.requests.append(Request(order, key, status, time.monotonic()))
        return status

    def go_down(self, seconds: float) -> None:
        """Begin a time in which nobody listens: connections are refused."""
        self._break = threading.Thread(target=self._pause, args=(seconds,), daemon=True)
        self._break.start()

    def _pause(self, seconds: float) -> None:
        self._stop()
        began = time.monotonic()
        # Bound, and not listening: so nobody else is given the port meanwhile.
        reserved = _bound(self.port)
        if self._closing.wait(seconds):
            reserved.close()
        else:
            self._listen(reserved)
            self.downtime = began, time.monotonic()

    def _listen(self, bound: socket.socket) -> None:
        self._server = _Server(self, bound)
        serve = self._server.serve_forever
        threading.Thread(target=serve, args=(POLL_S,), daemon=True).start()

    def _stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def __enter__(self) -> Self:
        """Begin to listen, on a free port."""
        bound = _bound(0)
        self.port = bound.getsockname()[1]
        self._listen(bound)
        return self

    def __exit__(self, *_: object) -> None:
        """End it, whatever it does."""
        self._closing.set()
        if self._break is not None:
            self._break.join()
        self._stop()


class _Server(ThreadingHTTPServer):
    """Listens on a socket that has its port already."""

    request_queue_size = 128

    def __init__(self, receiver: Receiver, bound: socket.socket) -> None:
        """Begin to listen."""
        super().__init__(("127.0.0.1", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = bound
        self.receiver = receiver
        self.server_activate()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a sender that hung up."""


class _Handler(BaseHTTPRequestHandler):
    """Answers one request; the connection ends with it, as HTTP/1.0 has it."""

    server: _Server

    def do_POST(self) -> None:
        """Take a webhook."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(WORK_S)
        status = self.server.receiver.take(json.loads(body)["order"], self.headers[KEY])
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name)
        """Keep the terminal clean: `requests` has it all."""


def _bound(port: int) -> socket.socket:
    """Return a socket that has a port, which keeps others away, and does not listen."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound
