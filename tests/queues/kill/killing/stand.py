"""Starts web processes and workers, kills them, and reads what their calls wrote."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from killing.engine import Engine
from postlude.failures import FailureRecord
from postlude.failures.sqlite import SQLiteFailureStore

START = 60.0
"""Seconds that a process may take to start on a busy machine."""


UVICORN = ("-m", "uvicorn", "killing.app:app", "--no-access-log", "--port", "{port}")


class Line(NamedTuple):
    """What a call wrote."""

    word: str
    name: str
    attempt: int
    pid: int
    call: str


class Process:
    """One web server or worker, and all that it started."""

    server: tuple[str, ...] = ()
    """How Python starts it, if it is a web process."""

    def __init__(self, popen: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.popen = popen
        self.port = port
        self.log = log

    def tree(self) -> set[int]:
        """Give the process and its descendants."""
        table = subprocess.run(
            ("ps", "-e", "-o", "pid=,ppid="),  # noqa: S607 - POSIX says what it is
            capture_output=True,
            check=True,
        ).stdout
        pairs = [tuple(map(int, line.split())) for line in table.splitlines()]
        found = {self.popen.pid}
        while more := {pid for pid, parent in pairs if parent in found} - found:
            found |= more
        return found

    def kill(self) -> None:
        """End it at once, with all its children."""
        for pid in self.tree():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.popen.wait()

    def terminate(self) -> int:
        """Ask it to end, and wait until it has."""
        self.popen.terminate()
        return self.popen.wait(START)

    def said(self) -> str:
        """Give what it wrote to its log."""
        return self.log.read_text(errors="replace")


@dataclass
class Stand:
    """One store with its processes."""

    engine: Engine
    folder: Path
    environment: Mapping[str, str]

    def __post_init__(self) -> None:
        self.ledger = self.folder / "ledger"
        self.ledger.touch()
        self.gate = self.folder / "gate"
        self.failures = self.folder / "failures.db"
        self.processes: list[Process] = []
        self._count = 0

    # -- processes ----------------------------------------------------------

    def web(self, server: tuple[str, ...] = UVICORN, **settings: object) -> Process:
        """Start a web process, and wait until it serves."""
        port = free_port()
        command = tuple(word.format(port=port) for word in server)
        process = self._start(command, port, settings)
        process.server = server
        self.until(lambda: self._serves(process), START, process)
        return process

    def worker(self, **settings: object) -> Process:
        """Start what runs jobs: a worker, or another web process."""
        if self.engine.embedded:
            return self.web(**settings)
        return self._start(self.engine.worker, 0, settings)

    def replace(self, process: Process) -> Process:
        """Start another one of the same kind."""
        return self.web(process.server) if process.port else self.worker()

    def _start(
        self, command: tuple[str, ...], port: int, settings: Mapping[str, object]
    ) -> Process:
        self._count += 1
        log = self.folder / f"log-{self._count}"
        own = {f"POSTLUDE_{k.upper()}": str(value) for k, value in settings.items()}
        variables = {
            "PYTHONPATH": str(Path(__file__).parent.parent),
            "KILL_LEDGER": str(self.ledger),
            "KILL_GATE": str(self.gate),
            "KILL_DATABASE": str(self.folder / "orders.db"),
            "POSTLUDE_FAILURES": f"sqlite:///{self.failures}",
            "POSTLUDE_GRACE": "1",
            "POSTLUDE_MODULES": "killing",
        }
        with log.open("wb") as output:
            popen = subprocess.Popen(
                (sys.executable, *command),
                env={**os.environ, **variables, **self.environment, **own},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        process = Process(popen, port, log)
        self.processes.append(process)
        return process

    def _serves(self, process: Process) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", process.port), 1.0):
                return True
        except OSError:
            return False

    def running(self, name: str) -> Process:
        """Wait until a call has begun, and give the process that it is in."""
        self.until(lambda: self.lines("began", name))
        pid = self.lines("began", name)[-1].pid
        return next(each for each in self.processes if pid in each.tree())

    def close(self) -> None:
        """End all processes."""
        for process in self.processes:
            process.kill()

    # -- requests -----------------------------------------------------------

    def post(
        self, process: Process, option: str, function: str, name: str, **numbers: int
    ) -> bool:
        """Ask for a call; True if it was acknowledged, False if nobody answered."""
        query = "&".join(f"{key}={number}" for key, number in numbers.items())
        client = http.client.HTTPConnection("127.0.0.1", process.port, timeout=60)
        try:
            client.request("POST", f"/{option}/{function}/{name}?{query}")
            return client.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            client.close()

    # -- what came of it ----------------------------------------------------

    def lines(self, word: str | None = None, name: str | None = None) -> list[Line]:
        """Give what calls wrote, oldest first."""
        found: list[Line] = []
        for text in self.ledger.read_text().splitlines():
            said, who, attempt, pid, call = text.split()
            if word in (None, said) and name in (None, who):
                found.append(Line(said, who, int(attempt), int(pid), call))
        return found

    def done(self) -> set[str]:
        """Give the names of calls that came to their end."""
        return {line.name for line in self.lines("done")}

    def records(self) -> list[FailureRecord]:
        """Give the failures that were recorded."""
        store = SQLiteFailureStore(self.failures)
        try:
            return list(store.list())
        finally:
            store.close()

    def until(
        self,
        seen: Callable[[], object],
        seconds: float | None = None,
        process: Process | None = None,
    ) -> None:
        """Wait until *seen* is true."""
        deadline = time.monotonic() + (seconds or self.engine.patience)
        while not seen():
            over = time.monotonic() > deadline
            if over or (process is not None and process.popen.poll() is not None):
                raise AssertionError(f"it never came; {self.story()}")
            time.sleep(0.02)

    def story(self) -> str:
        """Tell all that is known, for a failed test."""
        logs = "\n".join(f"-- {p.log.name}\n{p.said()[-3000:]}" for p in self.processes)
        return f"ledger:\n{self.ledger.read_text()[-3000:]}\n{logs}"


@contextmanager
def stand(engine: Engine, folder: Path) -> Iterator[Stand]:
    """Give a stand with a queue of its own, and end it afterwards."""
    with ExitStack() as stack:
        place = folder / "queue"
        place.mkdir()
        environment = stack.enter_context(engine.place(place))
        made = Stand(engine, folder, environment)
        stack.callback(made.close)
        yield made


def free_port() -> int:
    """Give a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
