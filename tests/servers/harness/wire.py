"""A raw HTTP/1 client that knows when each byte arrived. No HTTP library, on purpose.

The clock: on Linux the kernel stamps each segment when it is queued to this end
(SO_TIMESTAMPNS, socket(7)). On loopback that happens inside the server's own write, so
the stamp is the hand-over itself and does not depend on when this process was
scheduled: `begin >= last_byte_at` needs no tolerance, as long as the response fits what
the kernel takes in without this process reading (`Connection.capacity`).

Elsewhere, and where a FIN had come before the byte was read (the kernel joins the two,
and the stamp would be the FIN's), it is the last moment at which this process looked
and the byte had not arrived. That is never later than the truth: a test cannot fail
wrongly by it, but may overlook something.
"""

import contextlib
import re
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

TIMEOUT = 10.0  # seconds; how long a test that waits for something held takes to fail
SO_TIMESTAMPNS = 35  # asm-generic/socket.h; the socket module does not name it
TCP_ESTABLISHED = 1  # net/tcp_states.h
STAMPED_BY_KERNEL = sys.platform == "linux"
RECEIVE_BUFFER = 4 << 20  # bytes; the kernel grants less where its limit is lower
ATTEMPTS = 500  # to see the first stamp, 10 ms each
TIMESPEC = struct.Struct("@ll")
NO_BODY = {204, 205, 304}


def now() -> int:
    """Return the nanoseconds of the clock the kernel stamps packets with."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME)


@dataclass(frozen=True, slots=True)
class Response:
    """A response, how its end was marked, and when its last byte arrived."""

    status: int
    headers: dict[str, str]
    body: bytes
    framing: str
    last_byte_at: int

    @property
    def closes(self) -> bool:
        """Tell whether the server announced the end of the connection."""
        return self.headers.get("connection", "").lower() == "close"


class WireError(AssertionError):
    """What came is no complete response."""


class Connection:
    """One TCP connection to a server under test."""

    def __init__(self, port: int) -> None:
        self._socket = _open_socket(port)
        self._data = bytearray()
        self._read = 0
        self._arrivals: list[tuple[int, int]] = []
        self._quiet_at = now()
        self.all_stamped = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def capacity(self) -> int:
        """How many bytes arrive without this process reading, at the least.

        Linux grants the double of what it takes, for its own bookkeeping (socket(7)).
        """
        granted = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        return granted // 2

    @property
    def last_read_at(self) -> int:
        """When the last byte that was read so far arrived.

        Raises:
            WireError: the kernel did not stamp it though it can.
        """
        if STAMPED_BY_KERNEL and not self.all_stamped:
            raise WireError("The kernel left out a time stamp.")
        return next(at for end, at in self._arrivals if end >= self._read)

    def close(self) -> None:
        """Close in order: the server sees FIN."""
        self._socket.close()

    def reset(self) -> None:
        """Break off: the server sees RST."""
        linger = struct.pack("ii", 1, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send raw bytes."""
        self._socket.sendall(data)

    def request(
        self, target: str, *headers: str, method: str = "GET", version: str = "1.1"
    ) -> None:
        """Send a request without a body."""
        self.send(request_bytes(target, *headers, method=method, version=version))

    def get(self, target: str, *headers: str, method: str = "GET") -> Response:
        """Send a request and read its response."""
        self.request(target, *headers, method=method)
        return self.read_response(method)

    def read_response(self, method: str = "GET") -> Response:
        """Read one response to its end, as its own framing says."""
        head = self.read_until(b"\r\n\r\n").decode("latin-1")
        status_line, *lines = head.rstrip().split("\r\n")
        status = int(status_line.split(" ")[1])
        pairs = (line.split(":", 1) for line in lines)
        headers = {name.lower(): value.strip() for name, value in pairs}
        framing = _framing(method, status, headers)
        body = self._read_body(framing, headers)
        return Response(status, headers, body, framing, self.last_read_at)

    def read_until(self, mark: bytes) -> bytes:
        """Read up to and including `mark`."""
        while (found := self._data.find(mark, self._read)) < 0:
            if not self._receive():
                raise WireError(f"EOF before {mark!r}, after {self._rest()[-200:]!r}")
        return self.read_exactly(found + len(mark) - self._read)

    def read_exactly(self, count: int) -> bytes:
        """Read `count` bytes."""
        end = self._read + count
        while len(self._data) < end:
            if not self._receive():
                raise WireError(f"EOF at byte {len(self._data)} of {end}")
        data = bytes(self._data[self._read : end])
        self._read = end
        return data

    def read_to_eof(self) -> bytes:
        """Read until the server's FIN; times out when it does not come."""
        while self._receive():
            pass
        return self._rest()

    def read_rest(self) -> bytes:
        """Read what still comes until the response ends, in order or not."""
        while b"0\r\n\r\n" not in self._data[self._read :] and self._receive():
            pass
        return self._rest()

    def _rest(self) -> bytes:
        rest = bytes(self._data[self._read :])
        self._read = len(self._data)
        return rest

    def _read_body(self, framing: str, headers: dict[str, str]) -> bytes:
        if framing == "length":
            return self.read_exactly(int(headers["content-length"]))
        if framing == "eof":
            return self.read_to_eof()
        return self._read_chunks() if framing == "chunked" else b""

    def _read_chunks(self) -> bytes:
        body = bytearray()
        while size := int(self.read_until(b"\r\n").split(b";")[0], 16):
            body += self.read_exactly(size)
            self.read_exactly(2)
        self.read_until(b"\r\n")
        return bytes(body)

    def _receive(self) -> bool:
        """Receive what there is, noting when; return False at EOF."""
        looked_at = now()
        if not select.select([self._socket], [], [], 0)[0]:
            self._quiet_at = looked_at
        data, ancillary, _, _ = self._socket.recvmsg(1 << 20, 64)
        if not data:
            return False
        self._data += data
        stamp = _kernel_stamp(ancillary)
        self.all_stamped = self.all_stamped and stamp is not None
        if stamp is None or _is_half_closed(self._socket):
            stamp = self._quiet_at
        self._arrivals.append((len(self._data), stamp))
        return True


