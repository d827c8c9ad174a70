"""Open the shop: start its services and its server, and wait until both answer."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shop.addresses import Addresses
from shop.processes import Process, Processes
from shop.settings import Settings
from shop.wire import exchange

START_SECONDS = 30.0
"""A slow machine imports a framework in a few seconds; ten times that is a failure."""


class ShopError(RuntimeError):
    """The shop did not open or broke down; its text says what, why and the fix."""

    def __init__(self, happened: str, cause: str, fix: str, log: str = "") -> None:
        """Keep the three beats and, below them, what the process said."""
        text = f"error: {happened}\ncause: {cause}\nfix:   {fix}"
        super().__init__(f"{text}\n\n{log}" if log else text)


@dataclass(frozen=True, slots=True)
class Shop:
    """A shop that is open."""

    port: int
    services_port: int
    journal: Path
    server: Process
    environment: Mapping[str, str]
    """The server's own variables, for whoever else belongs to the shop."""

    def ledger(self) -> dict[str, Any]:
        """Return what the services have received."""
        ledger: dict[str, Any] = json.loads(
            exchange(self.services_port, "GET", "/ledger").body
        )
        return ledger


@contextmanager
def open_shop(
    settings: Settings,
    folder: Path,
    *,
    database: str | None = None,
    package: str = "shop",
    variables: Mapping[str, str] | None = None,
) -> Iterator[Shop]:
    """Run the shop in a folder for as long as the block lasts.

    `database` is an address for SQLAlchemy, else a file of SQLite in the folder;
    `package` has the applications; `variables` go to the server's environment.

    Raises:
        ShopError: when the port is taken or a process does not start.
    """
    port = _claimed_port(settings)
    environment = {"PYTHONPATH": _python_path()}
    with Processes(folder) as processes:
        latencies = json.dumps(asdict(settings.latencies))
        services = processes.start(
            "services",
            [sys.executable, "-m", "shop.parts", latencies],
            environment,
            talks=True,
        )
        ports = services.first_line()
        if not ports:
            raise _not_started(services, settings)
        ports = json.loads(ports)
        addresses = Addresses(
            folder=folder,
            database=database or f"sqlite:///{folder / 'shop.sqlite3'}",
            smtp_port=ports["smtp"],
            services=f"http://127.0.0.1:{ports['http']}",
            own_work=settings.latencies.own / 1000,
        )
        environment |= addresses.as_environment() | dict(variables or {})
        command = _server(f"{package}.{settings.framework}_app:app", settings, port)
        server = processes.start("server", command, environment)
        _await_answer(server, port, settings)
        yield Shop(port, ports["http"], addresses.journal, server, environment)


def _server(app: str, settings: Settings, port: int) -> list[str]:
    """Return the command that serves an application on its framework's usual server."""
    if settings.framework == "fastapi":
        return [
            *(sys.executable, "-m", "uvicorn", app, "--host", "127.0.0.1"),
            *("--port", str(port), "--log-level", "warning", "--no-access-log"),
        ]
    return [
        *(sys.executable, "-m", "gunicorn", app, "--bind", f"127.0.0.1:{port}"),
        *("--config", "python:shop.gunicorn_conf"),
    ]


def _claimed_port(settings: Settings) -> int:
    """Return the wanted port, or a free one, after a look whether it can be had."""
    try:
        # The same options as the servers set: a port in TIME_WAIT counts as free.
        with socket.create_server(("127.0.0.1", settings.port)) as listener:
            port: int = listener.getsockname()[1]
            return port
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise ShopError(
            f"port {settings.port} of 127.0.0.1 cannot be had: {reason}.",
            "another program listens there, perhaps a shop left open with KEEP=1; "
            "or only root may have a port that low.",
            "leave PORT out, and the demo takes a free port.",
        ) from error


def _await_answer(server: Process, port: int, settings: Settings) -> None:
    """Return when the shop answers, from its database and through its cache."""
    deadline = time.monotonic() + START_SECONDS
    while server.running and time.monotonic() < deadline:
        try:
            answer = exchange(
                port, "GET", "/orders?email=nobody", timeout=START_SECONDS
            )
        except OSError:
            # gunicorn listens before its worker has imported the application, so a
            # connection may also be cut: only the process itself says that it failed.
            time.sleep(0.02)
        else:
            if answer.status == 200:
                return
            break
    raise _not_started(server, settings)


def _not_started(process: Process, settings: Settings) -> ShopError:
    """Return the error for a process that does not come up."""
    return ShopError(
        f"the {process.name} of the shop did not start: {settings.title}.",
        "a package is missing, or is of a version this demo does not know.",
        "make demo builds an environment with all it needs; the log below says more.",
        process.log_tail(),
    )


def _python_path() -> str:
    """Return a module path on which the subprocesses find this package."""
    here = str(Path(__file__).resolve().parent.parent)
    return os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
