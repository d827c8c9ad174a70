"""What Procrastinate knows of this process: a worker with a heartbeat."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from postlude.queues import _procrastinate_sql as sql
from postlude.queues._postgresql import rows, split

if TYPE_CHECKING:
    from postlude.queues._postgresql import Connection


class Worker:
    """One heartbeat for all jobs that this process holds. Any thread."""

    def __init__(self) -> None:
        """Be nobody until the first job."""
        self._id: int | None = None
        self._beaten = 0.0
        self._took: dict[str, float] = {}
        self._lock = threading.Lock()

    def alive(self, connection: Connection, lease: float) -> int:
        """Give its number, with a heartbeat that is young."""
        with self._lock:
            if self._id is None or time.monotonic() - self._beaten > lease / 3:
                self.beat(connection)
            assert self._id is not None  # noqa: S101 - beat() has set it
            return self._id

    def beat(self, connection: Connection) -> None:
        """Say that it lives. Whoever was taken for dead keeps what nobody has taken."""
        if self._id is None or not rows(connection, sql.ALIVE, {"me": self._id}):
            (found,) = rows(
                connection, "select worker_id from procrastinate_register_worker_v1()"
            )
            self._id = found["worker_id"]
            rows(connection, sql.STAY, {**split(list(self._took)), "me": self._id})
        self._beaten = time.monotonic()

    def took(self, tokens: Iterable[str]) -> None:
        now = time.monotonic()
        self._took.update(dict.fromkeys(tokens, now))

    def gave(self, tokens: Iterable[str]) -> None:
        for token in tokens:
            self._took.pop(token, None)

    def left(self, running: Sequence[str], lease: float) -> list[str]:
        """Give jobs whose end could not be told: one heartbeat keeps all of them."""
        limit = time.monotonic() - lease
        took = list(self._took.items())
        left = [token for token, at in took if at < limit and token not in running]
        self.gave(left)
        return left
