"""DBOS in a worker: what it runs, and who looks for executors that died.

Known of DBOS is its public API, but for one thing: a row may say of itself that it is
pickled, whatever serializer is configured, so reading that is taken away from DBOS.
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from postlude import _reporting
from postlude._log import say
from postlude._settings import in_force
from postlude.exceptions import ArgumentError, QueueError
from postlude.failures._record import host_name
from postlude.queues import _dbos_sql as sql
from postlude.queues import _running
from postlude.queues._job import Job
from postlude.queues._postgresql import Connection, rows
from postlude.queues._rows import plain
from postlude.queues._working import TROUBLE
from postlude.queues.dbos import LOOK

if TYPE_CHECKING:
    from threading import Event

    from postlude.failures import FailureRecord
    from postlude.queues._queue import Run
    from postlude.queues.dbos import DBOSQueue

_dbos: Any = import_module("dbos")
_serialization: Any = import_module("dbos._serialization")
_T = TypeVar("_T")
_BEAT = 1.0
"""Seconds in which a worker notices that its connection broke, and its lock is gone."""
_POLL = 0.1
"""Seconds between DBOS's looks into the queue, each of which takes a job a thread."""


class JobFailedError(Exception):
    """What DBOS is told of a job that failed for good; it keeps `data` with it."""

    def __init__(self, record: FailureRecord | None) -> None:
        super().__init__("it failed" if record is None else record.exception)
        self.data = None if record is None else json.loads(plain(record))


class Worker:
    """One executor of DBOS, which is this process."""

    def __init__(self, queue: DBOSQueue, run: Run) -> None:
        self._queue = queue
        self._run = run
        self._me = f"postlude:{host_name()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._holder: Connection | None = None
        """The connection that holds our lock."""
        self._suspects: set[str] = set()
        """Executors whose locks were free at the last look."""
        self._running = 0
        self._lock = threading.Lock()
        self._over = threading.Event()

    def work(self, stop: Event, threads: int) -> None:
        """Run workflows until *stop*, and look for those of the dead meanwhile."""
        self._launch(threads)
        trouble = False
        look_at = time.monotonic() + LOOK
        while not stop.wait(_BEAT):
            try:
                connection = self._hold()
                if time.monotonic() >= look_at:
                    look_at = time.monotonic() + LOOK
                    self._look(connection)
                    self._queue.sweep()
                trouble = False
            except QueueError as exc:
                if not trouble:
                    trouble = True
                    say(logging.WARNING, TROUBLE, self._queue.name, exc)
        self._end()

    def _launch(self, threads: int) -> None:
        config = {
            "name": sql.QUEUE,
            "application_version": sql.QUEUE,
            "executor_id": self._me,
            "system_database_url": self._queue.database.address,
            "serializer": _dbos.DBOSPortableJSONSerializer(),
            "log_level": "WARNING",
            "max_executor_threads": threads + 8,  # DBOS's own work needs some
        }
        try:
            dbos = _dbos.DBOS(config=config)
            if _dbos.DBOS.executor_id != self._me:
                raise QueueError(TAKEN)
            _serialization.DefaultSerializer.deserialize = _refuse_pickle
            logging.getLogger("dbos").addFilter(_is_news)
            self._hold()
            _dbos.DBOS.workflow(name=sql.WORKFLOW, max_recovery_attempts=None)(
                self._workflow()
            )
            dbos.listen_queues([sql.QUEUE])
            dbos.launch()
            dbos.register_queue(
                sql.QUEUE,
                worker_concurrency=threads,
                polling_interval_sec=_POLL,
                on_conflict="always_update",
            )
        except QueueError:
            raise
        except Exception as exc:
            raise QueueError(
                f"DBOS cannot be started ({type(exc).__name__}: {exc}). Usually its "
                "database is down, or may not be changed by this account: then "
                "`dbos migrate` makes the tables. Mend that, and start the worker "
                "again."
            ) from exc

    def _workflow(self) -> Callable[..., str]:
        def postlude_run(*args: object, **kwargs: object) -> str:
            with self._lock:
                self._running += 1
            try:
                return self._obey(args, kwargs)
            finally:
                with self._lock:
                    self._running -= 1

        return postlude_run

    def _obey(self, args: tuple[object, ...], kwargs: dict[str, object]) -> str:
        """Run a job and say what became of it."""
        workflow = str(_dbos.DBOS.workflow_id)
        given = args[0] if len(args) == 1 and not kwargs else (args, kwargs)
        text = given if isinstance(given, str) else repr(given)
        runs = self._surely(lambda: self._queue.starts(workflow)) - 1
        verdict = self._run(text, runs)
        if verdict.state == "again":
            job = Job.read(text)
            attempt = job.attempt + runs + 1
            follows = job._replace(attempt=attempt, delay=verdict.pause)
            self._surely(lambda: self._queue.again(workflow, follows))
        elif verdict.state == "failed":
            raise JobFailedError(verdict.record)
        return verdict.state

    def _surely(self, ask: Callable[[], _T]) -> _T:
        """Ask the database until it answers: till then the workflow runs."""
        while True:
            try:
                return ask()
            except QueueError:
                if self._over.wait(1.0):
                    raise

    # -- life and death -----------------------------------------------------

    def _hold(self) -> Connection:
        """Hold the lock that says that this executor lives."""
        with self._queue.database.use() as connection:
            if connection is not self._holder:
                rows(connection, sql.LOCK, {"me": self._me})
                self._holder = connection
        return connection

    def _look(self, connection: Connection) -> None:
        """Give back what dead executors left, and refuse what is no job."""
        with self._queue.database.use():
            free = {
                str(row["executor_id"])
                for row in rows(connection, sql.OTHERS, {"me": self._me})
            }
            try:
                for dead in free & self._suspects:
                    found = rows(connection, sql.GIVE_BACK, {"id": dead})
                    say(logging.WARNING, DEAD, dead, len(found))
            finally:
                for one in free:
                    rows(connection, sql.UNLOCK, {"id": one})
            self._suspects = free
            strangers = rows(connection, sql.STRANGERS)
        for row in strangers:
            error = ArgumentError(STRANGER.format(name=row["name"]))
            _running.refuse(None, error, f"{row['name']}{row['inputs']}")

    def _end(self) -> None:
        """Let what runs come to its end within the grace; others take what does not."""
        grace = math.ceil(in_force().grace)
        _dbos.DBOS.destroy(workflow_completion_timeout_sec=grace)
        self._over.set()
        try:
            self._queue.database.rows(sql.GIVE_BACK, {"id": self._me})
        except QueueError:  # then others find it
            pass
        if self._running:
            _reporting.flush()
            os._exit(0)  # DBOS's threads would be waited for
        self._queue.close()


def _is_news(entry: logging.LogRecord) -> bool:
    """Tell whether DBOS logs anything but the failure of a job, which is logged."""
    return not (entry.exc_info and isinstance(entry.exc_info[1], JobFailedError))


def _refuse_pickle(_self: object, _text: str) -> object:
    raise ArgumentError(
        "A workflow says that its arguments are pickled, and Postlude reads no pickle. "
        "Usually another program writes to this queue. It was not run; look at who "
        "writes to it."
    )


TAKEN = (
    "DBOS is in use in this process, and there is one of it per process. Usually the "
    "application makes its own where it is imported. Start the worker without `--app`, "
    "or have the application make DBOS in its own workers only."
)
DEAD = "the DBOS executor %s has died; %d of its jobs begin again"
STRANGER = (
    "A workflow on Postlude's queue is none of Postlude's ({name!r}). Usually another "
    "program writes to this queue. It was not run; look at who writes to it."
)
