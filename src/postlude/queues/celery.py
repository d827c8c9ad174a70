"""Celery, on RabbitMQ or Redis: jobs for workers on other machines.

One generic task, `postlude.run`, carries every job as JSON text; it is acknowledged
when the job has ended, so a job whose worker dies is delivered again. Brokers flag such
a message and do not say how often, so before it is run it is written anew with one more
run counted, and then acknowledged: a job that kills its worker ends after its retries.

Delays wait in the broker: on RabbitMQ in a queue whose messages move on after a time;
on Redis, which has none, in a worker that holds the message (Celery's ETA), for half of
the visibility timeout at most, as after that Redis gives it to another worker too.

Checked on Celery 5.7. Its worker's own command works as well:
`celery -A postlude.queues.celery worker`.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from postlude import _call, _reporting
from postlude._settings import in_force, settings
from postlude._threads import start_thread
from postlude.exceptions import ArgumentError, QueueError, SettingsError
from postlude.queues import _running
from postlude.queues._address import Address
from postlude.queues._job import Job
from postlude.queues._opening import find_here
from postlude.queues._queue import Capabilities, Unlisted

if TYPE_CHECKING:
    from threading import Event

    from postlude.queues._queue import Run

_celery: Any = import_module("celery")  # it has no types
_kombu: Any = import_module("kombu")
_state: Any = import_module("celery.worker.state")

RUN = "postlude.run"
LATER = "postlude.later"
_VISIBILITY = 300
"""Seconds after which Redis gives a job to another worker that nobody acknowledged;
longer than the longest job, since Celery's workers do not extend it."""
_SWEEP = 110
"""Seconds between the looks of Celery's workers for such jobs: every tenth of their
looks each 10 s (kombu's `restore_visible`)."""
_HEARTBEAT = 10
"""Seconds; RabbitMQ gives up a connection, and redelivers, after two missed ones."""
_ANSWER = 10.0
"""Seconds that the broker may take to confirm a message."""
_leaked: list[object] = []
"""A parent process' connections: closing one in the child would end the parent's."""


def open_queue(address: str) -> CeleryQueue:
    """Give the queue of `celery+amqp://user:password@host:5672/vhost?queue=name`."""
    return CeleryQueue(_app_of(Address.read(address)))


def __getattr__(name: str) -> Any:
    """Give `app` to Celery's own command: that of the setting `queue`."""
    if name != "app":
        raise AttributeError(name)
    find_here()
    settings()
    queue = getattr(_call.carrier, "queue", None)
    if not isinstance(queue, CeleryQueue):
        raise SettingsError(
            "postlude.queues.celery was asked for its app, and the setting queue names "
            "no Celery. Usually the worker was started without the web process' "
            "settings. Set POSTLUDE_QUEUE=celery+amqp://... for both."
        )
    return queue.app


