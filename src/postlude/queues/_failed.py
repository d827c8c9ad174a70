"""Failed jobs and failed calls as one list, for people (E2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from postlude.failures import (
        Batch,
        FailureRecord,
        FailureStore,
        ProcessRecord,
        Tally,
    )
    from postlude.queues._queue import Queue


class WithFailedJobs:
    """A failure store, and behind it the failed jobs of an engine that keeps them.

    A job that failed for good is in both where the store survives its process, and is
    shown once. Running it again puts it back on the queue: there its worker is.
    """

    immediate = False

    def __init__(self, store: FailureStore, queue: Queue) -> None:
        """Put *queue*, an engine with `can.keeps_failures`, behind *store*."""
        self._store = store
        self._queue = queue

    def __repr__(self) -> str:
        return f"{self._store!r} with the failed jobs of {self._queue!r}"

    def requeue(self, record: FailureRecord) -> bool:
        """Put a failed job back on its queue; False if *record* is of none."""
        if not self._queue.retry([record.id]):
            return False
        self._store.forget([record.id])
        return True

    def write(self, batch: Batch, /) -> None:
        """Keep what is no job in the store."""
        self._store.write(batch)

    def list(
        self,
        *,
        limit: int | None = None,
        since: float | None = None,
        name: str | None = None,
        state: str | None = None,
    ) -> Iterable[FailureRecord]:
        """Give both, oldest first."""
        found = {
            record.id: record
            for record in self._queue.failed()
            if (since is None or record.ended >= since)
            and (name is None or name in {record.name, record.function})
            and (state is None or state == record.state)
        }
        stored = self._store.list(limit=limit, since=since, name=name, state=state)
        found |= {record.id: record for record in stored}
        both = sorted(found.values(), key=lambda record: record.ended)
        return both if limit is None else both[-limit:]

    def find(self, prefix: str, /) -> Iterable[FailureRecord]:
        """Give the records whose id begins with *prefix*, ten at most."""
        found = {r.id: r for r in self._queue.failed() if r.id.startswith(prefix)}
        found |= {record.id: record for record in self._store.find(prefix)}
        return list(found.values())[:10]

    def count(self) -> int:
        """Give the number of both, what is in both once."""
        return len(list(self.list()))

    def forget(self, ids: Iterable[str], /) -> int:
        """Take records out, wherever they are."""
        ids = list(ids)
        known = {record.id for record in self._queue.failed()}
        gone = self._queue.forget([one for one in ids if one in known])
        stored = self._store.forget(ids)
        return max(gone, stored, len(known & set(ids)))

    def prune(self, *, before: float, keep: int | None = None) -> int:
        """Take out what is old, wherever it is."""
        records = list(self.list())
        old = {record.id for record in records if record.ended < before}
        if keep is not None and len(records) > keep:
            old |= {record.id for record in records[: len(records) - keep]}
        self._queue.forget(list(old))
        self._store.prune(before=before, keep=keep)
        return len(old)

    def tallies(self, since: float, /) -> Iterable[Tally]:
        """Give the numbers of the store."""
        return self._store.tallies(since)

    def processes(self, since: float, /) -> Iterable[ProcessRecord]:
        """Give the processes of the store."""
        return self._store.processes(since)

    def close(self) -> None:
        """Let go of both."""
        self._store.close()
        self._queue.close()
