"""The embedded queue's file: one connection per thread, opened anew after an error."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

from unhinged.engine import Engine, UnhingedError

from postlude.exceptions import QueueError

_OPENING = 5.0
"""Seconds that many processes may take to open one new file at the same time."""
BUSY = 5.0
"""Seconds that another program's lock is waited for."""
_leaked: list[object] = []
"""Connections of a parent process: closing one here would harm the parent's file."""


class QueueFile:
    """Gives each thread its connection to one file that has the tables of *queue*."""

    def __init__(self, path: str, queue: str) -> None:
        """Name the file; it is made and opened with its first use."""
        self.path = path
        self._queue = queue
        self._local = threading.local()
        self._engines: list[Engine] = []

    @contextmanager
    def use(self) -> Generator[Engine]:
        """Give this thread's connection; what it raises becomes a `QueueError`."""
        try:
            yield self._opened()
        except (sqlite3.Error, UnhingedError, OSError) as exc:
            if "locked" not in str(exc):  # else the file is all right
                self._drop()
            raise QueueError(
                f"The queue file {self.path} cannot be used now ({exc}). Usually its "
                "folder is missing or belongs to another user, the disk is full, or "
                "another program keeps it locked. Mend that; nothing was written."
            ) from exc

    def close(self) -> None:
        """Close the file, for all threads."""
        engines, self._engines = self._engines, []
        self._local = threading.local()
        for engine in engines:
            engine.close()

    def forked(self) -> None:
        """Open the file anew in a forked child; SQLite forbids to carry it along."""
        _leaked.append((self._local, self._engines))
        self._local = threading.local()
        self._engines = []

    def _opened(self) -> Engine:
        engine: Engine | None = getattr(self._local, "engine", None)
        if engine is not None:
            if self._local.file == self._identity():
                return engine
            # It was moved or removed: what is written there, nobody would ever find.
            self._drop()
        deadline = time.monotonic() + _OPENING
        while True:
            try:
                return self._open()
            except sqlite3.OperationalError as exc:
                # While another process makes the file, WAL mode cannot be had.
                if "locked" not in str(exc) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _open(self) -> Engine:
        # A killed process loses nothing by "normal", only a power cut does: put() has
        # its own.
        engine = Engine(self.path, synchronous="normal", busy_timeout=BUSY)
        try:
            engine.create_queue(self._queue)
        except BaseException:
            engine.close()
            raise
        self._local.engine, self._local.file = engine, self._identity()
        self._engines.append(engine)
        return engine

    def _identity(self) -> tuple[int, int, int] | None:
        """Say which file lies there, with which log: both are gone or none is."""
        try:
            # At every use, so as cheap as it gets.
            file, log = os.stat(self.path), os.stat(f"{self.path}-wal")  # noqa: PTH116
        except OSError:
            return None
        return file.st_dev, file.st_ino, log.st_ino

    def _drop(self) -> None:
        engine: Engine | None = getattr(self._local, "engine", None)
        if engine is None:
            return
        del self._local.engine
        if engine in self._engines:
            self._engines.remove(engine)
        engine.close()
