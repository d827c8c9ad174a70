"""Just enough of RFC 6455 to talk to a server under test, written by hand."""

from harness.wire import Connection

TEXT = 0x1
CLOSE = 0x8
FINAL = 0x80
MASKED = 0x80
MASK = b"\0\0\0\0"  # a client must mask; this mask changes nothing
NORMAL = (1000).to_bytes(2, "big")
KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # of the RFC itself, section 1.2
HEADERS = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {KEY}",
)


class WebSocket:
    """A connection that was upgraded; messages are short texts."""

    def __init__(self, connection: Connection, target: str) -> None:
        self._connection = connection
        connection.request(target, *HEADERS)
        head = connection.read_until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head

    def ask(self, text: str) -> str:
        """Send a message and return the one that answers it."""
        self._send(TEXT, text.encode())
        kind, payload = self._receive()
        assert kind == TEXT
        return payload.decode()

    def close(self) -> None:
        """Close in order: send a close frame and wait for the server's."""
        self._send(CLOSE, NORMAL)
        kind, _ = self._receive()
        assert kind == CLOSE

    def _send(self, kind: int, payload: bytes) -> None:
        head = bytes([FINAL | kind, MASKED | len(payload)])
        self._connection.send(head + MASK + payload)

    def _receive(self) -> tuple[int, bytes]:
        kind, length = self._connection.read_exactly(2)
        return kind & 0x0F, self._connection.read_exactly(length)
