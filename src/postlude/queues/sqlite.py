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

import os
import sqlite3
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import TYPE_CHECKING, Any, cast

from unhinged.engine import EPOCH, Engine, EnginePool, UnhingedError, ts
from unhinged.schema import table

from postlude._settings import in_force
from postlude.exceptions import ArgumentError, QueueError
from postlude.failures import FailureRecord
from postlude.failures._record import host_name
from postlude.queues._job import Job
from postlude.queues._queue import Capabilities, Lease, Run

if TYPE_CHECKING:
    from unhinged.engine import JsonValue

_QUEUE = "postlude"
_TASK = "postlude"
_RUNS = table("r", _QUEUE)
_TASKS = table("t", _QUEUE)
_OPENING = 10.0
"""Seconds that many processes may take to open one new file at the same time."""
_KEPT = 3600.0
"""Seconds that a done job is kept; with a key a day, so that the key is known."""
_SWEEP = 600.0
_LOOK = 60.0
_DIED = "$ClaimTimeout"
"""What unhinged writes for a run whose lease was not extended."""
_leaked: list[object] = []
"""Connections of a parent process: closing one here would harm the parent's file."""


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
        self._pool = self._new_pool()
        self._me = f"{host_name()}:{os.getpid()}"
        self._swept = time.monotonic()
        self._looked = 0.0

    def __repr__(self) -> str:
        return f"<SQLiteQueue {self.path}>"

    def _new_pool(self) -> EnginePool:
        return EnginePool(self.path)

    # -- jobs ---------------------------------------------------------------

    def put(self, jobs: Sequence[Job], /, *, hold: float = 0.0) -> list[str]:
        """Write jobs in one transaction, synchronised with the disk."""
        with self._engine() as engine, engine.transaction():
            now = datetime.now(UTC)
            return [self._spawn(engine, job, now, hold) for job in jobs]

    def _spawn(self, engine: Engine, job: Job, now: datetime, hold: float) -> str:
        engine.set_fake_now(now + timedelta(seconds=hold or job.delay))
        try:
            spawned = engine.spawn_task(
                _QUEUE,
                _TASK,
                job.text(),
                {
                    "max_attempts": job.runs_left,
                    "idempotency_key": job.key,
                },
            )
        finally:
            engine.clear_fake_now()
        if not spawned["created"]:
            return ""
        return f"{spawned['task_id']}/{spawned['run_id']}"

    def begin(self, token: str, lease: float, /) -> Lease | None:
        """Take a job that was put on hold."""
        if not token:
            return None
        _, run = token.split("/")
        with self._engine() as engine, engine.transaction() as database:
            taken = database.execute(
                f"update {_RUNS} set available_at = ? "  # noqa: S608 - a name of ours
                "where run_id = ? and state in ('pending', 'sleeping')",
                (EPOCH, run),
            )
            if taken.rowcount == 0:
                return None
            (row,) = engine.claim_task(_QUEUE, self._me, _whole(lease), 1)
            return self._lease(row)

    def claim(self, most: int, lease: float, /) -> list[Lease]:
        """Take jobs that are due."""
        with self._engine() as engine:
            self._sweep(engine)
            if not self._is_due(engine):
                return []
            rows = engine.claim_task(_QUEUE, self._me, _whole(lease), most)
        leases = [self._lease(row) for row in rows]
        return [lease for lease in leases if lease is not None]

    def _is_due(self, engine: Engine) -> bool:
        """Look without a lock whether there is anything: mostly there is not."""
        now = ts(datetime.now(UTC))
        expired, due = engine.connection.execute(
            f"select exists (select 1 from {_RUNS} where state = 'running' "  # noqa: S608 - as above
            "and claim_expires_at is not null and claim_expires_at <= ?), exists "
            f"(select 1 from {_RUNS} where state in ('pending', 'sleeping') "
            "and available_at <= ?)",
            (now, now),
        ).fetchone()
        if expired:
            self._looked = 0.0
        return bool(expired or due)

    def _lease(self, row: dict[str, Any]) -> Lease | None:
        token = f"{row['task_id']}/{row['run_id']}"
        try:
            job = Job.read(row["params"])
        except ArgumentError as exc:
            job = _foreign(row, exc)
        return Lease(job, token, job.attempt + row["attempt"])

    def exhausted(self) -> list[tuple[Lease, str]]:
        """Give jobs whose last process died; each once."""
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return []
        self._looked = now
        with self._engine() as engine, engine.transaction() as database:
            rows = database.execute(
                f"select r.run_id, r.task_id, r.attempt, t.params, r.failure_reason "  # noqa: S608 - as above
                f"from {_RUNS} r join {_TASKS} t on t.last_attempt_run = r.run_id "
                "where t.state = 'failed' and r.state = 'failed' "
                "and json_extract(r.failure_reason, '$.name') = ? limit 100",
                (_DIED,),
            ).fetchall()
            for row in rows:
                database.execute(
                    f"update {_RUNS} set failure_reason = "  # noqa: S608 - as above
                    "json_set(failure_reason, '$.name', 'ProcessDied') "
                    "where run_id = ?",
                    (row["run_id"],),
                )
        found = [
            ({**row, "params": _json(row["params"])}, row) for row in map(dict, rows)
        ]
        return [
            (lease, f"seen by the lease of {_json(row['failure_reason'])['workerId']}")
            for ready, row in found
            if (lease := self._lease(ready)) is not None
        ]

    def extend(
        self, held: Sequence[str], running: Sequence[str], lease: float, /
    ) -> list[str]:
        """Keep jobs for *lease* more seconds."""
        until = ts(datetime.now(UTC) + timedelta(seconds=_whole(lease)))
        hold = (
            f"update {_RUNS} set available_at = ? where run_id = ? "  # noqa: S608 - as above
            "and state = 'pending'"
        )
        keep = (
            f"update {_RUNS} set claim_expires_at = ? where run_id = ? "  # noqa: S608 - as above
            "and state = 'running'"
        )
        gone: list[str] = []
        with self._engine() as engine, engine.transaction() as database:
            for statement, tokens in ((hold, held), (keep, running)):
                for token in tokens:
                    run = token.partition("/")[2]
                    if database.execute(statement, (until, run)).rowcount == 0:
                        gone.append(token)
        return gone

    def release(self, tokens: Sequence[str], /) -> None:
        """Let others have jobs, each when its delay is over."""
        with self._engine() as engine, engine.transaction() as database:
            now = datetime.now(UTC)
            for token in filter(None, tokens):
                task, run = token.split("/")
                found = database.execute(
                    f"select params from {_TASKS} where task_id = ?",  # noqa: S608 - as above
                    (task,),
                ).fetchone()
                delay = Job.read(_json(found["params"])).delay if found else 0.0
                database.execute(
                    f"update {_RUNS} set available_at = ? "  # noqa: S608 - as above
                    "where run_id = ? and state = 'pending'",
                    (ts(now + timedelta(seconds=delay)), run),
                )

    def finish(self, tokens: Sequence[str], /) -> None:
        """The jobs are done, or not wanted."""
        with self._engine() as engine, engine.transaction() as database:
            for token in filter(None, tokens):
                task, run = token.split("/")
                found = database.execute(
                    f"select state from {_RUNS} where run_id = ?",  # noqa: S608 - as above
                    (run,),
                ).fetchone()
                if found is None:
                    continue
                if found["state"] == "running":
                    engine.complete_run(_QUEUE, run)
                elif found["state"] in {"pending", "sleeping"}:
                    engine.cancel_task(_QUEUE, task)

    def fail(self, token: str, record: FailureRecord, pause: float | None, /) -> None:
        """The run failed."""
        task, run = token.split("/")
        reason: JsonValue = {"name": record.exception, "record": _plain(record)}
        with self._engine() as engine, engine.transaction() as database:
            found = database.execute(
                f"select state, attempt from {_RUNS} where run_id = ?",  # noqa: S608 - as above
                (run,),
            ).fetchone()
            if found is None or found["state"] != "running":
                return  # another process has it by now
            retry_at = None
            if pause is None:
                database.execute(
                    f"update {_TASKS} set max_attempts = ? where task_id = ?",  # noqa: S608 - as above
                    (found["attempt"], task),
                )
            else:
                retry_at = datetime.now(UTC) + timedelta(seconds=pause)
            engine.fail_run(_QUEUE, run, reason, retry_at)

    # -- what people see ----------------------------------------------------

    def failed(self) -> Iterable[FailureRecord]:
        """Give the jobs that failed for good, oldest first."""
        with self._engine() as engine:
            rows = engine.connection.execute(
                f"select t.params, r.failure_reason, r.attempt, r.failed_at "  # noqa: S608 - as above
                f"from {_TASKS} t join {_RUNS} r on r.run_id = t.last_attempt_run "
                "where t.state = 'failed' order by r.failed_at",
            ).fetchall()
        return [_record(row) for row in map(dict, rows)]

    def retry(self, ids: Sequence[str], /) -> int:
        """Put failed jobs back for one more run."""
        with self._engine() as engine, engine.transaction():
            tasks = self._tasks_of(engine, ids, ("failed",))
            for task in tasks:
                engine.retry_task(_QUEUE, task)
        return len(tasks)

    def forget(self, ids: Sequence[str], /) -> int:
        """Take failed jobs out."""
        with self._engine() as engine, engine.transaction():
            tasks = self._tasks_of(engine, ids, ("failed",))
            for task in tasks:
                _delete(engine, task)
        return len(tasks)

    def waiting(self) -> list[tuple[str, Job]]:
        """Give what nobody has begun."""
        now = datetime.now(UTC)
        with self._engine() as engine:
            rows = engine.connection.execute(
                f"select t.task_id, t.params, r.run_id, r.attempt, r.available_at "  # noqa: S608 - as above
                f"from {_TASKS} t join {_RUNS} r on r.run_id = t.last_attempt_run "
                "where t.state in ('pending', 'sleeping') order by r.available_at",
            ).fetchall()
        found: list[tuple[str, Job]] = []
        for row in rows:
            job = Job.read(_json(row["params"]))
            left = (_moment(row["available_at"]) - now).total_seconds()
            attempt = job.attempt + row["attempt"] - 1
            job = job._replace(attempt=attempt, delay=max(0.0, left))
            found.append((f"{row['task_id']}/{row['run_id']}", job))
        return found

    def work(self, run: Run, stop: Event, threads: int, /) -> None:
        """Not called: engines with leases are worked on by Postlude itself."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the file."""
        pool, self._pool = self._pool, self._new_pool()
        pool.close()

    def forked(self) -> None:
        """Open the file anew in a forked child; SQLite forbids to carry it along."""
        _leaked.append(self._pool)
        self._pool = self._new_pool()
        self._me = f"{host_name()}:{os.getpid()}"

    # -- the file -----------------------------------------------------------

    @contextmanager
    def _engine(self) -> Generator[Engine]:
        """Give this thread's engine; what it raises becomes a `QueueError`."""
        try:
            yield self._opened()
        except (sqlite3.Error, UnhingedError, OSError) as exc:
            raise QueueError(
                f"The queue file {self.path} cannot be used now ({exc}). Usually its "
                "folder is missing or belongs to another user, the disk is full, or "
                "another program keeps it locked. Mend that; nothing was written."
            ) from exc

    def _opened(self) -> Engine:
        pool = self._pool
        if hasattr(pool._local, "engine"):
            return pool.get()
        deadline = time.monotonic() + _OPENING
        while True:
            try:
                engine = pool.get()
                engine.create_queue(_QUEUE)
            except sqlite3.OperationalError as exc:
                # While another process makes the file, WAL mode cannot be had.
                if "locked" not in str(exc) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return engine

    def _tasks_of(
        self, engine: Engine, ids: Sequence[str], states: Sequence[str]
    ) -> list[str]:
        found: list[str] = []
        for one in ids:
            rows = engine.connection.execute(
                f"select task_id, params, state from {_TASKS} "  # noqa: S608 - as above
                "where instr(params, ?) > 0",
                (one,),
            ).fetchall()
            found += [
                row["task_id"]
                for row in rows
                if row["state"] in states and Job.read(_json(row["params"])).id == one
            ]
        return found

    def _sweep(self, engine: Engine) -> None:
        """Delete what was done a while ago, now and then."""
        now = time.monotonic()
        if now - self._swept < _SWEEP:
            return
        self._swept = now
        today = datetime.now(UTC)
        with engine.transaction() as database:
            rows = database.execute(
                f"select t.task_id from {_TASKS} t left join {_RUNS} r "  # noqa: S608 - as above
                "on r.run_id = t.last_attempt_run "
                "where t.state in ('completed', 'cancelled') and "
                "coalesce(r.completed_at, t.cancelled_at) < "
                "case when t.idempotency_key is null then ? else ? end limit 10000",
                (
                    ts(today - timedelta(seconds=_KEPT)),
                    ts(today - timedelta(days=1)),
                ),
            ).fetchall()
            for row in rows:
                _delete(engine, row["task_id"])


