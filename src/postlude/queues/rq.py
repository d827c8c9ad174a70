"""RQ, on Redis: jobs for workers on other machines, with RQ's own list of failed ones.

One function, `run_job`, carries every job as JSON text, with RQ's JSON serializer: no
pickle is ever read. Each run is counted in the RQ job before it begins, and RQ puts a
job back whose process died, so one that kills its process ends after its retries.

A worker of RQ's looks for the jobs of dead workers only now and then: after the last
heartbeat 90 s, every 10 minutes, and an idle one every 7. `Worker` does so sooner, and
refuses jobs that name any other function. RQ's own command takes it:
`rq worker --with-scheduler -w postlude.queues.rq.Worker -S
rq.serializers.JSONSerializer postlude`. Checked on RQ 3.0.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from postlude._settings import in_force, settings
from postlude._threads import start_thread
from postlude.exceptions import ArgumentError, QueueError
from postlude.failures import FailureRecord
from postlude.queues import _running
from postlude.queues._address import Address
from postlude.queues._job import Job
from postlude.queues._queue import Capabilities

if TYPE_CHECKING:
    from collections.abc import Generator
    from threading import Event

    from postlude.queues._queue import Run

_rq: Any = import_module("rq")
_redis: Any = import_module("redis")
_registry: Any = import_module("rq.registry")
_serializer: Any = import_module("rq.serializers").JSONSerializer
_base: Any = import_module("rq.worker").Worker
_pool: Any = import_module("rq.worker_pool").WorkerPool

_RUN = f"{__name__}.run_job"
_REFUSE = f"{__name__}.refuse_job"
_BEAT = 5
"""Seconds between heartbeats of a running job; two may be missed."""
_LOOK = 15
"""Seconds between looks for jobs whose heart stopped."""
_KEPT = 366 * 86400
"""Seconds that RQ keeps a failed job."""
_TIMEOUT = 10.0
"""Seconds that Redis may take to answer whoever puts a job."""
_RECORD = "postlude_record"
_RUNS = "postlude_runs"
_leaked: list[object] = []


def open_queue(address: str) -> RQQueue:
    """Give the queue of `rq+redis://host:6379/0?queue=name`."""
    read = Address.read(address)
    name = read.text("queue", "postlude")
    read.refuse_the_rest()
    return RQQueue(read.url, name)


class JobFailedError(Exception):
    """What RQ is told of a job that failed for good, so that it lists it."""


class RQQueue:
    """Jobs for RQ's workers. Any thread."""

    name = "rq"
    can = Capabilities(
        at_least_once=True,
        leases=False,
        transactional=False,
        delays=True,
        policy_per_call=False,
        keeps_failures=True,
        keys=False,
        embedded=False,
        recovery=3.0 * _BEAT + 2.0 * _LOOK,
    )

    def __init__(self, url: str, name: str = "postlude") -> None:
        """Name the server and the queue on it; it is connected with its first use."""
        self._url = url
        self._name = name
        self._connection: Any = None
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"<RQQueue {self._name}>"

    # -- writing ------------------------------------------------------------

    def put(self, jobs: Sequence[Job], /, *, hold: float = 0.0) -> list[str]:
        """Write jobs in one transaction of Redis."""
        del hold  # for engines with leases
        with self._queue() as queue:
            put(queue, jobs)
        return [job.id for job in jobs]

    @contextmanager
    def _queue(self) -> Generator[Any]:
        """Give RQ's queue; what it raises becomes a `QueueError`."""
        if self._pid != os.getpid():
            self.forked()
        if self._connection is None:
            self._connection = _redis.Redis.from_url(
                self._url, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT
            )
        try:
            yield _rq.Queue(
                self._name, connection=self._connection, serializer=_serializer
            )
        except _redis.RedisError as exc:
            raise QueueError(
                f"Redis did not take or give a job ({type(exc).__name__}: {exc}). "
                "Usually it is down, full, or its address changed. Look at it; the "
                "job was not acknowledged."
            ) from exc

    # -- running ------------------------------------------------------------

    def work(self, run: Run, stop: Event, threads: int, /) -> None:
        """Run RQ's workers, *threads* processes, each with a child for each job."""
        global _run
        _run = run
        with self._queue() as queue:
            queue.connection.ping()
        connection: Any = _redis.Redis.from_url(self._url)
        pool = _Pool(
            [self._name],
            connection,
            num_workers=threads,
            worker_class=Worker,
            serializer=_serializer,
        )

        over = threading.Event()

        def end() -> None:
            stop.wait()
            pool.request_stop()
            # RQ takes a second signal within a second for the same one; one that comes
            # later ends what runs.
            while not over.wait(max(in_force().grace, 1.5)):
                pool.stop_workers()

        start_thread(end, "postlude-rq-stop")
        pool.start(logging_level="WARNING")
        over.set()
        connection.close()

    # -- what people see ----------------------------------------------------

    def failed(self) -> Iterable[FailureRecord]:
        """Give what stands in RQ's registry of failed jobs, oldest first."""
        with self._queue() as queue:
            found = [
                _record(job) for job in self._listed(queue) if job.func_name == _RUN
            ]
        return [record for record in found if record is not None]

    def retry(self, ids: Sequence[str], /) -> int:
        """Queue failed jobs for one more run."""

        def again(queue: Any, rq_job: Any) -> None:
            job = Job.read(rq_job.args[0])
            put(queue, [job._replace(attempt=job.retries, delay=0.0)])

        return self._take(ids, again)

    def forget(self, ids: Sequence[str], /) -> int:
        """Take failed jobs out."""
        return self._take(ids, lambda _queue, _job: None)

    def _take(self, ids: Sequence[str], do: Callable[[Any, Any], None]) -> int:
        count = 0
        with self._queue() as queue:
            registry = _registry.FailedJobRegistry(queue=queue)
            for rq_job in self._listed(queue):
                if rq_job.id.rpartition("-")[0] in ids and rq_job.func_name == _RUN:
                    do(queue, rq_job)
                    registry.remove(rq_job.id, delete_job=True)
                    count += 1
        return count

    def _listed(self, queue: Any) -> list[Any]:
        registry = _registry.FailedJobRegistry(queue=queue)
        jobs = _rq.job.Job.fetch_many(
            registry.get_job_ids(), connection=queue.connection, serializer=_serializer
        )
        return [job for job in jobs if job is not None]

    def close(self) -> None:
        """Close the connections of this process."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def forked(self) -> None:
        """Leave the parent's connections alone."""
        _leaked.append(self._connection)
        self._connection = None
        self._pid = os.getpid()


