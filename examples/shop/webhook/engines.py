"""The job engines of the demo: the embedded one, and those that need a server."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from postlude.exceptions import SettingsError
from postlude.queues import open_queue
from shop.opening import ShopError
from shop.postgresql import open_server
from shop.processes import Processes
from shop.settings import BadSettingError
from shop.webhook.leftovers import clear

EMBEDDED, UNHINGED = "sqlite", "unhinged"
"""The engine that needs no server, and the library behind it."""
SERVERS = {
    "amqp": ("RabbitMQ", "AMQP_URL", "amqp://guest:guest@127.0.0.1:5672//"),
    "redis": ("Redis", "REDIS_URL", "redis://127.0.0.1:6379/15"),
}
"""What brokers speak: who does, the variable with the address, the usual address."""
ENGINES = {
    "absurd": ("Absurd", "postgresql", "absurdctl"),
    "celery": ("Celery", "amqp", "celery"),
    "dbos": ("DBOS", "postgresql", "dbos"),
    "dramatiq": ("Dramatiq", "amqp", "dramatiq"),
    "huey": ("Huey", "redis", "huey"),
    "procrastinate": ("Procrastinate", "postgresql", "procrastinate"),
    "rq": ("RQ", "redis", "rq"),
    "taskiq": ("TaskIQ", "amqp", "taskiq"),
}
"""What it is called, what it speaks if nobody says `celery+redis`, its package."""
TABLES = {
    "absurd": (
        "absurdctl init --database={url}",
        "absurdctl create-queue --database={url} postlude",
    ),
    "dbos": ("dbos migrate --sys-db-url={url}",),
    "procrastinate": (
        "procrastinate --app=postlude.queues.procrastinate.app schema --apply",
    ),
}
"""The commands of engines that make their tables."""


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that can be used."""

    title: str
    address: str
    """For the setting `queue`."""
    package: str
    workers: bool
    """Whether a worker runs beside the shop; else threads of the web process do it."""


def engine_named(name: str) -> str:
    """Return the scheme of an engine's address.

    Raises:
        BadSettingError: the demo knows none of that name.
    """
    engine, _, server = name.lower().partition("+")
    if name.lower() == EMBEDDED:
        return EMBEDDED
    if engine in ENGINES and server in {"", *SERVERS, "postgresql"}:
        return f"{engine}+{server or ENGINES[engine][1]}"
    raise BadSettingError(
        f"ENGINE={name} is not one of {', '.join([EMBEDDED, *ENGINES])}.",
        "another engine, or a typing slip.",
        "ENGINE=celery make demo-webhook",
    )


@contextmanager
def open_engine(scheme: str, folder: Path) -> Iterator[Engine]:
    """Give an engine with a queue of its own for as long as the block lasts.

    Raises:
        ShopError: it is not installed, or its server cannot be had.
    """
    name, _, server = scheme.partition("+")
    if scheme == EMBEDDED:
        title = "the embedded queue, a SQLite file"
        yield _usable(title, f"sqlite:///{folder / 'queue.db'}", UNHINGED)
        return
    called, _, package = ENGINES[name]
    if server == "postgresql":
        with open_server() as postgresql, postgresql.database() as url:
            address = url.replace("postgresql+psycopg", scheme, 1)
            engine = _usable(f"{called} on {postgresql.title}", address, package)
            _make_tables(name, address, folder)
            yield engine
    else:
        title, variable, usual = SERVERS[server]
        url, queue = os.environ.get(variable) or usual, _unused_name()
        _reach(title, variable, url)
        mark = "&" if "?" in url else "?"
        address = f"{name}+{url}{mark}queue={queue}"
        engine = _usable(f"{called} on {title}", address, package)
        try:
            yield engine
        finally:
            clear(url, queue)


def _usable(title: str, address: str, package: str) -> Engine:
    """Return an engine whose library is there."""
    try:
        open_queue(address)
    except SettingsError as error:
        raise ShopError(
            f"{title} cannot be used here.",
            str(error),
            "ENGINE=... make demo-webhook takes an environment that has them all; "
            "without ENGINE the demo needs none.",
        ) from error
    return Engine(title, address, package, workers=package != UNHINGED)


def _unused_name() -> str:
    return f"postlude-demo-{secrets.token_hex(4)}"


def _reach(title: str, variable: str, url: str) -> None:
    """Look whether a broker is there, before anything is started."""
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), 5).close()
    except OSError as error:
        raise ShopError(
            f"no {title} at {parts.hostname}:{parts.port}: {error.strerror or error}.",
            "it does not run, or it runs elsewhere.",
            f"start it, or say where it is: {variable}={url}",
        ) from error


def _make_tables(name: str, address: str, folder: Path) -> None:
    """Have an engine make its tables in a new database."""
    _, _, url = address.partition("+")
    with Processes(folder) as processes:
        for line in TABLES[name]:
            program, *words = line.split()
            command = [str(Path(sys.executable).with_name(program))]
            command += [word.format(url=url) for word in words]
            variables = {"POSTLUDE_QUEUE": address}
            making = processes.start(f"{name} tables", command, variables)
            if making.wait() != 0:
                raise ShopError(
                    f"{name} did not make its tables.",
                    "its version is one that this demo does not know.",
                    "the log below says more.",
                    making.log_tail(),
                )
