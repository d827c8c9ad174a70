"""Huey, on a SQLite file or Redis: at most once.

Huey takes a job out of its store before it runs, so a job whose process is killed is
gone; its author means it so. `.durable()` is therefore refused, while `.retry()` and
`queue()` work: what fails is put back. A job that a shutdown interrupts is put back,
too. One task, `postlude_run`, carries every job as JSON; Huey's own pickle is never
read. Checked on Huey 3.5. Its own command: `huey_consumer postlude.queues.huey.huey`.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

from postlude import _call
from postlude._settings import in_force, settings
from postlude.exceptions import ArgumentError, QueueError, SettingsError
from postlude.queues import _running
from postlude.queues._address import Address
from postlude.queues._job import Job
from postlude.queues._queue import Capabilities, Unlisted

if TYPE_CHECKING:
    from threading import Event

    from postlude.queues._queue import Run

_huey: Any = import_module("huey")
_consumer: Any = import_module("huey.consumer").Consumer
_message: Any = import_module("huey.registry").Message
_serializer: Any = import_module("huey.serializer").Serializer

TASK = "postlude_run"
_TRIES = 10
_leaked: list[object] = []


def open_queue(address: str) -> HueyQueue:
    """Give the queue of `huey+sqlite:///path` or `huey+redis://host:6379/0`."""
    read = Address.read(address)
    name = read.text("queue", "postlude")
    read.refuse_the_rest()
    return HueyQueue(read.url, name)


def __getattr__(name: str) -> Any:
    """Give `huey` to Huey's own command: that of the setting `queue`."""
    if name != "huey":
        raise AttributeError(name)
    settings()
    queue = getattr(_call.carrier, "queue", None)
    if not isinstance(queue, HueyQueue):
        raise SettingsError(
            "postlude.queues.huey was asked for its huey, and the setting queue names "
            "no Huey. Usually the worker was started without the web process' "
            "settings. Set POSTLUDE_QUEUE=huey+redis://... for both."
        )
    return queue.huey


class HueyQueue(Unlisted):
    """Jobs for Huey's consumer, at most once. Any thread."""

    name = "huey"
    can = Capabilities(
        at_least_once=False,
        leases=False,
        transactional=False,
        delays=True,
        policy_per_call=False,
        keeps_failures=False,
        keys=False,
        embedded=False,
        recovery=float("inf"),
    )

    def __init__(self, url: str, name: str = "postlude") -> None:
        """Name the store and the queue in it; it is opened with its first use."""
        self._url = url
        self._name = name
        self._opened: Any = None
        self._pid = os.getpid()
        self._run: Run = _running.run

    def __repr__(self) -> str:
        return f"<HueyQueue {self._name}, at most once>"

    @property
    def huey(self) -> Any:
        """Huey's own object, which knows our one task."""
        if self._pid != os.getpid():
            self.forked()
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    def _open(self) -> Any:
        options: dict[str, Any] = {"results": False, "serializer": _JSONOnly()}
        if self._url.startswith("sqlite"):
            path = self._url.partition("://")[2].removeprefix("/")
            huey = _huey.SqliteHuey(self._name, filename=path, **options)
        else:
            huey = _huey.RedisHuey(self._name, url=self._url, **options)
        self._task = huey.task(name=TASK)(self._act)
        huey.signal(_huey.signals.SIGNAL_INTERRUPTED)(self._interrupted)
        return huey

    def put(self, jobs: Sequence[Job], /, *, hold: float = 0.0) -> list[str]:
        """Write jobs, one after the other."""
        del hold  # for engines with leases
        try:
            huey = self.huey
            for job in jobs:
                delay = {"delay": job.delay} if job.delay else {}
                huey.enqueue(self._task.s(job.text(), **delay))
        except Exception as exc:
            raise QueueError(
                f"Huey's store did not take a job ({type(exc).__name__}: {exc}). "
                "Usually Redis is down, or the file's folder is missing or belongs to "
                "another user. Mend that; the job was not written."
            ) from exc
        return [job.id for job in jobs]

    # -- running ------------------------------------------------------------

    def _act(self, *args: object, **kwargs: object) -> None:
        settings()
        text = args[0] if len(args) == 1 and not kwargs else repr((args, kwargs))
        if not isinstance(text, str):
            text = repr(text)
        verdict = self._run(text, 0)
        if verdict.state == "again":
            job = Job.read(text)
            self._put_back(job._replace(attempt=job.attempt + 1, delay=verdict.pause))

    def _put_back(self, job: Job) -> None:
        """Write a job again: it is nowhere else."""
        pause = threading.Event()
        for left in reversed(range(_TRIES)):
            try:
                self.put([job])
                return
            except QueueError as exc:
                if not left:
                    _running.refuse(job, exc, attempt=job.attempt)
                    return
                pause.wait(1.0)

    def _interrupted(self, _signal: str, task: Any) -> None:
        """Put a job back that the shutdown does not wait for."""
        job = Job.read(task.args[0])
        if job.attempt < job.retries:
            self._put_back(job._replace(attempt=job.attempt + 1, delay=0.0))
        else:
            self._run(job, 1)  # which says so

    def work(self, run: Run, stop: Event, threads: int, /) -> None:
        """Run Huey's consumer with *threads* threads of this process."""
        self._run = run
        huey = self.huey
        consumer = _Consumer(
            huey,
            workers=threads,
            worker_type="thread",
            periodic=False,
            shutdown_timeout=in_force().grace,
        )
        consumer.start()
        while not stop.wait(1.0):
            consumer.check_worker_health()
        consumer.stop(graceful=True)
        huey.notify_interrupted_tasks()

    # -- the end ------------------------------------------------------------

    def close(self) -> None:
        """Close what is open; the next use opens it again."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.storage.close()

    def forked(self) -> None:
        """Open the store anew; SQLite forbids to carry a connection along."""
        _leaked.append(self._opened)
        self._opened = None
        self._pid = os.getpid()


class _JSONOnly(_serializer):  # type: ignore[misc]  # no types here
    """Huey's messages as JSON: of a task its name, its id, its time, its text."""

    def _serialize(self, data: Any) -> bytes:
        eta = None if data.eta is None else data.eta.isoformat()
        fields = {"id": data.id, "name": data.name, "eta": eta, "args": data.args}
        return json.dumps(fields).encode()

    def _deserialize(self, data: bytes) -> Any:
        try:
            fields: Any = json.loads(data)
            eta = fields["eta"] and datetime.fromisoformat(fields["eta"])
            return _message(
                id=str(fields["id"]),
                name=str(fields["name"]),
                eta=eta or None,
                retries=0,
                retry_delay=0,
                args=tuple(fields["args"]),
                kwargs={},
            )
        except Exception as exc:
            error = ArgumentError(
                f"A message is no task of Huey's ({type(exc).__name__}: {exc}). "
                "Usually another program writes to this queue. It was not run; look "
                "at who writes to it."
            )
            _running.refuse(None, error, str(data)[:200])
            raise


class _Consumer(_consumer):  # type: ignore[misc]  # no types here
    """Huey's consumer, for a process whose signals are somebody else's."""

    def _set_signal_handlers(self) -> None:
        pass
