"""The embedded queue: one SQLite file, no server.

The engine is unhinged, the port of Absurd's state machine to SQLite: leases, attempts
and pauses stand in the row. Checked on 0.2.0; it is young, so its version is pinned
narrowly, and this file is all that knows it. Its tables are used directly for what it
has no call for: a job put on hold, a batch of leases extended, a job forgotten.

The file must lie on a local disk: SQLite's locks do not hold on network drives.
"""
# Unhinged's own types leave open what its dicts hold.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import TYPE_CHECKING, Any

from unhinged.engine import Engine, ts

from postlude._settings import in_force
from postlude.failures._record import host_name
from postlude.queues import _sqlite_rows as rows
from postlude.queues._queue import Capabilities, Lease, Run
from postlude.queues._rows import plain
from postlude.queues._sqlite_file import QueueFile
from postlude.queues._sqlite_rows import QUEUE, RUNS, TASKS

if TYPE_CHECKING:
    from unhinged.engine import JsonValue

    from postlude.failures import FailureRecord
    from postlude.queues._job import Job

_TASK = "postlude"
_KEPT = 86_400.0
"""Seconds that a done job with a key is kept, so that the key is known."""
_SWEEP = 600.0
_LOOK = 60.0


def open_queue(address: str) -> SQLiteQueue:
    """Give the queue of `sqlite:///path`; four slashes for an absolute path."""
    return SQLiteQueue(address.partition("://")[2].removeprefix("/"))


