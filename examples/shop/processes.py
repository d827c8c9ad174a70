"""Subprocesses that always end, whatever ends the demo."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from shop.signals import uninterrupted

DRAIN_SECONDS = 2.0
"""SIGTERM lets deferred calls end (those of one order take 1.12 s); then SIGKILL."""


class Process:
    """A running command with its log."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log: Path) -> None:
        """Keep a process that has been started."""
        self.name = name
        self._popen = popen
        self._log = log

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._popen.poll() is None

    def wait(self) -> int:
        """Wait for the process to end by itself; return its exit status."""
        return self._popen.wait()

    def first_line(self) -> str:
        """Wait for the first line the process prints; empty when it ends instead."""
        return (
            "" if self._popen.stdout is None else self._popen.stdout.readline().decode()
        )

    def log_tail(self, lines: int = 20) -> str:
        """Return the end of the process's log, for people."""
        text = self._log.read_text("utf-8", "replace").rstrip()
        last = text.splitlines()[-lines:] or ["(it is empty)"]
        return "\n".join([f"The end of the log of the {self.name}:", "", *last])

    def stop(self) -> None:
        """Ask politely, wait a little, then insist; children included."""
        self._popen.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(DRAIN_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.communicate()


class Processes:
    """Starts processes, and ends all of them when its block is left."""

    def __init__(self, logs: Path) -> None:
        """Keep the directory for the logs."""
        self._logs = logs
        self._started: list[Process] = []
        # A signal between two lines of __exit__ must not leave an orphan behind.
        atexit.register(self.stop)

    def start(
        self,
        name: str,
        command: list[str],
        environment: dict[str, str],
        *,
        talks: bool = False,
        user: str | None = None,
    ) -> Process:
        """Start a command with a log; the output of one that talks is kept to read.

        Only root may start one as another `user`.
        """
        log = self._logs / f"{name}.log"
        with uninterrupted(), log.open("wb") as errors:
            popen = subprocess.Popen(
                command,
                # Never written to: its end tells the process that we are gone.
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if talks else errors,
                stderr=errors,
                env=os.environ | environment,
                # A session of its own: Ctrl-C in the terminal reaches only us.
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )
            process = Process(name, popen, log)
            self._started.append(process)
        return process

    def stop(self) -> None:
        """End all processes, the last one started first."""
        with uninterrupted():
            while self._started:
                self._started[-1].stop()
                self._started.pop()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End all processes."""
        self.stop()
        atexit.unregister(self.stop)
