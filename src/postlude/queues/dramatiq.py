"""Dramatiq, on RabbitMQ or Redis: jobs for workers on other machines.

One actor, `postlude_run`, carries every job as JSON text, without Dramatiq's own
middleware: retries, time limits and age limits are Postlude's. RabbitMQ confirms what
it was given, and flags a message that it delivered before; that is written anew with
one more run counted before it runs. In Redis a counter counts.

Dramatiq is LGPL: it is loaded here only, and is no part of Postlude. Checked on 2.2.
Its own command: `dramatiq postlude.queues.dramatiq:broker`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
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

_dramatiq: Any = import_module("dramatiq")

ACTOR = "postlude_run"
_HEARTBEAT = 20
"""Seconds; RabbitMQ gives up a connection, and redelivers, after two missed ones."""
_ALIVE = 15
"""Seconds without a sign after which a worker on Redis is taken for dead."""
_ALWAYS = 1_000_000
"""Look for dead workers with each command to Redis, of a million; Dramatiq's default is
one in a thousand, so that an idle queue may wait for minutes."""
_COUNTED = 7 * 86400
"""Seconds that the runs of a job in Redis are remembered."""
_ACKNOWLEDGED = 2.0
"""Seconds at most until Dramatiq has acknowledged a message whose actor is done."""
_TRIES = 10
_here = threading.local()
"""What the broker says of the message that runs in this thread."""
_leaked: list[object] = []


def open_queue(address: str) -> DramatiqQueue:
    """Give the queue of `dramatiq+amqp://user:password@host:5672/vhost?queue=name`."""
    read = Address.read(address)
    name = read.text("queue", "postlude")
    read.refuse_the_rest()
    return DramatiqQueue(_broker_of(read.url), name)


def __getattr__(name: str) -> Any:
    """Give `broker` to Dramatiq's own command: that of the setting `queue`."""
    if name != "broker":
        raise AttributeError(name)
    settings()
    queue = getattr(_call.carrier, "queue", None)
    if not isinstance(queue, DramatiqQueue):
        raise SettingsError(
            "postlude.queues.dramatiq was asked for its broker, and the setting queue "
            "names no Dramatiq. Usually the worker was started without the web "
            "process' settings. Set POSTLUDE_QUEUE=dramatiq+amqp://... for both."
        )
    return queue.broker


