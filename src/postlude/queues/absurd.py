"""Absurd: the embedded engine's twin in PostgreSQL, for more than one machine.

Leases, attempts and pauses stand in its rows. Used are its SQL functions, and its
tables for what it has no function for: a job put on hold or taken by its id, a batch of
leases extended, a job forgotten. Checked on 0.5.1; it is young, so this file and its
statements are all that knows it. Its client library is not needed; its command
`absurdctl` makes the tables.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from threading import Event
from typing import TYPE_CHECKING, Any, cast

from postlude._settings import in_force
from postlude.exceptions import ArgumentError
from postlude.failures._record import host_name
from postlude.queues import _absurd_sql as sql
from postlude.queues._job import Job
from postlude.queues._postgresql import Database, executing, libpq, rows
from postlude.queues._queue import Capabilities, Execute, Lease, Run
from postlude.queues._rows import foreign, plain, read

if TYPE_CHECKING:
    from postlude.failures import FailureRecord

_LOOKS = 10
"""How often in a lease somebody looks for jobs that nobody may run any more."""
_SWEEP = 600.0
_SCHEMA = (
    "absurdctl init --database=ADDRESS && "
    "absurdctl create-queue --database=ADDRESS postlude"
)


def open_queue(address: str) -> AbsurdQueue:
    """Give the queue of `absurd+postgresql://user@host:port/database`."""
    return AbsurdQueue(libpq(address))


class AbsurdQueue:
    """Jobs in Absurd's tables. Any thread."""

    name = "absurd"

    def __init__(self, address: str) -> None:
        """Name the database by libpq's address; nothing is opened before its use."""
        self.database = Database(address, _SCHEMA)
        self.can = Capabilities(
            at_least_once=True,
            leases=True,
            transactional=True,
            delays=True,
            policy_per_call=True,
            keeps_failures=True,
            keys=True,
            embedded=True,
            recovery=in_force().queue_lease + 1.0,
        )
        self._me = f"{host_name()}:{os.getpid()}"
        self._looked = 0.0
        self._swept = time.monotonic()

    def __repr__(self) -> str:
        return f"<AbsurdQueue {self.database.shown()}>"

    # -- jobs ---------------------------------------------------------------

    def put(self, jobs: Sequence[Job], /, *, hold: float = 0.0) -> list[str]:
        """Write jobs in one transaction."""
        with self.database.use() as connection, connection.transaction():
            execute = executing(connection)
            return [_spawn(execute, job, hold) for job in jobs]

    def write(self, execute: Execute, job: Job, /, *, hold: float) -> str:
        """Write a job in the transaction of *execute*."""
        return _spawn(execute, job, hold)

    def identity(self) -> object:
        """Say which database this is."""
        return self.database.identity()

    def is_at(self, database: str, /) -> bool:
        """Tell by its name in records whether a database may be this one."""
        return self.database.is_at(database)

    def begin(self, token: str, lease: float, /) -> Lease | None:
        """Take a job that was put on hold."""
        if not token:
            return None
        names = {"run": _runs([token])[0], "me": self._me, "lease": lease}
        found = self.database.rows(sql.TAKE, names)
        return _lease(found[0]) if found else None

    def claim(self, most: int, lease: float, /) -> list[Lease]:
        """Take jobs that are due."""
        self._sweep()
        names = {"me": self._me, "lease": max(1, round(lease)), "most": most}
        return [_lease(row) for row in self.database.rows(sql.CLAIM, names)]

    def exhausted(self) -> list[tuple[Lease, str]]:
        """Give jobs whose last process died; each once."""
        now = time.monotonic()
        if now - self._looked < in_force().queue_lease / _LOOKS:
            return []
        self._looked = now
        return [
            (_lease(row), f"seen by the lease of {row['worker']}")
            for row in self.database.rows(sql.EXHAUSTED)
        ]

    def extend(
        self, held: Sequence[str], running: Sequence[str], lease: float, /
    ) -> list[str]:
        """Keep jobs for *lease* more seconds."""
        with self.database.use() as connection:
            names = {"runs": _runs(held), "lease": lease}
            kept = rows(connection, sql.HOLD, names)
            names = {"runs": _runs(running), "lease": lease}
            kept += rows(connection, sql.KEEP, names)
        found = {str(row["run_id"]) for row in kept}
        tokens = (*held, *running)
        return [token for token in tokens if token.partition("/")[2] not in found]

    def release(self, tokens: Sequence[str], /) -> None:
        """Let others have jobs, each when its delay is over."""
        self.database.rows(sql.RELEASE, {"runs": _runs(tokens)})

    def finish(self, tokens: Sequence[str], /) -> None:
        """The jobs are done, or not wanted."""
        with self.database.use() as connection, connection.transaction():
            rows(connection, sql.COMPLETE, {"runs": _runs(tokens)})
            rows(connection, sql.CANCEL, {"runs": _runs(tokens)})

    def fail(self, token: str, record: FailureRecord, pause: float | None, /) -> None:
        """The run failed; another process may have it by now."""
        name = (record.exception or "").replace("\x00", "")
        reason = json.dumps({"name": name, "record": plain(record)})
        (run,) = _runs([token])
        with self.database.use() as connection, connection.transaction():
            if pause is None:
                rows(connection, sql.LAST, {"run": run})
            names = {"run": run, "reason": reason, "pause": pause}
            rows(connection, sql.FAIL, names)

    # -- what people see ----------------------------------------------------

    def failed(self) -> Iterable[FailureRecord]:
        """Give the jobs that failed for good, oldest first."""
        return [
            read(row["record"], lease.job, lease.attempt, row["ended"])
            for row in self.database.rows(sql.FAILED)
            for lease in (_lease(row),)
        ]

    def retry(self, ids: Sequence[str], /) -> int:
        """Put failed jobs back for one more run."""
        return len(self.database.rows(sql.RETRY, {"ids": list(ids)}))

    def forget(self, ids: Sequence[str], /) -> int:
        """Take failed jobs out."""
        with self.database.use() as connection, connection.transaction():
            found = rows(connection, sql.FIND_FAILED, {"ids": list(ids)})
            self._delete(connection, [row["task_id"] for row in found])
        return len(found)

    def waiting(self) -> list[tuple[str, Job]]:
        """Give what nobody has begun."""
        return [
            (
                lease.token,
                lease.job._replace(attempt=lease.attempt - 1, delay=row["wait"]),
            )
            for row in self.database.rows(sql.WAITING)
            for lease in (_lease(row),)
        ]

    def work(self, run: Run, stop: Event, threads: int, /) -> None:
        """Not called: engines with leases are worked on by Postlude itself."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the connections."""
        self.database.close()

    def forked(self) -> None:
        """Be another worker, with connections of its own, in a forked child."""
        self.database.forked()
        self._me = f"{host_name()}:{os.getpid()}"

    def _sweep(self) -> None:
        """Delete what was done a while ago, now and then."""
        now = time.monotonic()
        if now - self._swept < _SWEEP:
            return
        self._swept = now
        with self.database.use() as connection, connection.transaction():
            found = rows(connection, sql.OLD)
            self._delete(connection, [row["task_id"] for row in found])

    def _delete(self, connection: Any, tasks: list[Any]) -> None:
        for statement in sql.DELETE:
            rows(connection, statement, {"tasks": tasks})


def _spawn(execute: Execute, job: Job, hold: float) -> str:
    params = {"id": job.id, "job": job.text(), "delay": job.delay}
    options: dict[str, object] = {"max_attempts": job.runs_left}
    if job.key is not None:
        options["idempotency_key"] = job.key
    names = {"params": json.dumps(params), "options": json.dumps(options)}
    ((task, run, created),) = execute(sql.SPAWN, names)
    if not created:
        return ""
    if wait := hold or job.delay:
        execute(sql.WAIT, {"run": str(run), "wait": wait})
    return f"{task}/{run}"


def _runs(tokens: Iterable[str]) -> list[str]:
    return [token.partition("/")[2] for token in tokens if token]


def _lease(row: Mapping[str, Any]) -> Lease:
    params = row["params"]
    try:
        given = cast("dict[str, Any]", params) if isinstance(params, dict) else {}
        job = Job.read(given.get("job"))
    except ArgumentError as exc:
        job = foreign(row["task_id"], exc)
    token = f"{row['task_id']}/{row['run_id']}"
    return Lease(job, token, job.attempt + row["attempt"])