class CeleryQueue(Unlisted):
    """Jobs for the workers of a Celery app, in its default queue. Any thread."""

    name = "celery"

    def __init__(self, app: Any) -> None:
        """Take your own Celery app; its workers learn Postlude's generic task.

        They must import the module that makes this. Their `worker_prefetch_multiplier`
        should be 1: what a killed worker had reserved counts as begun.
        """
        self.app = app
        transport = app.connection_for_write().transport
        self._is_rabbit = transport.driver_type == "amqp"
        self.can = Capabilities(
            at_least_once=True,
            leases=False,
            transactional=False,
            delays=True,
            policy_per_call=False,
            keeps_failures=False,
            keys=False,
            embedded=False,
            recovery=3 * _HEARTBEAT if self._is_rabbit else self._visibility() + _SWEEP,
        )
        self._run: Run = _running.run
        self._lock = threading.RLock()
        self._connection: Any = None
        self._pid = os.getpid()
        self._register()

    def __repr__(self) -> str:
        return f"<CeleryQueue {self._queue} of {self.app.main}>"

    @property
    def _queue(self) -> str:
        return str(self.app.conf.task_default_queue)

    def _visibility(self) -> float:
        options = self.app.conf.broker_transport_options
        return float(options.get("visibility_timeout", 3600))

    # -- writing ------------------------------------------------------------

    def put(self, jobs: Sequence[Job], /, *, hold: float = 0.0) -> list[str]:
        """Publish jobs, each confirmed by the broker."""
        del hold  # for engines with leases
        with self._lock:
            for job in jobs:
                self._publish(job)
        return [job.id for job in jobs]

    def _publish(self, job: Job) -> None:
        due = time.time() + job.delay
        if job.delay and not self._is_rabbit:
            self._send(LATER, [job.text(), due], job.id, until=due)
        elif job.delay:
            self._send(RUN, [job.text()], job.id, delay=job.delay)
        else:
            self._send(RUN, [job.text()], job.id)

    def _send(
        self,
        task: str,
        args: list[object],
        id: str,  # noqa: A002 - the field's word
        *,
        delay: float = 0.0,
        until: float | None = None,
    ) -> None:
        """Publish a message; once more on a new connection if the old one was dead."""
        options: dict[str, Any] = {"queue": self._queue}
        if delay:
            # Ours too: what leaves the other and finds no queue is dropped by RabbitMQ.
            ours = self.app.amqp.queues[self._queue]
            options["queue"] = room = self._waiting_room(ours, delay)
            options["declare"] = [ours, room]
        if until is not None:
            step = max(0.0, min(until - time.time(), self._visibility() / 2))
            options["countdown"] = step
        with self._lock:
            self._deliver(
                lambda producer: self.app.send_task(
                    task,
                    args,
                    task_id=id,
                    producer=producer,
                    serializer="json",
                    ignore_result=True,
                    add_to_parent=False,
                    retry=False,
                    confirm_timeout=_ANSWER,
                    **options,
                )
            )

    def _waiting_room(self, ours: Any, delay: float) -> Any:
        """Give a queue whose messages move on to *ours* after *delay* seconds.

        Rounded up to two digits, so that there are few of them; it goes by itself.
        """
        places = max(0, len(str(int(delay * 10))) - 2)
        unit = 10**places
        tenths = -(-int(delay * 10 + 1) // unit) * unit
        to_exchange = ours.exchange.name if ours.exchange else ""
        return _kombu.Queue(
            f"{self._queue}.later.{tenths / 10:g}s",
            exchange=_kombu.Exchange("", type="direct"),
            durable=True,
            message_ttl=tenths / 10,
            expires=tenths / 10 + 60,
            queue_arguments={
                "x-dead-letter-exchange": to_exchange,
                "x-dead-letter-routing-key": ours.routing_key,
            },
        )

    def _deliver(self, send: Callable[[Any], object]) -> None:
        """Publish; once more on a new connection if the one there was has died."""
        if self._pid != os.getpid():
            self.forked()
        fresh = self._connection is None
        try:
            send(self.app.amqp.Producer(self._connected(), auto_declare=False))
        except Exception as exc:
            self.close()
            if not fresh:
                self._deliver(send)
                return
            raise QueueError(
                f"Celery's broker did not take a job ({type(exc).__name__}: {exc}). "
                "Usually it is down, or its address or password changed. Look at it; "
                "the job was not acknowledged."
            ) from exc

    def _connected(self) -> Any:
        if self._connection is None:
            options = self.app.conf.broker_transport_options
            self._connection = self.app.connection_for_write(
                heartbeat=0,  # nobody would answer one between two jobs
                transport_options={"confirm_publish": True, **options},
            )
            self._connection.ensure_connection(max_retries=1, interval_start=0)
        return self._connection

    # -- running ------------------------------------------------------------

    def _register(self) -> None:
        options: dict[str, Any] = {
            "bind": True,
            "acks_late": True,
            "acks_on_failure_or_timeout": True,
            "reject_on_worker_lost": True,
            "ignore_result": True,
            "serializer": "json",
        }

        def run(task: Any, *args: Any, **kwargs: Any) -> str:
            text = args[0] if len(args) == 1 and not kwargs else repr((args, kwargs))
            delivery: Any = task.request.delivery_info
            again = bool(delivery and delivery.get("redelivered"))
            return self._obey(text, again)

        def later(_task: Any, text: str, due: float) -> None:
            left = due - time.time()
            if left > 0:
                self._send(LATER, [text, due], _id_of(text), until=due)
            else:
                self._send(RUN, [text], _id_of(text))

        self.app.task(name=RUN, **options)(run)
        self.app.task(name=LATER, **options)(later)

    def _obey(self, text: str | bytes, again: bool) -> str:
        """Run a message and say what became of it.

        One that was delivered before is written anew first, with one run more.
        """
        if again:
            if (job := _running.count(self._run, text)) is not None:
                self._put_back(job)
            return "counted"
        verdict = self._run(text, 0)
        if verdict.state == "again":
            job = Job.read(text)
            self._put_back(job._replace(attempt=job.attempt + 1, delay=verdict.pause))
        return verdict.state

    def _put_back(self, job: Job) -> None:
        try:
            self.put([job])
        except QueueError as exc:  # the broker has the message still
            reject: Any = import_module("celery.exceptions").Reject
            raise reject(exc, requeue=True) from exc

    def work(self, run: Run, stop: Event, threads: int, /) -> None:
        """Run Celery's worker in this process, with *threads* child processes."""
        controller: Any = import_module("celery.worker").WorkController
        self._run = run
        _state.should_stop = None
        worker = controller(
            app=self.app,
            concurrency=threads,
            pool="prefork",
            prefetch_multiplier=1,
            without_gossip=True,
            without_mingle=True,
        )

        over = threading.Event()

        def end() -> None:
            stop.wait()
            _state.should_stop = 0
            if not over.wait(in_force().grace):
                _leave()

        start_thread(end, "postlude-celery-stop")
        worker.start()
        over.set()
        if worker.exitcode:
            raise QueueError(
                "Celery's worker ended by itself; its log says why. Usually its broker "
                "refuses it. Mend that, and start the worker again."
            )

    # -- the end ------------------------------------------------------------

    def close(self) -> None:
        """Close the connection that jobs are published on."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.release()
            except Exception:  # noqa: BLE001, S110 - it is gone already
                pass

    def forked(self) -> None:
        """Leave the parent's connection alone."""
        _leaked.append(self._connection)
        self._connection = None
        self._lock = threading.RLock()
        self._pid = os.getpid()


def _leave() -> None:
    """End at once: the broker gives what runs to another worker, as after a crash."""
    billiard: Any = import_module("billiard")
    for child in billiard.active_children():
        os.kill(child.pid, signal.SIGKILL)
    _reporting.flush()
    os._exit(0)


def _readable(text: str | bytes) -> Job | None:
    try:
        return Job.read(text)
    except ArgumentError:
        return None


def _id_of(text: str) -> str:
    job = _readable(text)
    return "unreadable" if job is None else job.id


def _app_of(address: Address) -> Any:
    """Make an app whose settings keep the promise of at least once."""
    visibility = address.number("visibility_timeout", _VISIBILITY)
    name = address.text("queue", "postlude")
    app = _celery.Celery("postlude", broker=address.url, set_as_current=False)
    options: dict[str, Any] = {"confirm_publish": True}
    if address.url.startswith("redis"):
        # Without a time limit a server that hangs would hang whoever publishes.
        options = {"visibility_timeout": visibility, "socket_connect_timeout": 4}
    address.refuse_the_rest()
    app.conf.update(
        accept_content=["json"],
        broker_connection_max_retries=None,
        broker_connection_retry_on_startup=True,
        broker_heartbeat=_HEARTBEAT,
        broker_transport_options=options,
        result_serializer="json",
        task_default_queue=name,
        task_serializer="json",
        worker_consumer="postlude.queues._celery_consumer:Consumer",
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_prefetch_multiplier=1,
    )
    return app
