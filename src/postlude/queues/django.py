"""Django's tasks: any backend of `django.tasks`, written by Django's own connection.

Django has an interface for backends, and no retries: the generic task puts itself
back. With the backend of the package django-tasks-db jobs are rows of a model, so they
are written in the transaction that is open; a worker that dies leaves its row as
running for ever, so the task gives its row a heartbeat (in `started_at`) and
`postlude work` puts back the rows that have none. Of other backends nothing of the kind
is known: give `DjangoQueue(at_least_once=True)` for one that gives back what its worker
died under.
Checked on django-tasks 0.12 and django-tasks-db 0.13.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from importlib import import_module
from threading import Event
from typing import TYPE_CHECKING, Any

import django
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import Error, close_old_connections, router, transaction
from django.utils import timezone

from postlude import _call
from postlude._log import say
from postlude._settings import in_force
from postlude._threads import start_thread
from postlude.exceptions import QueueError, SettingsError
from postlude.queues._queue import Capabilities, Execute, Run, Unlisted

if TYPE_CHECKING:
    from postlude.queues._job import Job

_BEATS = 3
"""How often in a lease a running task says that it lives."""
_INTERVAL = 0.5
"""Seconds between a worker's looks at an empty table."""
_TASK = "postlude.queues._django_task.run_job"


def open_queue(address: str) -> DjangoQueue:
    """Give the queue of `django`: the backend `default` of the setting TASKS."""
    del address
    return DjangoQueue()


def mine() -> DjangoQueue:
    """Give the queue of this process.

    Raises:
        SettingsError: it is another one.
    """
    queue = getattr(_call.carrier, "queue", None)
    if isinstance(queue, DjangoQueue):
        return queue
    raise SettingsError(NOT_CONFIGURED.format(queue=in_force().queue))