class DramatiqQueue(Unlisted):
    """Jobs for Dramatiq's workers. Any thread."""

    name = "dramatiq"

    def __init__(self, broker: Any, name: str = "postlude") -> None:
        """Take a broker of your own; on RabbitMQ with `confirm_delivery=True`.

        Raises:
            SettingsError: it would not say whether it took a message.
        """
        self.broker = broker
        self._name = name
        self._redis: Any = getattr(broker, "client", None)
        if self._redis is None and not getattr(broker, "confirm_delivery", True):
            raise SettingsError(
                "The Dramatiq broker does not confirm what it is given, so a durable "
                "call could be lost without a word. That is Dramatiq's default. Make "
                "it with RabbitmqBroker(..., confirm_delivery=True)."
            )
        self.can = Capabilities(
            at_least_once=True,
            leases=False,
            transactional=False,
            delays=True,
            policy_per_call=False,
            keeps_failures=False,
            keys=False,
            embedded=False,
            recovery=3.0 * _HEARTBEAT if self._redis is None else _ALIVE + 5.0,
        )
        self._run: Run = _running.run
        self._pid = os.getpid()
        self._worker: Any = None
        self._leaving: dict[str, threading.Event] = {}
        """The messages of jobs that were written anew, until they are acknowledged."""
        broker.add_middleware(_middleware(self))
        options: dict[str, Any] = {"queue_name": name, "broker": broker}
        self._actor = _dramatiq.actor(self._act, actor_name=ACTOR, **options)

    def __repr__(self) -> str:
        return f"<DramatiqQueue {self._name} of {self.broker!r}>"

    # -- writing ------------------------------------------------------------

    def put(self, jobs: Sequence[Job], /, *, hold: float = 0.0) -> list[str]:
        """Publish jobs; RabbitMQ confirms each."""
        del hold  # for engines with leases
        if self._pid != os.getpid():
            self.forked()
        try:
            for job in jobs:
                message = self._actor.message(job.text())
                delay = round(job.delay * 1000) if job.delay else None
                self.broker.enqueue(message, delay=delay)
        except Exception as exc:
            raise QueueError(
                f"Dramatiq's broker did not take a job ({type(exc).__name__}: {exc}). "
                "Usually it is down, or its address or password changed. Look at it; "
                "the job was not acknowledged."
            ) from exc
        return [job.id for job in jobs]

    # -- running ------------------------------------------------------------

    def _act(self, *args: object, **kwargs: object) -> None:
        """Run a message; the actor."""
        settings()
        text = args[0] if len(args) == 1 and not kwargs else repr((args, kwargs))
        if not isinstance(text, str):
            text = repr(text)
        runs: int = getattr(_here, "runs", 0)
        if runs and self._redis is None:
            # It was delivered before, so it is written anew with one run more.
            if (job := _running.count(self._run, text)) is not None:
                self._leaving[_here.id] = threading.Event()
                self._put_back(job)
            return
        # One of them may be here already, and kill this process; the message before it
        # would be delivered once more.
        for left in list(self._leaving.values()):
            left.wait(_ACKNOWLEDGED)
        verdict = self._run(text, runs)
        if verdict.state == "again":
            job = Job.read(text)
            attempt = job.attempt + runs + 1
            self._put_back(job._replace(attempt=attempt, delay=verdict.pause))

    def _put_back(self, job: Job) -> None:
        """Publish; Dramatiq acknowledges whatever an actor raises, so never give up."""
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

    def work(self, run: Run, stop: Event, threads: int, /) -> None:
        """Run Dramatiq's worker with *threads* threads of this process."""
        self._run = run
        self._worker = worker = _dramatiq.Worker(
            self.broker, queues={self._name, f"{self._name}.DQ"}, worker_threads=threads
        )
        # What a killed worker had reserved is delivered again, and counts as begun.
        worker.queue_prefetch = threads
        worker.start()
        stop.wait()
        worker.stop(timeout=round(in_force().grace * 1000))
        self.broker.close()

    # -- the end ------------------------------------------------------------

    def close(self) -> None:
        """Close the connections of this process."""
        self.broker.close()

    def forked(self) -> None:
        """Leave the parent's connections alone."""
        self._pid = os.getpid()
        if self._redis is None:  # that client looks at the process itself
            _leaked.append((self.broker.connections, self.broker.channels))
            self.broker.state = threading.local()
            self.broker.connections, self.broker.channels = set(), set()

    # -- counting -----------------------------------------------------------

    def begins(self, message: Any) -> int:
        """Count a run before it begins; gives how many there were."""
        if self._redis is None:
            return int(getattr(message, "redelivered", False))
        key = self._key(message)
        with self._redis.pipeline() as pipe:
            pipe.incr(key)
            pipe.expire(key, _COUNTED)
            runs, _ = pipe.execute()
        return int(runs) - 1

    def ended(self, message: Any) -> None:
        """Forget how often a message ran."""
        if self._redis is not None:
            self._redis.delete(self._key(message))

    def left(self, message: Any) -> None:
        """See a message being acknowledged: its consumer's connection does it next."""
        if (left := self._leaving.get(message.message_id)) is None:
            return

        def tell() -> None:
            self._leaving.pop(message.message_id, None)
            left.set()

        consumer = self._worker.consumers[message.queue_name].consumer
        consumer.connection.add_callback_threadsafe(tell)

    def _key(self, message: Any) -> str:
        return f"postlude:{self._name}:runs:{message.options['redis_message_id']}"


def _middleware(queue: DramatiqQueue) -> Any:
    """Count runs, and record messages for actors that there are not."""

    class Counting(_dramatiq.Middleware):  # type: ignore[misc]  # no types here
        def before_process_message(self, _broker: Any, message: Any) -> None:
            if message.actor_name == ACTOR:
                _here.id = message.message_id
                _here.runs = queue.begins(message)

        def after_ack(self, _broker: Any, message: Any) -> None:
            queue.left(message)

        def after_process_message(
            self,
            _broker: Any,
            message: Any,
            *,
            result: Any = None,
            exception: BaseException | None = None,
        ) -> None:
            del result
            if message.actor_name == ACTOR:
                queue.ended(message)
            elif isinstance(exception, _dramatiq.errors.ActorNotFound):
                error = ArgumentError(
                    f"A message names the actor {message.actor_name!r}, which is not "
                    "known here. Usually another program writes to this queue. It was "
                    "not run; look at who writes to it."
                )
                _running.refuse(None, error, repr(message.args)[:200])

    return Counting()


def _broker_of(url: str) -> Any:
    """Make a broker whose settings keep the promise of at least once."""
    if url.startswith("redis"):
        redis: Any = import_module("dramatiq.brokers.redis")
        return redis.RedisBroker(
            url=url,
            middleware=[],
            heartbeat_timeout=_ALIVE * 1000,
            maintenance_chance=_ALWAYS,
        )
    rabbit: Any = import_module("dramatiq.brokers.rabbitmq")
    limits = f"heartbeat={_HEARTBEAT}&socket_timeout=5&blocked_connection_timeout=10"
    scheme, _, rest = url.partition("://")
    host, _, vhost = rest.partition("/")
    if vhost == "/":  # Celery's way to write the vhost of that name
        vhost = "%2F"
    return rabbit.RabbitmqBroker(
        url=f"{scheme}://{host}/{vhost}?{limits}", middleware=[], confirm_delivery=True
    )