class SQLiteQueue:
    """Jobs in a SQLite file, for all processes of one machine. Any thread."""

    name = "sqlite"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Name the file; it is made and opened with its first use."""
        self.path = os.fspath(path)
        self.can = Capabilities(
            at_least_once=True,
            leases=True,
            transactional=False,
            delays=True,
            policy_per_call=True,
            keeps_failures=True,
            keys=True,
            embedded=True,
            recovery=in_force().queue_lease + 1.0,
        )
        self._file = QueueFile(self.path, QUEUE)
        self._me = f"{host_name()}:{os.getpid()}"
        self._swept = time.monotonic()
        self._looked = -math.inf

    def __repr__(self) -> str:
        return f"<SQLiteQueue {self.path}>"

    # -- jobs ---------------------------------------------------------------

    def put(self, jobs: Sequence[Job], /, *, hold: float = 0.0) -> list[str]:
        """Write jobs in one transaction, synchronised with the disk."""
        with self._file.use() as engine:
            engine.connection.execute("pragma synchronous = full")
            try:
                with engine.transaction():
                    now = datetime.now(UTC)
                    return [self._spawn(engine, job, now, hold) for job in jobs]
            finally:
                engine.connection.execute("pragma synchronous = normal")

    def _spawn(self, engine: Engine, job: Job, now: datetime, hold: float) -> str:
        key = job.key
        if key is not None and hold:  # it may be taken back, and must not bar others
            if _known(engine, key, ""):
                return ""
            key = None
        engine.set_fake_now(now + timedelta(seconds=hold or job.delay))
        try:
            options = {"max_attempts": job.runs_left, "idempotency_key": key}
            spawned = engine.spawn_task(QUEUE, _TASK, job.text(), options)
        finally:
            engine.clear_fake_now()
        if not spawned["created"]:
            return ""
        return f"{spawned['task_id']}/{spawned['run_id']}"

    def begin(self, token: str, lease: float, /) -> Lease | None:
        """Take a job that was put on hold."""
        if not token:
            return None
        task, run = token.split("/")
        with self._file.use() as engine, engine.transaction() as database:
            now = engine.now()
            until = ts(now + timedelta(seconds=_whole(lease)))
            taken = database.execute(
                f"update {RUNS} set state = 'running', claimed_by = ?, "  # noqa: S608 - names of ours
                "claim_expires_at = ?, started_at = ?, available_at = ? "
                "where run_id = ? and state = 'pending'",
                (self._me, until, ts(now), ts(now), run),
            )
            if taken.rowcount == 0:
                return None
            database.execute(
                f"update {TASKS} set state = 'running', first_started_at = "  # noqa: S608 - as above
                "coalesce(first_started_at, ?) where task_id = ?",
                (ts(now), task),
            )
            row = database.execute(
                f"select r.run_id, r.task_id, r.attempt, t.params from {RUNS} r "  # noqa: S608 - as above
                f"join {TASKS} t on t.task_id = r.task_id where r.run_id = ?",
                (run,),
            ).fetchone()
            if row is None:  # somebody edited it
                return None
            return rows.lease_of({**dict(row), "params": rows.decoded(row["params"])})

    def claim(self, most: int, lease: float, /) -> list[Lease]:
        """Take jobs that are due."""
        with self._file.use() as engine:
            self._sweep(engine)
            if not self._is_due(engine):
                return []
            try:
                return self._claim(engine, most, lease)
            except ValueError:  # JSON or a time that somebody edited
                rows.mend(engine)
                return self._claim(engine, most, lease)

    def _claim(self, engine: Engine, most: int, lease: float) -> list[Lease]:
        with engine.transaction():
            found = engine.claim_task(QUEUE, self._me, _whole(lease), most)
            leases = [rows.lease_of(row) for row in found]
            return [one for one in leases if self._has_its_key(engine, one)]

    def _has_its_key(self, engine: Engine, lease: Lease) -> bool:
        """Take the key of a job whose process died while it was on hold.

        False: another job has it by now, and this one is gone.
        """
        if lease.job.key is None:
            return True
        task = lease.token.partition("/")[0]
        if _known(engine, lease.job.key, task):
            rows.delete(engine, task)
            return False
        _set_key(engine, task, lease.job.key)
        return True

    def _is_due(self, engine: Engine) -> bool:
        """Look without a lock whether there is anything: mostly there is not."""
        now = ts(datetime.now(UTC))
        expired, due = engine.connection.execute(
            f"select exists (select 1 from {RUNS} where state = 'running' "  # noqa: S608 - as above
            "and claim_expires_at is not null and claim_expires_at <= ?), exists "
            f"(select 1 from {RUNS} where state in ('pending', 'sleeping') "
            "and available_at <= ?)",
            (now, now),
        ).fetchone()
        if expired:
            self._looked = -math.inf
        return bool(expired or due)

    def exhausted(self) -> list[tuple[Lease, str]]:
        """Give jobs whose last process died; each once."""
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return []
        self._looked = now
        with self._file.use() as engine, engine.transaction() as database:
            found = database.execute(
                f"select r.run_id, r.task_id, r.attempt, t.params, r.failure_reason "  # noqa: S608 - as above
                f"from {RUNS} r join {TASKS} t on t.last_attempt_run = r.run_id "
                "where t.state = 'failed' and r.state = 'failed' "
                "and json_extract(r.failure_reason, '$.name') = ? limit 100",
                (rows.DIED,),
            ).fetchall()
            for row in found:
                database.execute(
                    f"update {RUNS} set failure_reason = "  # noqa: S608 - as above
                    "json_set(failure_reason, '$.name', 'ProcessDied') "
                    "where run_id = ?",
                    (row["run_id"],),
                )
        return list(map(_died, found))

    def extend(
        self, held: Sequence[str], running: Sequence[str], lease: float, /
    ) -> list[str]:
        """Keep jobs for *lease* more seconds."""
        until = ts(datetime.now(UTC) + timedelta(seconds=_whole(lease)))
        hold = (
            f"update {RUNS} set available_at = ? where run_id = ? "  # noqa: S608 - as above
            "and state = 'pending'"
        )
        keep = (
            f"update {RUNS} set claim_expires_at = ? where run_id = ? "  # noqa: S608 - as above
            "and state = 'running'"
        )
        gone: list[str] = []
        with self._file.use() as engine, engine.transaction() as database:
            for statement, tokens in ((hold, held), (keep, running)):
                for token in tokens:
                    run = token.partition("/")[2]
                    if database.execute(statement, (until, run)).rowcount == 0:
                        gone.append(token)
        return gone

    def release(self, tokens: Sequence[str], /) -> None:
        """Let others have jobs, each when its delay is over."""
        with self._file.use() as engine, engine.transaction() as database:
            now = datetime.now(UTC)
            for token in filter(None, tokens):
                task, run = token.split("/")
                found = database.execute(
                    f"select params from {TASKS} where task_id = ?",  # noqa: S608 - as above
                    (task,),
                ).fetchone()
                if found is None:
                    continue
                job = rows.job_of(task, rows.decoded(found["params"]))
                if job.key is not None:
                    if _known(engine, job.key, task):
                        rows.delete(engine, task)
                        continue
                    _set_key(engine, task, job.key)
                database.execute(
                    f"update {RUNS} set available_at = ? "  # noqa: S608 - as above
                    "where run_id = ? and state = 'pending'",
                    (ts(now + timedelta(seconds=job.delay)), run),
                )

    def finish(self, tokens: Sequence[str], /) -> None:
        """The jobs are done, or not wanted."""
        with self._file.use() as engine, engine.transaction() as database:
            for token in filter(None, tokens):
                task, run = token.split("/")
                found = database.execute(
                    f"select r.state, t.state as task, t.idempotency_key as key "  # noqa: S608 - as above
                    f"from {RUNS} r join {TASKS} t on t.task_id = r.task_id "
                    "where r.run_id = ?",
                    (run,),
                ).fetchone()
                if found is None or (
                    found["state"] != "running" and found["task"] != "pending"
                ):
                    continue  # another process has it by now
                if found["key"] is None:
                    rows.delete(engine, task)
                elif found["state"] == "running":
                    engine.complete_run(QUEUE, run)
                else:
                    engine.cancel_task(QUEUE, task)

    def fail(self, token: str, record: FailureRecord, pause: float | None, /) -> None:
        """The run failed."""
        task, run = token.split("/")
        reason: JsonValue = {"name": record.exception, "record": plain(record)}
        with self._file.use() as engine, engine.transaction() as database:
            found = database.execute(
                f"select state, attempt from {RUNS} where run_id = ?",  # noqa: S608 - as above
                (run,),
            ).fetchone()
            if found is None or found["state"] != "running":
                return  # another process has it by now
            retry_at = None
            if pause is None:
                database.execute(
                    f"update {TASKS} set max_attempts = ? where task_id = ?",  # noqa: S608 - as above
                    (found["attempt"], task),
                )
            else:
                retry_at = datetime.now(UTC) + timedelta(seconds=pause)
            engine.fail_run(QUEUE, run, reason, retry_at)

    # -- what people see ----------------------------------------------------

    def failed(self) -> Iterable[FailureRecord]:
        """Give the jobs that failed for good, oldest first."""
        with self._file.use() as engine:
            found = engine.connection.execute(
                f"select t.task_id, t.params, r.failure_reason, r.attempt, r.failed_at "  # noqa: S608 - as above
                f"from {TASKS} t join {RUNS} r on r.run_id = t.last_attempt_run "
                "where t.state = 'failed' order by r.failed_at",
            ).fetchall()
        return list(map(rows.record_of, found))

    def retry(self, ids: Sequence[str], /) -> int:
        """Put failed jobs back for one more run."""
        with self._file.use() as engine, engine.transaction():
            tasks = self._failed_tasks(engine, ids)
            for task in tasks:
                engine.retry_task(QUEUE, task)
        return len(tasks)

    def forget(self, ids: Sequence[str], /) -> int:
        """Take failed jobs out."""
        with self._file.use() as engine, engine.transaction():
            tasks = self._failed_tasks(engine, ids)
            for task in tasks:
                rows.delete(engine, task)
        return len(tasks)

    def waiting(self) -> list[tuple[str, Job]]:
        """Give what nobody has begun."""
        now = datetime.now(UTC)
        with self._file.use() as engine:
            found = engine.connection.execute(
                f"select t.task_id, t.params, r.run_id, r.attempt, r.available_at "  # noqa: S608 - as above
                f"from {TASKS} t join {RUNS} r on r.run_id = t.last_attempt_run "
                "where t.state in ('pending', 'sleeping') order by r.available_at",
            ).fetchall()
        jobs: list[tuple[str, Job]] = []
        for row in found:
            job = rows.job_of(row["task_id"], rows.decoded(row["params"]))
            left = (rows.moment(row["available_at"]) - now).total_seconds()
            attempt = job.attempt + row["attempt"] - 1
            job = job._replace(attempt=attempt, delay=max(0.0, left))
            jobs.append((f"{row['task_id']}/{row['run_id']}", job))
        return jobs

    def work(self, run: Run, stop: Event, threads: int, /) -> None:
        """Not called: engines with leases are worked on by Postlude itself."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def forked(self) -> None:
        """Open the file anew in a forked child."""
        self._file.forked()
        self._me = f"{host_name()}:{os.getpid()}"

    def _failed_tasks(self, engine: Engine, ids: Sequence[str]) -> list[str]:
        wanted = set(ids)
        found = engine.connection.execute(
            f"select task_id, params from {TASKS} where state = 'failed'"  # noqa: S608 - as above
        ).fetchall()
        return [
            row["task_id"]
            for row in found
            if rows.job_of(row["task_id"], rows.decoded(row["params"])).id in wanted
        ]

    def _sweep(self, engine: Engine) -> None:
        """Delete jobs with keys that were done a while ago, now and then."""
        now = time.monotonic()
        if now - self._swept < _SWEEP:
            return
        self._swept = now
        before = ts(datetime.now(UTC) - timedelta(seconds=_KEPT))
        with engine.transaction() as database:
            found = database.execute(
                f"select t.task_id from {TASKS} t left join {RUNS} r "  # noqa: S608 - as above
                "on r.run_id = t.last_attempt_run "
                "where t.state in ('completed', 'cancelled') "
                "and coalesce(r.completed_at, t.cancelled_at) < ?",
                (before,),
            ).fetchall()
            for row in found:
                rows.delete(engine, row["task_id"])


def _died(row: Any) -> tuple[Lease, str]:
    lease = rows.lease_of({**dict(row), "params": rows.decoded(row["params"])})
    return (
        lease,
        f"its lease was that of {rows.decoded(row['failure_reason'])['workerId']}",
    )


def _known(engine: Engine, key: str, task: str) -> Any:
    """Look for another job of a key."""
    return engine.connection.execute(
        f"select 1 from {TASKS} where idempotency_key = ? and task_id <> ?",  # noqa: S608 - as above
        (key, task),
    ).fetchone()


def _set_key(engine: Engine, task: str, key: str) -> None:
    engine.connection.execute(
        f"update {TASKS} set idempotency_key = ? where task_id = ?",  # noqa: S608 - as above
        (key, task),
    )


def _whole(seconds: float) -> int:
    return max(1, round(seconds))
