"""What a broker must not keep of a demo that is over: its queue."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from shop.signals import uninterrupted

SUFFIXES = ("", ".DQ", ".XQ", ".dead")
"""Dramatiq has two more queues for each: what is delayed, what is dead; TaskIQ
has one more, of what is dead."""


def clear(url: str, queue: str) -> None:
    """Delete a queue; what it cannot do, as the broker is gone, is left undone."""
    speaks_amqp = urlsplit(url).scheme.startswith("amqp")
    with uninterrupted(), suppress(Exception):
        (_clear_amqp if speaks_amqp else _clear_redis)(url, queue)


def _clear_amqp(url: str, queue: str) -> None:
    pika: Any = import_module("pika")
    # pika takes "//" for a virtual host of that name; others for "/".
    parameters = pika.URLParameters(url.removesuffix("//") + "/%2F")
    with pika.BlockingConnection(parameters) as connection:
        for suffix in SUFFIXES:
            connection.channel().queue_delete(queue + suffix)


def _clear_redis(url: str, queue: str) -> None:
    redis: Any = import_module("redis")
    with redis.Redis.from_url(url) as server:
        for key in server.scan_iter(f"*{queue}*"):
            server.delete(key)