def _delete(engine: Engine, task: str) -> None:
    for prefix in "wcrt":
        engine.connection.execute(
            f"delete from {table(prefix, _QUEUE)} where task_id = ?",  # noqa: S608 - a name of ours
            (task,),
        )


def _whole(seconds: float) -> int:
    return max(1, round(seconds))


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _json(text: str) -> Any:
    import json  # noqa: PLC0415 - rare

    return json.loads(text)


def _plain(record: FailureRecord) -> dict[str, object]:
    return {name: _shown(value) for name, value in record._asdict().items()}


def _shown(value: Any) -> object:
    if isinstance(value, dict):
        found = cast("dict[object, object]", value)
        return {str(key): str(each) for key, each in found.items()}
    return value


def _record(row: dict[str, Any]) -> FailureRecord:
    reason = _json(row["failure_reason"] or "{}")
    if isinstance(reason, dict) and "record" in reason:
        return FailureRecord(**reason["record"])
    return _of_dead(row)


def _of_dead(row: dict[str, Any]) -> FailureRecord:
    job = Job.read(_json(row["params"]))
    return FailureRecord(
        id=job.id,
        name=job.name,
        function=job.function,
        arguments={},
        state="failed",
        unit=dict(job.unit),
        site=job.site,
        exception="the process that ran it ended before the job did",
        traceback=None,
        started=None,
        ended=_moment(row["failed_at"]).timestamp(),
        attempt=job.attempt + row["attempt"],
        payload=job.payload,
    )


def _foreign(row: dict[str, Any], exc: ArgumentError) -> Job:
    """Stand for a row that holds no job, so that it is refused like any other."""
    return Job(id=row["task_id"], name=str(exc)[:200], function="", payload="[[], {}]")
