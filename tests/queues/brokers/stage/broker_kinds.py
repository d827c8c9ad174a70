"""What differs between engines for their tests: addresses, forgery, cleaning up."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ALL = os.environ.get("TEST_SERVICES") == "all"
REDIS = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/15")
AMQP = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672//")


@dataclass(frozen=True)
class Kind:
    """One engine on one broker."""

    name: str
    broker: str
    """The broker's own address; empty for a file."""
    options: str
    forge: Callable[[Any, str, str], None]
    """Puts a text on the queue, past the port: adapter, name of the queue, text."""
    clean: Callable[[str], None]
    """Takes away what a queue left on its broker."""
    at_least_once: bool = True
    """Without, a job whose process is killed is lost, and `.durable()` is refused."""

    def address(self, queue: str, folder: Path, port: int | None = None) -> str:
        """Give the address of a queue; with *port* through a proxy."""
        if not self.broker:
            return f"{self.name}:///{folder}/{queue}.db"
        broker = self.broker
        if port is not None:
            broker = broker.replace(
                urlsplit(broker).netloc.rpartition("@")[2], f"127.0.0.1:{port}"
            )
        return f"{self.name.partition('+')[0]}+{broker}?queue={queue}{self.options}"


def _name(address: str) -> str:
    return address.partition("queue=")[2].partition("&")[0]


def _clean_redis(address: str) -> None:
    redis = import_module("redis").Redis.from_url(REDIS)
    for key in redis.scan_iter("rq:job:*"):  # RQ's names say nothing of the queue
        if redis.hget(key, "origin") == _name(address).encode():
            redis.delete(key, key.replace(b"rq:job:", b"rq:results:"))
    for key in redis.scan_iter(f"*{_name(address)}*"):
        redis.delete(key)
    redis.close()


def _clean_rabbit(address: str) -> None:
    """Delete the queues of that name: those there can be, since AMQP lists none."""
    pika = import_module("pika")
    connection = pika.BlockingConnection(
        pika.URLParameters(AMQP.replace("5672//", "5672/%2F"))
    )
    channel = connection.channel()
    for suffix in ("", ".DQ", ".XQ", ".delay", ".dead"):
        channel.queue_delete(_name(address) + suffix)
    connection.close()


def _forge_celery(queue: Any, _name: str, text: str) -> None:
    queue.app.send_task("postlude.run", [text], queue=queue.app.conf.task_default_queue)


CELERY_AMQP = Kind("celery+amqp", AMQP, "", _forge_celery, _clean_rabbit)
CELERY_REDIS = Kind(
    "celery+redis", REDIS, "&visibility_timeout=2", _forge_celery, _clean_redis
)


def _forge_rq(_queue: Any, name: str, text: str) -> None:
    redis = import_module("redis").Redis.from_url(REDIS)
    serializer = import_module("rq.serializers").JSONSerializer
    queue = import_module("rq").Queue(name, connection=redis, serializer=serializer)
    queue.enqueue("postlude.queues.rq.run_job", text)
    redis.close()


RQ = Kind("rq+redis", REDIS, "", _forge_rq, _clean_redis)


def _forge_dramatiq(queue: Any, name: str, text: str) -> None:
    message = import_module("dramatiq").Message(
        queue_name=name, actor_name="postlude_run", args=(text,), kwargs={}, options={}
    )
    queue.broker.enqueue(message)


DRAMATIQ_AMQP = Kind("dramatiq+amqp", AMQP, "", _forge_dramatiq, _clean_rabbit)
DRAMATIQ_REDIS = Kind("dramatiq+redis", REDIS, "", _forge_dramatiq, _clean_redis)


def _forge_taskiq(queue: Any, _name: str, text: str) -> None:
    queue._wait(queue._send([(text, 0.0)]))


TASKIQ = Kind("taskiq+amqp", AMQP, "", _forge_taskiq, _clean_rabbit)


def _forge_huey(queue: Any, _name: str, text: str) -> None:
    queue.huey.enqueue(queue._task.s(text))


HUEY_SQLITE = Kind(
    "huey+sqlite", "", "", _forge_huey, lambda _address: None, at_least_once=False
)
HUEY_REDIS = Kind(
    "huey+redis", REDIS, "", _forge_huey, _clean_redis, at_least_once=False
)

KINDS: list[Kind] = [HUEY_SQLITE]
if ALL:
    KINDS += [
        CELERY_AMQP,
        CELERY_REDIS,
        RQ,
        DRAMATIQ_AMQP,
        DRAMATIQ_REDIS,
        HUEY_REDIS,
        TASKIQ,
    ]
AT_LEAST_ONCE = [kind for kind in KINDS if kind.at_least_once]
AT_MOST_ONCE = [kind for kind in KINDS if not kind.at_least_once]
