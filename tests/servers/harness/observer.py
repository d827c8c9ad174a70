"""The test's ears and hands: events that servers report, gates that calls wait at.

Tests wait for what happens and never for time to pass.
"""

import json
import socket
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.wire import TIMEOUT

MARK = b"-"  # what `Journal.all` sends to itself


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a server's process, `at` nanoseconds of realtime."""

    at: int
    token: str
    what: str
    name: str
    pid: int
    thread: int
    instance: str
    detail: dict[str, Any] = field(default_factory=dict)


class Journal:
    """Collects the datagrams of all servers, in the order they were sent.

    Each belongs to the token of a test's visit, or to none, but to a process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._events: defaultdict[str, list[Event]] = defaultdict(list)
        self._news = threading.Condition()
        self._marks = 0
        self._marks_seen = 0
        self._inlet = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._inlet.bind(str(path))
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def close(self) -> None:
        """Stop listening."""
        self._send(b"")
        self._reader.join()
        self._inlet.close()

    def wait(
        self, what: str, matches: Callable[[Event], bool], token: str = ""
    ) -> Event:
        """Return the first event that matches, waiting for it if need be."""

        def find() -> Event | None:
            return next(filter(matches, self._events[token]), None)

        with self._news:
            event = self._news.wait_for(find, TIMEOUT)
            if event is None:
                recent = "\n".join(map(str, self._events[token][-12:]))
                raise AssertionError(f"No {what} was reported. The last:\n{recent}")
            return event

    def all(self, matches: Callable[[Event], bool], token: str = "") -> list[Event]:
        """Return what has been reported so far, up to the last datagram sent.

        Datagrams arrive in the order they were sent, so once a mark of our own has
        been read, so has everything before it.
        """
        with self._news:
            self._marks += 1
            mark = self._marks
        self._send(MARK)
        with self._news:
            assert self._news.wait_for(lambda: self._marks_seen >= mark, TIMEOUT)
            return list(filter(matches, self._events[token]))

    def _send(self, data: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outlet:
            outlet.sendto(data, str(self.path))

    def _listen(self) -> None:
        while data := self._inlet.recv(65_536):
            with self._news:
                if data == MARK:
                    self._marks_seen += 1
                else:
                    event = Event(**json.loads(data))
                    self._events[event.token].append(event)
                self._news.notify_all()


class Gate:
    """One call, or handler, that waits for the test."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.is_open = False

    def open(self) -> None:
        """Let it go on."""
        self.is_open = True
        self._connection.sendall(b"1")

    def wait_gone(self) -> None:
        """Wait until whoever waited here has gone: let on, cancelled, or dead."""
        self._connection.settimeout(TIMEOUT)
        try:
            assert self._connection.recv(1) == b""
        except ConnectionResetError:
            pass  # the process died with our byte unread

    def close(self) -> None:
        """Send whoever waits away without letting it finish."""
        self._connection.close()


class Gates:
    """Accepts whoever waits at a gate and hands the gate to the test that asks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: dict[tuple[str, str], Gate] = {}
        self._closed: set[str] = set()
        self._news = threading.Condition()
        self._inlet = socket.socket(socket.AF_UNIX)
        self._inlet.bind(str(path))
        self._inlet.listen(64)
        self._acceptor = threading.Thread(target=self._listen, daemon=True)
        self._acceptor.start()

    def wait(self, token: str, name: str) -> Gate:
        """Return the gate once somebody waits at it."""

        def find() -> Gate | None:
            gate = self._waiting.get((token, name))
            return None if gate is None or gate.is_open else gate

        with self._news:
            gate = self._news.wait_for(find, TIMEOUT)
            if gate is None:
                raise AssertionError(f"Nobody came to the gate {name!r} of {token}.")
            return gate

    def close_all(self, token: str) -> None:
        """Send away whoever waits with this token, now or later: its test is over."""
        with self._news:
            self._closed.add(token)
            for key in [key for key in self._waiting if key[0] == token]:
                self._waiting.pop(key).close()

    def close(self) -> None:
        """Stop listening and send everybody away."""
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(str(self.path))
            last.sendall(b"\n")
            self._acceptor.join()
        self._inlet.close()
        for gate in self._waiting.values():
            gate.close()

    def _listen(self) -> None:
        while True:
            connection, _ = self._inlet.accept()
            with connection.makefile("rb", buffering=0) as lines:
                line = lines.readline().decode().strip()
            if not line:
                connection.close()
                return
            token, name = line.split(" ")
            with self._news:
                if token in self._closed:
                    connection.close()
                    continue
                if earlier := self._waiting.get((token, name)):
                    earlier.close()
                self._waiting[token, name] = Gate(connection)
                self._news.notify_all()
