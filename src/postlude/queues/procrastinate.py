"""Procrastinate: jobs in PostgreSQL, written in the caller's own transaction.

A job waits in Procrastinate's table as one of the task `postlude:run`. Whoever defers
it keeps it from the workers by `scheduled_at`, the hold; takes it by its id when the
response has left; and is known to Procrastinate as a worker with a heartbeat meanwhile,
the lease. What is left over by a process that died is given back by a look at the
heartbeats, which Procrastinate leaves to its users. Checked on 3.10: what is used of
its schema are the functions that its own library calls, by their versioned names, and
the columns of its jobs and workers.

Workers are the web process, `postlude work`, and Procrastinate's own:
`procrastinate --app=postlude.queues.procrastinate.app worker --queues=postlude`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from threading import Event
from typing import TYPE_CHECKING, Any, cast

from postlude._settings import in_force
from postlude.exceptions import ArgumentError
from postlude.queues import _procrastinate_sql as sql
from postlude.queues._job import Job
from postlude.queues._opening import find_here
from postlude.queues._postgresql import (
    Connection,
    Database,
    executing,
    libpq,
    rows,
    split,
)
from postlude.queues._procrastinate_worker import Worker
from postlude.queues._queue import Capabilities, Execute, Lease, Run
from postlude.queues._rows import dead, foreign, plain, read

if TYPE_CHECKING:
    from postlude.failures import FailureRecord

QUEUE = "postlude"
TASK = "postlude:run"
_LOOKS = 10
"""How often in a lease somebody looks for jobs of dead processes."""
_KEPT = 86_400.0
"""Seconds that a done job with a key is kept, so that the key is known."""
_SWEEP = 600.0
_SCHEMA = (
    "POSTLUDE_QUEUE=... procrastinate --app=postlude.queues.procrastinate.app schema "
    "--apply"
)


def open_queue(address: str) -> ProcrastinateQueue:
    """Give the queue of `procrastinate+postgresql://user@host:port/database`."""
    return ProcrastinateQueue(libpq(address))


class ProcrastinateQueue:
    """Jobs in Procrastinate's tables. Any thread."""

    name = "procrastinate"

    def __init__(self, address: str) -> None:
        """Name the database by libpq's address; nothing is opened before its use."""
        self.database = Database(address, _SCHEMA)
        lease = in_force().queue_lease
        self.can = Capabilities(
            at_least_once=True,
            leases=True,
            transactional=True,
            delays=True,
            policy_per_call=True,
            keeps_failures=True,
            keys=True,
            embedded=True,
            recovery=lease + lease / _LOOKS + 1.0,
        )
        self._worker = Worker()
        self._looked = 0.0
        self._swept = time.monotonic()

    def __repr__(self) -> str:
        return f"<ProcrastinateQueue {self.database.shown()}>"

    # -- jobs ---------------------------------------------------------------

    def put(self, jobs: Sequence[Job], /, *, hold: float = 0.0) -> list[str]:
        """Write jobs in one transaction."""
        tokens = [""] * len(jobs)
        with self.database.use() as connection, connection.transaction():
            execute = executing(connection)
            first = {job.key: at for at, job in reversed([*enumerate(jobs)])}
            new = [
                at
                for at, job in enumerate(jobs)
                if job.key is None or (first[job.key] == at and _is_new(execute, job))
            ]
            names = {
                "queue": QUEUE,
                "task": TASK,
                "keys": [_key(jobs[at]) for at in new],
                "args": [_args(jobs[at]) for at in new],
                "waits": [hold or jobs[at].delay for at in new],
            }
            for at, row in zip(new, rows(connection, sql.PUT, names), strict=True):
                tokens[at] = f"{row['id']}/0"
        return tokens

    def write(self, execute: Execute, job: Job, /, *, hold: float) -> str:
        """Write a job in the transaction of *execute*."""
        with self.database.inside(execute):
            if not _is_new(execute, job):
                return ""
            names: dict[str, object] = {
                "queue": QUEUE,
                "task": TASK,
                "key": _key(job),
                "args": _args(job),
                "wait": hold or job.delay,
            }
            ((number,),) = execute(sql.WRITE, names)
        return f"{number}/0"

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
        number, attempts = map(int, token.split("/"))
        with self.database.use() as connection:
            me = self._worker.alive(connection, lease)
            found = rows(
                connection, sql.TAKE, {"me": me, "id": number, "run": attempts}
            )
        return self._leases(found)[0] if found else None

    def claim(self, most: int, lease: float, /) -> list[Lease]:
        """Take jobs that are due."""
        found: list[Any] = []
        with self.database.use() as connection:
            self._sweep(connection)
            while len(found) < most:
                me = self._worker.alive(connection, lease)
                row = rows(connection, sql.FETCH, {"queue": QUEUE, "me": me})
                if not row:
                    break
                found += row
        return self._leases(found)

    def _leases(self, found: Iterable[Mapping[str, Any]]) -> list[Lease]:
        leases = [_lease(row) for row in found]
        self._worker.took(lease.token for lease in leases)
        return leases

    def exhausted(self) -> list[tuple[Lease, str]]:
        """Let others have the jobs of dead processes; give what may not run again."""
        now = time.monotonic()
        if now - self._looked < in_force().queue_lease / _LOOKS:
            return []
        self._looked = now
        ended: list[tuple[Lease, str]] = []
        with self.database.use() as connection, connection.transaction():
            names = {"queue": QUEUE, "task": TASK, "lease": in_force().queue_lease}
            for row in rows(connection, sql.STALLED, names):
                lease = _lease(row)
                key = {"id": row["id"], "run": row["attempts"]}
                if row["attempts"] + 1 < _runs(row, lease.job):
                    rows(connection, sql.AGAIN, {**split([lease.token]), "pause": 0.0})
                    continue
                rows(connection, sql.NOTE, {**key, "failure": dead(lease)})
                rows(connection, sql.FAIL, split([lease.token]))
                ended.append((lease, f"its worker was {row['worker_id']}"))
        return ended

    def extend(
        self, held: Sequence[str], running: Sequence[str], lease: float, /
    ) -> list[str]:
        """Keep jobs: those on hold by their date, those that run by a heartbeat."""
        with self.database.use() as connection:
            self._worker.beat(connection)
            kept = rows(connection, sql.HOLD, {**split(held), "lease": lease})
            kept += rows(connection, sql.RUNNING, split(running))
            left = self._worker.left(running, lease)
            rows(connection, sql.AGAIN, {**split(left), "pause": 0.0})
        tokens = {row["token"] for row in kept}
        return [token for token in (*held, *running) if token not in tokens]

    def release(self, tokens: Sequence[str], /) -> None:
        """Let others have jobs, each when its delay is over."""
        self.database.rows(sql.RELEASE, split(tokens))

    def finish(self, tokens: Sequence[str], /) -> None:
        """The jobs are done, or not wanted."""
        self.database.rows(sql.FINISH, split(tokens))
        self._worker.gave(tokens)

    def fail(self, token: str, record: FailureRecord, pause: float | None, /) -> None:
        """The run failed."""
        with self.database.use() as connection, connection.transaction():
            if pause is not None:
                rows(connection, sql.AGAIN, {**split([token]), "pause": pause})
            else:
                self.note(connection, token, record)
                rows(connection, sql.FAIL, split([token]))
        self._worker.gave([token])

    def note(self, connection: Connection, token: str, record: FailureRecord) -> None:
        """Keep with a job what failed."""
        number, attempts = map(int, token.split("/"))
        names = {"id": number, "run": attempts, "failure": plain(record)}
        rows(connection, sql.NOTE, names)

    # -- what people see ----------------------------------------------------

    def failed(self) -> Iterable[FailureRecord]:
        """Give the jobs that failed for good, oldest first."""
        found = self.database.rows(
            "select job.id, args, attempts, "
            "extract(epoch from max(at))::float8 as ended "
            "from procrastinate_jobs as job left join procrastinate_events as event "
            "on event.job_id = job.id and type = 'failed' "
            "where status = 'failed' and task_name = %(task)s "
            "group by job.id order by max(at), job.id",
            {"task": TASK},
        )
        return [
            read(_arg(row, "failure"), lease.job, lease.attempt - 1, row["ended"])
            for row in found
            for lease in (_lease(row),)
        ]

    def retry(self, ids: Sequence[str], /) -> int:
        """Put failed jobs back for one more run."""
        found = self.database.rows(sql.RETRY, {"task": TASK, "ids": list(ids)})
        return len(found)

    def forget(self, ids: Sequence[str], /) -> int:
        """Take failed jobs out."""
        found = self.database.rows(
            "delete from procrastinate_jobs where status = 'failed' "
            "and task_name = %(task)s and args->>'id' = any(%(ids)s) returning id",
            {"task": TASK, "ids": list(ids)},
        )
        return len(found)

    def waiting(self) -> list[tuple[str, Job]]:
        """Give what nobody has begun."""
        found = self.database.rows(
            "select id, args, attempts, greatest(0, coalesce(extract(epoch from "
            "scheduled_at - now()), 0))::float8 as wait from procrastinate_jobs "
            "where status = 'todo' and task_name = %(task)s order by scheduled_at, id",
            {"task": TASK},
        )
        return [
            (
                lease.token,
                lease.job._replace(attempt=lease.attempt - 1, delay=row["wait"]),
            )
            for row in found
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
        self._worker = Worker()

    def _sweep(self, connection: Connection) -> None:
        """Delete keys that are a day old, and workers that died long ago."""
        now = time.monotonic()
        if now - self._swept < _SWEEP:
            return
        self._swept = now
        rows(
            connection,
            "delete from procrastinate_jobs as job where status = 'succeeded' "
            "and task_name = %(task)s and queueing_lock is not null and not exists "
            "(select 1 from procrastinate_events where job_id = job.id "
            "and at > now() - make_interval(secs => %(kept)s))",
            {"task": TASK, "kept": _KEPT},
        )
        rows(
            connection,
            "select procrastinate_prune_stalled_workers_v1(%(old)s)",
            {"old": 10 * in_force().queue_lease},
        )


def _args(job: Job) -> str:
    known = {"id": job.id, "job": job.text(), "runs": job.runs_left, "delay": job.delay}
    return json.dumps(known)


def _key(job: Job) -> str | None:
    return None if job.key is None else f"{QUEUE}:{job.key}"


def _is_new(execute: Execute, job: Job) -> bool:
    key = _key(job)
    if key is None:
        return True
    execute(sql.LOCK_KEY, {"key": key})
    return not execute(sql.KNOWS_KEY, {"key": key})


def _arg(row: Mapping[str, Any], name: str) -> Any:
    args = row["args"]
    return cast("dict[str, Any]", args).get(name) if isinstance(args, dict) else None


def _lease(row: Mapping[str, Any]) -> Lease:
    try:
        job = Job.read(_arg(row, "job"))
    except ArgumentError as exc:
        job = foreign(row["id"], exc)
    token = f"{row['id']}/{row['attempts']}"
    return Lease(job, token, job.attempt + row["attempts"] + 1)


def _runs(row: Mapping[str, Any], job: Job) -> int:
    runs = _arg(row, "runs")
    return runs if isinstance(runs, int) else job.runs_left


def __getattr__(name: str) -> Any:
    """Give what Procrastinate's own command asks for: it is made when it is needed."""
    if name not in {"app", "tasks"}:
        raise AttributeError(name)
    from postlude.queues import _procrastinate_tasks  # noqa: PLC0415 - its worker only

    find_here()
    return getattr(_procrastinate_tasks, name)
