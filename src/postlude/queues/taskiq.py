"""TaskIQ, on RabbitMQ: jobs for workers on other machines.

One task, `postlude_run`, carries every job as JSON text; its message is acknowledged
when the job has ended. RabbitMQ flags a message that it delivered before; that is
written anew with one more run counted before it runs. Delays wait in a queue of their
own whose messages move on after a time.

Not on Redis. TaskIQ's broker on streams gives a dead worker's message to another only
when a new one comes, and a living worker's as well if its job is longer than a time set
before; it has no delays, and so no pauses between retries; it never deletes a message.
Its other brokers on Redis acknowledge before a job runs. Checked on TaskIQ 0.13 and
taskiq-aio-pika 0.6.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from postlude import _reporting
from postlude._log import say
from postlude._settings import in_force
from postlude._threads import start_thread
from postlude.exceptions import ArgumentError, QueueError
from postlude.queues import _running
from postlude.queues._address import Address
from postlude.queues._job import Job
from postlude.queues._queue import Capabilities, Unlisted

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from threading import Event

    from postlude.queues._queue import Run

_pika: Any = import_module("aio_pika")
_taskiq: Any = import_module("taskiq_aio_pika")
_kicker: Any = import_module("taskiq.kicker").AsyncKicker
_receiver: Any = import_module("taskiq.receiver").Receiver

TASK = "postlude_run"
_HEARTBEAT = 10
"""Seconds; RabbitMQ gives up a connection, and redelivers, after two missed ones."""
_ANSWER = 10.0
"""Seconds that the broker may take to confirm what it is given."""
_leaked: list[object] = []
"""A parent process' connections: closing one in the child would end the parent's."""


def open_queue(address: str) -> TaskIQQueue:
    """Give the queue of `taskiq+amqp://user:password@host:5672/vhost?queue=name`."""
    read = Address.read(address)
    name = read.text("queue", "postlude")
    read.refuse_the_rest()
    return TaskIQQueue(read.url, name)


class TaskIQQueue(Unlisted):
    """Jobs for TaskIQ's receiver. Any thread."""

    name = "taskiq"
    can = Capabilities(
        at_least_once=True,
        leases=False,
        transactional=False,
        delays=True,
        policy_per_call=False,
        keeps_failures=False,
        keys=False,
        embedded=False,
        recovery=3.0 * _HEARTBEAT,
    )

    def __init__(self, url: str, name: str = "postlude") -> None:
        """Name the server and the queue on it; it is connected with its first use."""
        scheme, _, rest = url.partition("://")
        host, _, vhost = rest.partition("/")
        vhost = "%2F" if vhost == "/" else vhost  # Celery's way to write that name
        self._url = f"{scheme}://{host}/{vhost}?heartbeat={_HEARTBEAT}"
        self._name = name
        self._broker: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"<TaskIQQueue {self._name}>"

    # -- writing ------------------------------------------------------------

    def put(self, jobs: Sequence[Job], /, *, hold: float = 0.0) -> list[str]:
        """Publish jobs, each confirmed by RabbitMQ."""
        del hold  # for engines with leases
        self._wait(self._send([(job.text(), job.delay) for job in jobs]))
        return [job.id for job in jobs]

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        """Have the one loop of this process that knows the connection do something."""
        if self._pid != os.getpid():
            self.forked()
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                try:
                    run = self._loop.run_forever
                    self._thread = start_thread(run, "postlude-taskiq")
                except RuntimeError:  # at interpreter shutdown, from Python 3.12 on
                    self._thread = None
            if self._thread is None:
                self._loop.run_until_complete(work)
            else:
                asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _send(self, texts: Sequence[tuple[str, float]]) -> None:
        """Publish; once more on a new connection if the one there was has died."""
        fresh = self._broker is None
        try:
            async with asyncio.timeout(_ANSWER):
                if self._broker is None:
                    self._broker = broker = self.broker(1)
                    await broker.startup()
                for text, delay in texts:
                    await self._broker.send(text, delay)
        except Exception as exc:
            await self._disconnect()
            if not fresh:
                await self._send(texts)
                return
            raise QueueError(
                f"RabbitMQ did not take a job ({type(exc).__name__}: {exc}). Usually "
                "it is down, or its address or password changed. Look at it; the job "
                "was not acknowledged."
            ) from exc

    async def _disconnect(self) -> None:
        broker, self._broker = self._broker, None
        if broker is not None:
            try:
                async with asyncio.timeout(1.0):
                    await broker.shutdown()
            except Exception:  # noqa: BLE001, S110 - it is gone already
                pass

    def broker(self, threads: int) -> Any:
        """Make TaskIQ's broker, with settings that keep the promise."""
        return _Broker(
            self._url,
            qos=threads,  # what a killed worker had reserved counts as begun
            task_queues=[_taskiq.Queue(name=self._name)],
            dead_letter_queue=_taskiq.Queue(name=f"{self._name}.dead"),
            reconnect_interval=1,
        )

    # -- running ------------------------------------------------------------

    def work(self, run: Run, stop: Event, threads: int, /) -> None:
        """Run TaskIQ's receiver in this process, with *threads* threads."""
        asyncio.run(self._serve(run, stop, threads))

    async def _serve(self, run: Run, stop: Event, threads: int) -> None:
        broker = self.broker(threads)
        broker.is_worker_process = True
        try:
            async with asyncio.timeout(_ANSWER):
                await broker.startup()
        except Exception as exc:
            raise QueueError(
                f"RabbitMQ cannot be worked on ({type(exc).__name__}: {exc}). Usually "
                "it is down, or its address or password changed. Look at it, and start "
                "the worker again."
            ) from exc
        finish, loop = asyncio.Event(), asyncio.get_running_loop()

        def end() -> None:
            stop.wait()
            loop.call_soon_threadsafe(finish.set)

        start_thread(end, "postlude-taskiq-stop")
        receiver = Receiver(broker, run, threads)
        await receiver.listen(finish)
        if receiver.busy:  # RabbitMQ gives it to another worker, as after a crash
            _reporting.flush()
            os._exit(0)
        await broker.shutdown()

    # -- the end ------------------------------------------------------------

    def close(self) -> None:
        """Close the connection of this process, and end its loop."""
        loop, thread = self._loop, self._thread
        if loop is None or self._pid != os.getpid():
            return
        self._wait(self._disconnect())
        self._loop = self._thread = None
        if thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
        loop.close()

    def forked(self) -> None:
        """Leave the parent's connection and loop alone."""
        _leaked.append((self._broker, self._loop))
        self._broker = self._loop = self._thread = None
        self._lock = threading.Lock()
        self._pid = os.getpid()


