"""Servers of one worker on one core, and what they use of it."""

from __future__ import annotations

import socket
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from benchmarks import machine, wire
from benchmarks.processes import BenchmarkError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from benchmarks.processes import Processes

START_SECONDS = 30.0
DRAIN_SECONDS = 15.0
UVICORN = (
    *("uvicorn", "--loop", "uvloop", "--http", "httptools"),
    *("--no-access-log", "--log-level", "warning", "--port", "{port}"),
)
GUNICORN = (
    *("gunicorn", "--worker-class", "gthread", "--workers", "1", "--threads", "8"),
    *("--no-control-socket", "--log-level", "warning", "--bind", "127.0.0.1:{port}"),
)


class Server:
    """One application in a server process of its own."""

    def __init__(
        self,
        processes: Processes,
        name: str,
        command: tuple[str, ...],
        app: str,
        environment: dict[str, str],
    ) -> None:
        self.name = name
        self.port = free_port()
        self._processes = processes
        words = [word.format(port=self.port) for word in command]
        whole = [sys.executable, "-m", *words, f"benchmarks.apps.{app}:app"]
        self.process: subprocess.Popen[bytes] = processes.start(
            name, whole, machine.cores()[0], environment
        )

    def wait_until_ready(self) -> None:
        """Wait for the first answer.

        Raises:
            BenchmarkError: the server ended, or never answered.
        """
        wait_until_ready(self._processes, self.name, self.process, self.ran)

    def cpu_seconds(self) -> float:
        """Give the CPU time of the server and its workers so far."""
        return machine.cpu_seconds(self.process.pid)

    def ran(self) -> int:
        """Read the count of calls that have run; reading makes it one more."""
        return int(wire.get(self.port, "/ran"))

    def expect_ran(self, since: int, least: int, most: int) -> None:
        """Wait until all calls have run that were deferred since a reading.

        Raises:
            BenchmarkError: calls are missing, or there are too many.
        """
        reads, ran = 0, 0
        deadline = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < deadline:
            reads += 1
            ran = self.ran() - since - reads
            if ran >= least:
                break
            time.sleep(0.05)
        if not least <= ran <= most:
            raise BenchmarkError(
                f"The server {self.name!r} ran {ran} calls where {least} to {most} "
                "were deferred. Usually calls are lost or run twice, which no "
                "benchmark may hide. Run `make test`."
            )


def wait_until_ready(
    processes: Processes,
    name: str,
    process: subprocess.Popen[bytes],
    ask: Callable[[], object],
) -> None:
    """Ask a process until it answers.

    Raises:
        BenchmarkError: it ended, or never answered.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BenchmarkError(processes.failure(name, process))
        with suppress(OSError):
            ask()
            return
        time.sleep(0.05)
    raise BenchmarkError(
        f"The process {name!r} has not answered for {START_SECONDS:.0f} s. Usually the "
        f"machine is overloaded. See {processes.log(name)}, and run again."
    )


def stop(processes: Processes, servers: list[Server]) -> None:
    """End servers."""
    processes.stop(*[server.process for server in servers])


def free_port() -> int:
    """Find a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port
