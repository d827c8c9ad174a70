"""A client without an HTTP library: it knows the moment of the answer's last byte."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass


class WireError(OSError):
    """The server hung up in the middle, or spoke what this client does not."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer with its time stamps, in seconds of `time.monotonic`."""

    status: int
    body: bytes
    sent: float
    """Before the connection was opened."""
    last_byte: float
    """When the last byte of the body was read."""

    @property
    def waited(self) -> float:
        """Seconds the customer waited."""
        return self.last_byte - self.sent


def exchange(
    port: int, method: str, target: str, payload: object = None, timeout: float = 60
) -> Answer:
    """Send one request over a fresh connection and read the whole answer.

    Raises:
        OSError: when nobody listens, or nobody answers within the timeout (seconds).
        WireError: when the answer is cut or framed in an unknown way.
    """
    body = b"" if payload is None else json.dumps(payload).encode()
    request = (
        f"{method} {target} HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{port}\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode("ascii") + body
    sent = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.sendall(request)
        received = b""
        while (end := _end(received)) is None or len(received) < end:
            piece = connection.recv(65536)
            last_byte = time.monotonic()
            if not piece:
                raise WireError(f"the answer to {method} {target} was cut")
            received += piece
    head, _, content = received.partition(b"\r\n\r\n")
    return Answer(int(head.split()[1]), content, sent, last_byte)


def _end(received: bytes) -> int | None:
    """Return how long the whole answer is, None while its head is incomplete.

    Only answers with a Content-Length (RFC 9112 section 6.2) are understood: all three
    frameworks send one with JSON.
    """
    head, blank, _ = received.partition(b"\r\n\r\n")
    if not blank:
        return None
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return len(head) + len(blank) + int(value)
    raise WireError("the answer has no Content-Length")
