"""A client without an HTTP library: it knows the moment of the answer's last byte."""

from __future__ import annotations

import re
import socket
import time
from dataclasses import dataclass

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class WireError(OSError):
    """The server hung up in the middle, or framed its answer in another way."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, and the seconds from its request's first byte to its last byte."""

    status: int
    body: bytes
    seconds: float


class Connection:
    """One connection that is kept alive from request to request."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def exchange(self, request: bytes) -> Answer:
        """Send a request and read its whole answer.

        Raises:
            OSError: the server hung up, or did not answer in 30 s.
        """
        began = time.perf_counter()
        self._socket.sendall(request)
        received = self._socket.recv(65536)
        while received and len(received) < _size(received):
            received += self._socket.recv(65536) or self._cut()
        seconds = time.perf_counter() - began
        if not received:
            self._cut()
        head, _, body = received.partition(b"\r\n\r\n")
        return Answer(int(head.split(None, 2)[1]), body, seconds)

    def _cut(self) -> bytes:
        raise WireError(
            "The server hung up instead of answering. Usually it failed under load. "
            "See its log in build/bench/logs."
        )


def request_for(port: int, target: str, body: bytes = b"") -> bytes:
    """Write a request: a POST of JSON if it has a body, else a GET."""
    head = [
        f"{'POST' if body else 'GET'} {target} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Accept: */*",
    ]
    if body:
        head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, "", ""]).encode("ascii") + body


def get(port: int, target: str) -> bytes:
    """Fetch one page over a connection of its own."""
    connection = Connection(port)
    try:
        return connection.exchange(request_for(port, target)).body
    finally:
        connection.close()


def _size(received: bytes) -> int:
    """Tell how long the whole answer is, once its head is there (RFC 9112, 6.2)."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return len(received) + 1
    length = LENGTH.search(received, 0, end + 2)
    if length is None:
        raise WireError(
            "The answer has no Content-Length, and this client knows no other end. "
            "Usually the app streams. Let it answer in one piece."
        )
    return end + 4 + int(length[1])