@contextlib.contextmanager
def stamping() -> Iterator[None]:
    """Have the kernel stamp what arrives, as long as the block lasts.

    It does so while any socket asks for it, and begins some time after the first one
    does: so one socket asks all the time, until the first stamp is seen.
    """
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Connection(listener.getsockname()[1]) as client,
        listener.accept()[0] as end,
    ):
        for _ in range(ATTEMPTS if STAMPED_BY_KERNEL else 0):
            client.all_stamped = True
            end.sendall(b"?")
            client.read_exactly(1)
            if client.all_stamped:
                break
            time.sleep(0.01)
        yield


def _open_socket(port: int) -> socket.socket:
    opened = socket.socket()
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        if STAMPED_BY_KERNEL:
            opened.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        opened.settimeout(TIMEOUT)
        opened.connect(("127.0.0.1", port))
    except BaseException:
        opened.close()
        raise
    return opened


def request_bytes(
    target: str, *headers: str, method: str = "GET", version: str = "1.1"
) -> bytes:
    """Return the bytes of a request without a body."""
    lines = [f"{method} {target} HTTP/{version}", "Host: probe", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _framing(method: str, status: int, headers: dict[str, str]) -> str:
    """Say how the end of the message is marked (RFC 9112, section 6.3)."""
    if method == "HEAD" or status in NO_BODY:
        return "head"
    if re.search(r"\bchunked$", headers.get("transfer-encoding", "")):
        return "chunked"
    return "length" if "content-length" in headers else "eof"


def _is_half_closed(connection: socket.socket) -> bool:
    state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state != TCP_ESTABLISHED


def _kernel_stamp(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    for level, kind, data in ancillary:
        if STAMPED_BY_KERNEL and (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
            seconds, nanoseconds = TIMESPEC.unpack(data)
            return seconds * 1_000_000_000 + nanoseconds
    return None