class _Broker(_taskiq.AioPikaBroker):  # type: ignore[misc]  # taskiq is not there when types are checked
    """TaskIQ's broker, which says when a message went nowhere, and has delays."""

    async def startup(self) -> None:
        """Connect; what no queue takes is an error."""
        parent: Any = super()
        await parent.startup()
        self.write_channel = await self.write_conn.channel(on_return_raises=True)

    async def send(self, text: str, delay: float) -> None:
        """Publish a job, for *delay* seconds from now."""
        if not self.write_conn.connected.is_set():
            raise ConnectionError("the connection is broken")
        labels = {"delay": delay} if delay else {}
        await _kicker(TASK, self, labels).kiq(text)

    async def kick(self, message: Any) -> None:
        """Publish a message of TaskIQ's."""
        delay = float(message.labels.get("delay", 0))
        if not delay:
            parent: Any = super()
            await parent.kick(message)
            return
        room = await self._waiting_room(delay)
        lasting = _pika.DeliveryMode.PERSISTENT
        body = _pika.Message(message.message, delivery_mode=lasting)
        await self.write_channel.default_exchange.publish(body, routing_key=room)

    async def _waiting_room(self, delay: float) -> str:
        """Make a queue whose messages move on to ours after *delay* seconds.

        Rounded up to two digits, so that there are few of them; it goes by itself.
        """
        tenths = int(delay * 10) + 1
        unit = 10 ** max(0, len(str(tenths)) - 2)
        tenths = -(-tenths // unit) * unit
        ours = self._task_queues[0].name
        room = await self.write_channel.declare_queue(
            f"{ours}.later.{tenths / 10:g}s",
            durable=True,
            robust=False,
            arguments={
                "x-message-ttl": tenths * 100,
                "x-expires": tenths * 100 + 60_000,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": ours,
            },
        )
        return str(room.name)


class Receiver(_receiver):  # type: ignore[misc]  # as above
    """TaskIQ's receiver, which runs jobs of Postlude's only, and counts their deaths.

    None of TaskIQ's middleware, and no result: retries and time limits are Postlude's.
    """

    def __init__(self, broker: Any, run: Run, threads: int) -> None:
        parent: Any = super()
        parent.__init__(
            broker=broker,
            run_startup=False,
            max_async_tasks=threads,
            wait_tasks_timeout=in_force().grace,
        )
        self._run = run
        self._threads = ThreadPoolExecutor(threads, "postlude-job")
        self.busy = 0
        """How many jobs run."""

    async def callback(self, message: Any, raise_err: bool = False) -> None:
        """Run a message and acknowledge it; if that fails, RabbitMQ keeps it."""
        del raise_err
        self.busy += 1
        incoming = message.ack.__self__  # TaskIQ passes on no more of what came
        try:
            await self._settle(incoming)
        except Exception as exc:  # noqa: BLE001 - the message is the broker's still
            say(logging.WARNING, KEPT, exc)
            with suppress(Exception):  # it is given back when the connection ends
                await incoming.reject(requeue=True)
        finally:
            self.busy -= 1

    async def _settle(self, incoming: Any) -> None:
        loop = asyncio.get_running_loop()
        job = await loop.run_in_executor(self._threads, self._obey, incoming)
        if incoming.channel.is_closed:
            raise ConnectionError("the connection broke meanwhile")
        if job is not None:
            async with asyncio.timeout(_ANSWER):
                await self.broker.send(job.text(), job.delay)
        await incoming.ack()

    def _obey(self, incoming: Any) -> Job | None:
        """Run a message; gives what must be written before it is acknowledged."""
        try:
            text = self._text(incoming.body)
        except ArgumentError as exc:
            _running.refuse(None, exc, str(incoming.body[:200]))
            return None
        if incoming.redelivered:
            return _running.count(self._run, text)
        verdict = self._run(text, 0)
        if verdict.state != "again":
            return None
        job = Job.read(text)
        return job._replace(attempt=job.attempt + 1, delay=verdict.pause)

    def _text(self, body: bytes) -> str:
        """Give the job in a message of TaskIQ's."""
        try:
            message: Any = self.broker.formatter.loads(body)
        except Exception as exc:
            raise ArgumentError(STRANGE.format(what="is none of TaskIQ's")) from exc
        if message.task_name != TASK:
            what = f"names the task {message.task_name[:100]!r}"
            raise ArgumentError(STRANGE.format(what=what))
        given = message.args[0] if len(message.args) == 1 else message.args
        return given if isinstance(given, str) else repr(given)


KEPT = "a job of TaskIQ could not be settled (%s); RabbitMQ gives it to a worker again"
STRANGE = (
    "A message in Postlude's queue {what}. Usually another program writes to it. It "
    "was not run; look at who writes to it."
)