def put(queue: Any, jobs: Sequence[Job]) -> None:
    """Write jobs, all or none.

    RQ's ids differ from run to run: the next is a new RQ job, written while this one
    still ends.
    """
    with queue.connection.pipeline() as pipe:
        for job in jobs:
            rq_job = queue.create_job(
                _RUN,
                args=(job.text(),),
                job_id=f"{job.id}-{uuid4().hex[:8]}",
                description=job.name,
                timeout=-1,  # Postlude has its own
                result_ttl=0,
                failure_ttl=_KEPT,
                # For dead processes only. One more than there may be runs: the last
                # finds that they are used up, and records it.
                retry=_rq.Retry(max=job.runs_left),
            )
            if job.delay:
                # RQ's schedule knows whole seconds, and cuts.
                due = datetime.now(UTC) + timedelta(seconds=job.delay + 0.999)
                queue.schedule_job(rq_job, due, pipeline=pipe)
            else:
                queue.enqueue_job(rq_job, pipeline=pipe)
        pipe.execute()


_run: Run = _running.run


def run_job(*args: object, **kwargs: object) -> str:
    """Run one job; RQ's workers call it."""
    settings()
    text = args[0] if len(args) == 1 and not kwargs else repr((args, kwargs))
    rq_job: Any = _rq.get_current_job()
    # A field of our own: RQ writes its own ones back as the worker had read them.
    runs = int(rq_job.connection.hincrby(rq_job.key, _RUNS, 1)) - 1
    verdict = _run(text if isinstance(text, (str, bytes)) else repr(text), runs)
    if verdict.state == "again":
        job = Job.read(text)
        queue = _rq.Queue(
            rq_job.origin, connection=rq_job.connection, serializer=_serializer
        )
        put(queue, [job._replace(attempt=job.attempt + runs + 1, delay=verdict.pause)])
    elif verdict.state == "failed":
        record = verdict.record
        if record is not None:
            text = json.dumps(record._asdict(), default=str)
            rq_job.connection.hset(rq_job.key, _RECORD, text)
        rq_job.retries_left = 0
        raise JobFailedError(record.exception if record is not None else "it failed")
    return verdict.state


def refuse_job(name: str, arguments: str) -> None:
    """Record an RQ job that named another function than ours."""
    settings()
    error = ArgumentError(
        f"An RQ job names the function {name!r}, which is not Postlude's. Usually "
        "another program writes to this queue. It was not run; look at who writes to "
        "it."
    )
    _running.refuse(None, error, f"{name}{arguments}")
    raise JobFailedError(str(error))


class Worker(_base):  # type: ignore[misc]  # rq is not there when types are checked
    """RQ's worker, which runs jobs of Postlude only, and finds those of the dead."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["job_monitoring_interval"] = _BEAT
        kwargs["maintenance_interval"] = _LOOK
        kwargs["worker_ttl"] = _LOOK + 15  # RQ waits 15 s less for a job
        parent: Any = super()
        parent.__init__(*args, **kwargs)

    def get_heartbeat_ttl(self, *_args: Any, **_kwargs: Any) -> int:
        """Say after how many seconds without a heartbeat a job is abandoned."""
        return 3 * _BEAT

    def perform_job(self, job: Any, *args: Any) -> Any:
        """Run a job, or refuse what is none of ours."""
        if job.func_name != _RUN:
            name, arguments = job.func_name, repr(job.args)[:200]
            job._func_name, job._instance = _REFUSE, None
            job._args, job._kwargs = (name, arguments), {}
            job.retries_left = 0
        parent: Any = super()
        return parent.perform_job(job, *args)


class _Pool(_pool):  # type: ignore[misc]  # as above
    """RQ's pool of workers, for a process whose signals are somebody else's."""

    def _install_signal_handlers(self) -> None:
        pass


def _record(rq_job: Any) -> FailureRecord | None:
    record, runs = rq_job.connection.hmget(rq_job.key, _RECORD, _RUNS)
    if record is not None:
        return FailureRecord(**json.loads(record))
    try:
        job = Job.read(rq_job.args[0])
    except ArgumentError:
        return None
    ended = rq_job.ended_at or rq_job.enqueued_at or datetime.now(UTC)
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
        ended=ended.timestamp(),
        attempt=job.attempt + int(runs or 1),
        payload=job.payload,
    )
