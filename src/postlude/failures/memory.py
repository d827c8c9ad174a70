"""The store that is always there: the newest records, in this process's memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from postlude.failures import _forks
from postlude.failures._store import Tally

__all__ = ["MemoryFailureStore"]

if TYPE_CHECKING:
    from postlude.failures._record import FailureRecord
    from postlude.failures._store import Batch, ProcessRecord

_NONE = Tally(0, "", "", "", "", 0, 0.0)

_DAY = 24 * 60
"""Minutes that numbers are kept."""


class MemoryFailureStore:
    """Keeps the newest *kept* records; the oldest makes room. Any thread."""

    immediate = True

    def __init__(self, kept: int) -> None:
        """Make an empty store."""
        self._kept = kept
        self._records: OrderedDict[str, FailureRecord] = OrderedDict()
        self._tallies: dict[tuple[int, str, str, str, str], Tally] = {}
        self._process: ProcessRecord | None = None
        self._lock = threading.Lock()
        _forks.take_part(self)

    def __repr__(self) -> str:
        return f"<MemoryFailureStore {len(self._records)} of {self._kept}>"

    def write(self, batch: Batch) -> None:
        """Keep *batch*."""
        with self._lock:
            for record in batch.failures:
                self._records[record.id] = record
                self._records.move_to_end(record.id)
            while len(self._records) > self._kept:
                self._records.popitem(last=False)
            for tally in batch.tallies:
                known = self._tallies.get(tally[:5], _NONE)
                self._tallies[tally[:5]] = tally._replace(
                    count=known.count + tally.count, total=known.total + tally.total
                )
            self._process = batch.process or self._process
            if self._tallies and batch.tallies:
                oldest = max(key[0] for key in self._tallies) - _DAY
                for key in [key for key in self._tallies if key[0] < oldest]:
                    del self._tallies[key]

    def list(
        self,
        *,
        limit: int | None = None,
        since: float | None = None,
        name: str | None = None,
        state: str | None = None,
    ) -> Sequence[FailureRecord]:
        """Give records, oldest first; with *limit* the newest so many."""
        found = [
            record
            for record in self._snapshot()
            if (since is None or record.ended >= since)
            and (name is None or name in {record.name, record.function})
            and (state is None or record.state == state)
        ]
        return found if limit is None else found[max(0, len(found) - limit) :]

    def find(self, prefix: str) -> Sequence[FailureRecord]:
        """Give the records whose id begins with *prefix*, ten at most."""
        return [r for r in self._snapshot() if r.id.startswith(prefix)][:10]

    def count(self) -> int:
        """Give the number of records kept."""
        return len(self._records)

    def forget(self, ids: Iterable[str]) -> int:
        """Take records out; gives how many were there."""
        with self._lock:
            return self._take_out(ids)

    def prune(self, *, before: float, keep: int | None = None) -> int:
        """Take out what is older than *before*, and the oldest beyond *keep*."""
        with self._lock:
            for key in [key for key in self._tallies if key[0] * 60 < before]:
                del self._tallies[key]
            line = [*self._records.values()]
            beyond = 0 if keep is None else max(0, len(line) - keep)
            old = (record.id for record in line[beyond:] if record.ended < before)
            return self._take_out([*(record.id for record in line[:beyond]), *old])

    def tallies(self, since: float) -> Sequence[Tally]:
        """Give the numbers of all minutes from *since* (Unix seconds) on."""
        with self._lock:
            return [t for t in self._tallies.values() if t.minute >= since // 60]

    def processes(self, since: float) -> Sequence[ProcessRecord]:
        """Give this process, if it was seen from *since* on."""
        process = self._process
        return [process] if process is not None and process.seen >= since else []

    def _snapshot(self) -> Sequence[FailureRecord]:
        with self._lock:
            return [*self._records.values()]

    def _take_out(self, ids: Iterable[str]) -> int:
        return sum(self._records.pop(one, None) is not None for one in ids)

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    def before_fork(self) -> None:
        """Hold the lock, so that no other thread does when the child is made."""
        self._lock.acquire()

    def after_fork(self, *, in_child: bool) -> None:  # noqa: ARG002 - the same in both
        """Go on."""
        self._lock.release()
