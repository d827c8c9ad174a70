"""An engine with a queue of its own, and processes that can be killed for real."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from broker_kinds import Kind
from broker_proxy import Proxy

from postlude.failures import FailureRecord
from postlude.failures.sqlite import SQLiteFailureStore

STAGE = Path(__file__).parent
PATIENCE = 150.0
"""Seconds after which a test that waits for an event has failed. Celery on Redis looks
for the jobs of dead workers every 100."""


def until(what: Callable[[], object], patience: float = PATIENCE) -> None:
    """Wait until *what* is true, and fail when it does not become so."""
    deadline = time.monotonic() + patience
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def descendants(pid: int) -> list[int]:
    """Give a process' children and theirs; some of them leave its group."""
    found: list[int] = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = status.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                child = int(status.parent.name)
                found += [child, *descendants(child)]
    return found


class Stage:
    """One engine with a queue of its own, its processes, its ledger, its records."""

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.name = f"postlude-test-{secrets.token_hex(4)}"
        self.address = kind.address(self.name, folder)
        self._proxies: list[Proxy] = []
        self.ledger = folder / "ledger"
        self.store = SQLiteFailureStore(str(folder / "failures.db"))
        self.processes: list[subprocess.Popen[bytes]] = []

    # -- processes ----------------------------------------------------------

    def environment(self, **more: str) -> dict[str, str]:
        """Give the environment of processes that use this queue."""
        path = [str(STAGE), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
            "LEDGER": str(self.ledger),
            "POSTLUDE_QUEUE": self.address,
            "POSTLUDE_FAILURES": f"sqlite:///{self.folder / 'failures.db'}",
            "POSTLUDE_GRACE": "5",
            **more,
        }

    def start(self, *command: str, fds: tuple[int, ...] = (), **more: str):
        """Start a Python program; its log is shown if the test fails."""
        log = self.folder / f"log-{len(self.processes)}"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *command],
                env=self.environment(**more),
                cwd=STAGE,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=fds,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def worker(
        self, program: str = "broker_worker.py", **more: str
    ) -> subprocess.Popen[bytes]:
        """Start a worker."""
        return self.start(str(STAGE / program), **more)

    def web(self, **more: str) -> tuple[subprocess.Popen[bytes], int]:
        """Start a web process; gives its port, too."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            descriptor, port = server.fileno(), server.getsockname()[1]
            process = self.start(
                str(STAGE / "broker_app.py"), str(descriptor), fds=(descriptor,), **more
            )
        return process, port

    @contextlib.contextmanager
    def supervised(self, program: str = "broker_worker.py") -> Iterator[None]:
        """Have a worker, and a new one whenever it dies."""
        over = threading.Event()

        def supervise() -> None:
            while not over.is_set():
                worker = self.worker(program)
                while worker.poll() is None and not over.wait(0.05):
                    pass

        thread = threading.Thread(target=supervise)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def proxied(self) -> tuple[str, Proxy]:
        """Give the queue's address through a proxy, which can be cut."""
        broker = urlsplit(self.kind.broker)
        proxy = Proxy(broker.hostname or "127.0.0.1", broker.port or 0)
        self._proxies.append(proxy)
        return self.kind.address(self.name, self.folder, proxy.port), proxy

    def kill(self, process: subprocess.Popen[bytes]) -> float:
        """End a process and its children as a power cut would; gives when."""
        for one in [process.pid, *descendants(process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        process.wait(PATIENCE)
        return time.time()

    def end(self) -> None:
        """End all processes and take away what is left of the queue."""
        for process in self.processes:
            self.kill(process)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for proxy in self._proxies:
            proxy.cut()
        self.store.close()
        self.kind.clean(self.address)

    # -- what happened ------------------------------------------------------

    def lines(self, what: str) -> list[tuple[str, int, float]]:
        """Give id, attempt and time of each run of *what*."""
        if not self.ledger.exists():
            return []
        rows = [line.split() for line in self.ledger.read_text().splitlines()]
        return [(row[1], int(row[2]), float(row[3])) for row in rows if row[0] == what]

    def wait_for(self, what: str, count: int = 1) -> list[tuple[str, int, float]]:
        """Wait for runs of *what*."""
        until(lambda: len(self.lines(what)) >= count)
        return self.lines(what)

    def records(self) -> list[FailureRecord]:
        """Give what is in the failure store."""
        return list(self.store.list())

    def wait_for_record(self, text: str) -> FailureRecord:
        """Wait for a record with *text* in its exception or name."""

        def found() -> list[FailureRecord]:
            return [
                one for one in self.records() if text in f"{one.exception} {one.name}"
            ]

        until(found)
        return found()[0]

    def logs(self) -> str:
        """Give the ends of the processes' logs."""
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-4000:]}"
            for path in sorted(self.folder.glob("log-*"))
        )


def get(port: int, path: str) -> tuple[int, str]:
    """Ask the web process; gives status and body."""
    deadline = time.monotonic() + PATIENCE
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.sendall(
            f"GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n".encode()
        )
        data = b""
        while part := client.recv(65536):
            data += part
            assert time.monotonic() < deadline
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()
