"""Processes that always end, whatever ends the benchmarks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType, TracebackType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 3.0
"""Seconds that a process has for SIGTERM before SIGKILL."""


class BenchmarkError(Exception):
    """A measure could not be taken; the text says what happened, why, and the fix."""


class StoppedError(KeyboardInterrupt):
    """A signal ended the benchmarks; a KeyboardInterrupt, so nothing swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.status = 128 + number


def stop_on_signals() -> None:
    """Raise `StoppedError` in the main thread for each signal that means "end"."""
    for number in ENDING:
        # Ignored from the start (nohup, a shell's background job): leave it so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def _stop(number: int, _frame: FrameType | None) -> None:
    raise StoppedError(number)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Processes:
    """Starts processes, and ends all of them when its block is left."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._started: list[subprocess.Popen[bytes]] = []

    def start(
        self,
        name: str,
        command: list[str],
        core: int | None,
        environment: dict[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a command on a core, with its output in a log."""
        place = "-" if core is None else str(core)
        with _uninterrupted(), self.log(name).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.pinned", place, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | (environment or {}),
                # A session of its own: Ctrl-C in the terminal reaches only us.
                start_new_session=True,
            )
            self._started.append(process)
        return process

    def run(
        self,
        name: str,
        command: list[str],
        core: int | None,
        environment: dict[str, str] | None = None,
    ) -> str:
        """Run a command to its end and give its output.

        Raises:
            BenchmarkError: it failed.
        """
        return self.run_all({name: command}, core, environment)[0]

    def run_all(
        self,
        commands: dict[str, list[str]],
        core: int | None,
        environment: dict[str, str] | None = None,
    ) -> list[str]:
        """Run named commands at the same time, to the end of each; give their output.

        Raises:
            BenchmarkError: one failed.
        """
        started = {
            name: self.start(name, command, core, environment)
            for name, command in commands.items()
        }
        for process in started.values():
            process.wait()
        self.stop(*started.values())
        for name, process in started.items():
            if process.returncode:
                raise BenchmarkError(self.failure(name, process))
        return [self.log(name).read_text("utf-8", "replace") for name in started]

    def log(self, name: str) -> Path:
        """Give the file that has what a process said."""
        return self._logs / f"{name.replace(' ', '-').replace('/', '-')}.log"

    def failure(self, name: str, process: subprocess.Popen[bytes]) -> str:
        """Say that a process ended, and what it said last."""
        log = self.log(name)
        said = log.read_text("utf-8", "replace").rstrip().splitlines()[-15:]
        what = (
            f"The process {name!r} ended with status {process.returncode}. Usually its "
            "environment is incomplete. What it said last follows, the whole of it is "
            f"in {log}; repair that, and run again."
        )
        return "\n".join([what, *(said or ["(nothing)"])])

    def stop(self, *processes: subprocess.Popen[bytes]) -> None:
        """End these processes: ask all, wait a little, then insist."""
        with _uninterrupted():
            for process in processes:
                process.terminate()
            for process in processes:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE)
                with suppress(ProcessLookupError):  # children included
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                self._started.remove(process)

    def __enter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop(*self._started)
