"""Servers as subprocesses: started, made ready, signalled, and never left behind."""

import os
import secrets
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from harness.catalogue import TELLS_WHEN_SENT, Server
from harness.observer import Event, Gates, Journal
from harness.wire import Connection, WireError

PROBES = Path(__file__).parents[1] / "probes"
START_TIMEOUT = 30.0  # seconds; a loaded machine imports slowly
STOP_TIMEOUT = 15.0  # seconds; longer than the default grace of a drain (8 s)
POLL = 0.02  # seconds between two tries to connect to a server that is starting
THREADS = 8  # Postlude's own, in every server under test
TRIES = 5  # another process may take the free port before the server does
SLACK = 50_000_000  # nanoseconds, for servers that do not tell when they write
COMPLAINTS = (
    "was never awaited",
    "was never retrieved",
    "Task was destroyed but it is pending",
    "Exception ignored in: <coroutine",
    "Fatal Python error",
)


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers."""

    spec: Server
    port: int
    process: subprocess.Popen[bytes]
    instance: str
    log: Path
    journal: Journal

    def connect(self) -> Connection:
        """Open a connection to it."""
        return Connection(self.port)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server's first process."""
        self.process.send_signal(number)

    def wait_exit(self) -> int:
        """Wait for the end of the first process and return its status."""
        return self.process.wait(STOP_TIMEOUT)

    def keeps_order(self, begin: Event, last_byte_at: int) -> bool:
        """Tell whether a call began after a last byte, as far as this server lets."""
        slack = SLACK if self.spec.limit(TELLS_WHEN_SENT) else 0
        return begin.at + slack >= last_byte_at

    def event(self, what: str) -> Event:
        """Wait for an event that belongs to the process, not to a request."""
        return self.journal.wait(
            f"{what} of {self.spec.name}",
            lambda event: (event.instance, event.what) == (self.instance, what),
        )

    def logged(self) -> list[Event]:
        """Return what Postlude has logged so far."""
        return self.journal.all(
            lambda event: (event.instance, event.what) == (self.instance, "log")
        )

    def complaints(self) -> list[str]:
        """Return what its log says of work that was dropped without a word."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if any(sign in line for sign in COMPLAINTS)]

    def stop(self) -> None:
        """End the server in order, then whatever is left of its processes."""
        try:
            if self.process.poll() is None:
                self.signal(self.spec.stop_signal)
                self.wait_exit()
        finally:
            _kill_group(self.process)


def start(
    spec: Server,
    app: str,
    journal: Journal,
    gates: Gates,
    folder: Path,
    *more: str,
    **environment: str,
) -> Running:
    """Start a server and return it once it answers.

    Raises:
        RuntimeError: It did not come up, with what it wrote to its log.
    """
    for _ in range(TRIES):
        instance = secrets.token_hex(4)
        port = _free_port()
        log = folder / f"{spec.name}-{instance}.log"
        variables = {
            **os.environ,
            "PYTHONPATH": _python_path(),
            "PROBE_EVENTS": str(journal.path),
            "PROBE_GATES": str(gates.path),
            "PROBE_INSTANCE": instance,
            "POSTLUDE_THREADS": str(THREADS),
            **environment,
        }
        process = _launch(spec.arguments(app, port, *more), variables, log)
        running = Running(spec, port, process, instance, log, journal)
        if _becomes_ready(running):
            return running
        _kill_group(process)
        if "in use" not in log.read_text():
            break
    raise RuntimeError(f"{spec.name} did not start:\n{log.read_text()}")


def _launch(
    arguments: list[str], variables: dict[str, str], log: Path
) -> subprocess.Popen[bytes]:
    """Start the server in a process group of its own, which `_kill_group` sweeps."""
    command = [sys.executable, str(PROBES / "launch.py"), *arguments]
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=variables,
            start_new_session=True,
        )


def _becomes_ready(running: Running) -> bool:
    """Try until the server answers; False when it ends or somebody else answers."""
    for _ in range(int(START_TIMEOUT / POLL)):
        try:
            with running.connect() as connection:
                response = connection.get("/ready")
                return response.headers.get("x-instance") == running.instance
        except (ConnectionError, WireError):
            try:
                running.process.wait(POLL)
            except subprocess.TimeoutExpired:
                continue
            return False
    return False


def _python_path() -> str:
    inherited = os.environ.get("PYTHONPATH")
    return os.pathsep.join(filter(None, [str(PROBES), inherited]))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
