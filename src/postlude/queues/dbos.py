"""DBOS on PostgreSQL: jobs as workflows, written in the caller's own transaction.

A job waits as a workflow `postlude_run` in the queue `postlude`. It is written with
DBOS's SQL function, so that any connection can, and who writes one needs no DBOS. A run
that is to be followed by another ends well, and has written a workflow that waits.

Who runs a workflow is an executor, and DBOS recovers those of its own name only. Each
worker has a name of its own, and holds a lock of PostgreSQL's by that name; what a name
has left whose lock is free, any other worker gives back. Checked on DBOS 3.4.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from threading import Event
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from postlude.exceptions import ArgumentError
from postlude.queues import _dbos_sql as sql
from postlude.queues._job import Job
from postlude.queues._postgresql import Connection, Database, executing, libpq, rows
from postlude.queues._queue import Capabilities, Execute, Run
from postlude.queues._rows import foreign, read

if TYPE_CHECKING:
    from postlude.failures import FailureRecord

LOOK = 5.0
"""Seconds between a worker's looks for the dead; who is dead is so in two of them, so
that a worker can come back whose connection broke."""
_SILENCE = 15.0
"""Seconds after which PostgreSQL gives up the connection of a machine that is gone."""
_SWEEP = 600.0
_SCHEMA = "dbos migrate --sys-db-url ADDRESS, or start a worker: postlude work"


def open_queue(address: str) -> DBOSQueue:
    """Give the queue of `dbos+postgresql://user@host:port/database`."""
    return DBOSQueue(libpq(address))


class DBOSQueue:
    """Jobs in DBOS's tables. Any thread."""

    name = "dbos"
    can = Capabilities(
        at_least_once=True,
        leases=False,
        transactional=True,
        delays=True,
        policy_per_call=False,
        keeps_failures=True,
        keys=True,
        embedded=False,
        recovery=_SILENCE + 2 * LOOK + 2.0,
    )

    def __init__(self, address: str) -> None:
        """Name the database by libpq's address; nothing is opened before its use."""
        self.database = Database(address, _SCHEMA)
        self._swept = time.monotonic()

    def __repr__(self) -> str:
        return f"<DBOSQueue {self.database.shown()}>"

    # -- jobs ---------------------------------------------------------------

    def put(self, jobs: Sequence[Job], /, *, hold: float = 0.0) -> list[str]:
        """Write jobs in one transaction."""
        with self.database.use() as connection, connection.transaction():
            execute = executing(connection)
            return [self.write(execute, job, hold=hold) for job in jobs]

    def write(self, execute: Execute, job: Job, /, *, hold: float) -> str:
        """Write a job in the transaction of *execute*."""
        del hold  # for engines with leases
        if job.key is None:
            return _enqueue(execute, f"{job.id}-{uuid4().hex[:8]}#0", job)
        first = f"key:{job.key}#0"
        if execute(sql.KNOWN, {"id": first}):
            return ""
        return _enqueue(execute, first, job)  # of two at once DBOS keeps one

    def identity(self) -> object:
        """Say which database this is."""
        return self.database.identity()

    def is_at(self, database: str, /) -> bool:
        """Tell by its name in records whether a database may be this one."""
        return self.database.is_at(database)

    # -- workers ------------------------------------------------------------

    def work(self, run: Run, stop: Event, threads: int, /) -> None:
        """Run DBOS in this process, with *threads* workflows at a time."""
        from postlude.queues import _dbos_worker  # noqa: PLC0415 - it loads DBOS

        _dbos_worker.Worker(self, run).work(stop, threads)

    def starts(self, workflow: str) -> int:
        """Give how often a workflow was begun, this time included."""
        found = self.database.rows(sql.STARTS, {"id": workflow})
        return int(found[0]["starts"]) if found else 1

    def again(self, workflow: str, job: Job) -> None:
        """Write what follows a workflow; once, however often that is asked."""
        stem, _, number = workflow.rpartition("#")
        if not number.isdecimal():  # DBOS's own tools name a workflow otherwise
            stem, number = workflow, "0"
        with self.database.use() as connection:
            execute = executing(connection)
            _enqueue(execute, f"{stem}#{int(number) + 1}", job)

    def sweep(self) -> None:
        """Delete what was done a while ago, now and then."""
        now = time.monotonic()
        if now - self._swept < _SWEEP:
            return
        self._swept = now
        with self.database.use() as connection, connection.transaction():
            _clear(connection, rows(connection, sql.OLD, {}))

    # -- what people see ----------------------------------------------------

    def failed(self) -> Iterable[FailureRecord]:
        """Give the jobs that failed for good, oldest first."""
        return [
            read(_record(row), job, job.attempt + row["starts"], row["ended"])
            for row in self.database.rows(sql.FAILED)
            for job in (_job(row),)
        ]

    def retry(self, ids: Sequence[str], /) -> int:
        """Put failed jobs back for one more run."""
        return len(self._take_out(ids, again=True))

    def forget(self, ids: Sequence[str], /) -> int:
        """Take failed jobs out."""
        return len(self._take_out(ids, again=False))

    def _take_out(self, ids: Sequence[str], *, again: bool) -> list[str]:
        with self.database.use() as connection, connection.transaction():
            found = {
                row["workflow_uuid"]: job
                for row in rows(connection, sql.FAILED)
                for job in (_job(row),)
                if job.id in ids and (job.function or not again)
            }
            gone = rows(connection, sql.TAKE_OUT, {"ids": list(found)})
            taken = _clear(connection, gone)
            for one in taken if again else ():
                job = found[one]._replace(attempt=found[one].retries, delay=0.0)
                _enqueue(executing(connection), one, job)
        return taken

    def close(self) -> None:
        """Close the connections."""
        self.database.close()

    def forked(self) -> None:
        """Have connections of its own in a forked child."""
        self.database.forked()


def _enqueue(execute: Execute, workflow: str, job: Job) -> str:
    names: dict[str, object] = {"id": workflow, "job": job.text(), "delay": job.delay}
    execute(sql.ENQUEUE, names)
    return workflow


def _clear(connection: Connection, gone: Iterable[Mapping[str, Any]]) -> list[str]:
    ids = [str(row["workflow_uuid"]) for row in gone]
    for statement in sql.LEFT_OVER:
        rows(connection, statement, {"ids": ids})
    return ids


def _job(row: Mapping[str, Any]) -> Job:
    try:
        (text,) = json.loads(row["inputs"])["positionalArgs"]
        return Job.read(text)
    except (ValueError, TypeError, KeyError, ArgumentError) as exc:
        return foreign(row["workflow_uuid"], ArgumentError(f"it is no job ({exc})"))


def _record(row: Mapping[str, Any]) -> str | None:
    """Give the record in the error that ended a workflow, as JSON."""
    try:
        return json.dumps(json.loads(row["error"])["data"])
    except (ValueError, TypeError, KeyError):
        return None