class DjangoQueue(Unlisted):
    """Jobs as tasks of Django. Any thread."""

    name = "django"

    def __init__(
        self, backend: str = "default", *, at_least_once: bool = False
    ) -> None:
        """Name the backend by its alias in TASKS.

        Args:
            backend: the alias.
            at_least_once: whether the backend gives a task whose worker died to
                another; known of django-tasks-db.
        """
        self._alias = backend
        self._promised = at_least_once

    def __repr__(self) -> str:
        return f"<DjangoQueue {self._alias}>"

    @cached_property
    def task(self) -> Any:
        """The generic task, on the backend.

        Raises:
            SettingsError: Django, or its setting TASKS, is not what it must be.
        """
        try:
            if not apps.models_ready:
                django.setup()
            found = import_module("postlude.queues._django_task").run_job
            return found.using(backend=self._alias)
        except (ImproperlyConfigured, ImportError) as exc:
            raise SettingsError(
                f"queue is 'django', and Django has no tasks here ({exc}). Usually "
                "DJANGO_SETTINGS_MODULE or the setting TASKS is missing. Set them: "
                'TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}.'
            ) from exc

    @cached_property
    def _rows(self) -> Any:
        """The model of django-tasks-db, if that is the backend."""
        if type(self.task.get_backend()).__module__.partition(".")[0] != _PACKAGE:
            return None
        return import_module(f"{_PACKAGE}.models").DBTaskResult

    @cached_property
    def can(self) -> Capabilities:
        """What the backend guarantees."""
        lease = in_force().queue_lease
        in_database = self._rows is not None
        return Capabilities(
            at_least_once=in_database or self._promised,
            leases=False,
            transactional=in_database,
            delays=bool(self.task.get_backend().supports_defer),
            policy_per_call=False,
            keeps_failures=False,
            keys=False,
            embedded=False,
            recovery=lease + lease / _BEATS + 1.0,
        )

    # -- jobs ---------------------------------------------------------------

    def put(self, jobs: Sequence[Job], /, *, hold: float = 0.0) -> list[str]:
        """Write jobs, in one transaction where the backend has them."""
        del hold
        with _errors():
            close_old_connections()
            if self._rows is None:
                return [self._enqueue(job) for job in jobs]
            with transaction.atomic(using=str(self.identity())):
                return [self._enqueue(job) for job in jobs]

    def write(self, execute: Execute, job: Job, /, *, hold: float) -> str:
        """Write a job in the block that is open in this thread."""
        del execute, hold
        with _errors():
            return self._enqueue(job)

    def identity(self) -> object:
        """Give the alias of the database that tasks are written to."""
        return router.db_for_write(self._rows)

    def is_at(self, database: str, /) -> bool:
        """Tell whether that is the alias."""
        return database == self.identity()

    def _enqueue(self, job: Job) -> str:
        task = self.task
        if job.delay > 0:
            task = task.using(run_after=timezone.now() + timedelta(seconds=job.delay))
        return str(task.enqueue(job.text()).id)

    # -- workers ------------------------------------------------------------

    def work(self, run: Run, stop: Event, threads: int, /) -> None:
        """Be workers of django-tasks-db, all of its queues; and rescue what is left.

        Raises:
            QueueError: the backend has workers of its own.
        """
        del run  # the generic task calls it
        if self._rows is None:
            raise QueueError(NOT_HERE.format(backend=self._alias))
        command = import_module(f"{_PACKAGE}.management.commands.db_worker")
        crew = [self._worker(command.Worker, stop) for _ in range(threads)]
        while not stop.is_set():
            try:
                self.rescue()
            except Error as exc:
                say(logging.WARNING, TROUBLE, exc)
            stop.wait(in_force().queue_lease / _BEATS)
        deadline = time.monotonic() + in_force().grace
        for worker, thread in crew:
            worker.running = False
            thread.join(max(0.0, deadline - time.monotonic()))

    def _worker(self, kind: Any, stop: Event) -> tuple[Any, threading.Thread]:
        worker = kind(
            queue_names=["*"],
            interval=_INTERVAL,
            batch=False,
            backend_name=self._alias,
            startup_delay=False,
            max_tasks=None,
            worker_id=f"postlude-{threading.get_ident()}-{time.monotonic_ns()}"[:64],
            excluded_queue_names=[],
        )

        def run_until_stopped() -> None:
            while not stop.is_set():
                try:
                    worker.run()
                except Exception as exc:  # noqa: BLE001 - a database that is back is worked again
                    say(logging.WARNING, TROUBLE, exc)
                    stop.wait(_INTERVAL)

        return worker, start_thread(run_until_stopped, "postlude-django")

    def rescue(self) -> int:
        """Put back the jobs whose workers have died; gives how many there were."""
        limit = timezone.now() - timedelta(seconds=in_force().queue_lease)
        stalled = self._rows.objects.filter(
            status="RUNNING", task_path=_TASK, started_at__lt=limit
        )
        count: int = stalled.update(status="READY")
        return count

    # -- the end ------------------------------------------------------------

    def close(self) -> None:
        """Do nothing: connections are Django's."""


@contextmanager
def alive(result: Any) -> Generator[None]:
    """Keep the row of a running task young, where it is one."""
    rows = mine()._rows
    if rows is None:
        yield
        return
    over = threading.Event()

    def beat() -> None:
        while not over.wait(in_force().queue_lease / _BEATS):
            try:
                close_old_connections()
                row = rows.objects.filter(id=result.id, status="RUNNING")
                row.update(started_at=timezone.now())
            except Error as exc:
                say(logging.WARNING, TROUBLE, exc)
        close_old_connections()

    thread = start_thread(beat, "postlude-beat")
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def _errors() -> Generator[None]:
    try:
        yield
    except (Error, OSError) as exc:
        raise QueueError(
            f"Django's tasks cannot be written now ({exc}). Usually the database of "
            "the task backend is down, or its migrations are missing. Look at it "
            "(`manage.py migrate`); nothing was written."
        ) from exc


_PACKAGE = "django_tasks_db"
TROUBLE = "Django's tasks cannot be worked on now: %s; this goes on until they can"
NOT_HERE = (
    "The task backend {backend} cannot be worked by `postlude work`. Usually it has a "
    "worker of its own. Start that one; it runs Postlude's task like any other."
)
NOT_CONFIGURED = (
    "A worker of Django's runs Postlude's task, and the setting queue is {queue!r}. "
    "Usually POSTLUDE_QUEUE is missing where the worker starts. Set it to 'django'."
)
