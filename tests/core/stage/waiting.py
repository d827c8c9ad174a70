"""Waiting for what must happen, and never for time."""

import asyncio
import logging
import threading

PATIENCE = 20
"""Seconds after which a test that waits for an event has failed."""


class Gate:
    """An event that a test waits for, or holds a call with; never for ever."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def open(self) -> None:
        """Let everybody through."""
        self._event.set()

    def wait(self) -> None:
        """Block this thread until the gate is open."""
        assert self._event.wait(PATIENCE), "nobody opened the gate"

    @property
    def is_open(self) -> bool:
        """Whether somebody has opened the gate."""
        return self._event.is_set()

    async def passed(self) -> None:
        """Wait in a coroutine until the gate is open."""
        await asyncio.to_thread(self.wait)


async def settle() -> None:
    """Let the loop do all that is ready, so that what is not done has to wait."""
    for _ in range(20):
        await asyncio.sleep(0)


class Listener(logging.Handler):
    """Keeps what Postlude logs, and tells who waits for a text."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []
        self._came = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record."""
        with self._came:
            self.records.append(record)
            self._came.notify_all()

    def texts(self, level: int = logging.DEBUG) -> list[str]:
        """Give the texts of that level and above."""
        return [r.getMessage() for r in self.records if r.levelno >= level]

    def wait_for(self, part: str) -> str:
        """Block until a text with *part* in it comes, and give it."""

        def found() -> list[str]:
            return [text for text in self.texts() if part in text]

        with self._came:
            assert self._came.wait_for(found, PATIENCE), f"no text has {part!r}"
        return found()[0]
