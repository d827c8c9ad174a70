"""F2: the engines on brokers under the kill suite; with `TEST_SERVICES=all`."""

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from pathlib import Path

import pytest
from killing.cases import KillCases
from killing.engine import Engine

ALL = os.environ.get("TEST_SERVICES") == "all"
REDIS = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/15")
AMQP = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672//")

pytestmark = pytest.mark.timeout(600)


def on(
    engine: str, broker: str, clean: Callable[[str], None], options: str = ""
) -> Callable[[Path], AbstractContextManager[Mapping[str, str]]]:
    """Give what makes a queue of its own, and takes it away afterwards."""

    @contextmanager
    def place(_folder: Path) -> Iterator[Mapping[str, str]]:
        name = f"postlude-kill-{secrets.token_hex(4)}"
        yield {"POSTLUDE_QUEUE": f"{engine}+{broker}?queue={name}{options}"}
        clean(name)

    return place


def clean_redis(name: str) -> None:
    """Delete the keys of that name."""
    redis = import_module("redis").Redis.from_url(REDIS)
    for key in redis.scan_iter("rq:job:*"):  # RQ's names say nothing of the queue
        if redis.hget(key, "origin") == name.encode():
            redis.delete(key, key.replace(b"rq:job:", b"rq:results:"))
    for key in redis.scan_iter(f"*{name}*"):
        redis.delete(key)
    redis.close()


def clean_rabbit(name: str) -> None:
    """Delete the queues of that name."""
    pika = import_module("pika")
    url = AMQP.replace("5672//", "5672/%2F")
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        for suffix in ("", ".DQ", ".XQ", ".dead"):
            connection.channel().queue_delete(name + suffix)


if ALL:

    class TestCeleryOnRabbitMQ(KillCases):
        """Celery, which the issue names."""

        engine = Engine(
            "celery+amqp", on("celery", AMQP, clean_rabbit), leases=False, recovery=30.0
        )

    class TestCeleryOnRedis(KillCases):
        """Celery with a visibility timeout that ends soon."""

        engine = Engine(
            "celery+redis",
            on("celery", REDIS, clean_redis, "&visibility_timeout=5"),
            leases=False,
            recovery=115.0,
            graceful=False,
        )

    class TestRQ(KillCases):
        """RQ with the worker class that looks for the dead."""

        engine = Engine(
            "rq",
            on("rq", REDIS, clean_redis),
            leases=False,
            recovery=45.0,
            graceful=False,
        )

    class TestDramatiqOnRabbitMQ(KillCases):
        """Dramatiq with confirmed delivery."""

        engine = Engine(
            "dramatiq+amqp",
            on("dramatiq", AMQP, clean_rabbit),
            leases=False,
            recovery=60.0,
        )

    class TestDramatiqOnRedis(KillCases):
        """Dramatiq, which looks for dead workers with each command."""

        engine = Engine(
            "dramatiq+redis",
            on("dramatiq", REDIS, clean_redis),
            leases=False,
            recovery=20.0,
            graceful=False,
        )

    class TestTaskIQ(KillCases):
        """TaskIQ on RabbitMQ, which alone keeps the promise."""

        engine = Engine(
            "taskiq+amqp", on("taskiq", AMQP, clean_rabbit), leases=False, recovery=30.0
        )
