"""The calls a request can ask for: `?defer=name:kind:option`, in the order given."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

from postlude import DeferredCall, defer
from reporting import await_gate, now, report, wait_at_gate, watch_exit

BUSY_SECONDS = 0.02  # long enough for several turns of the interpreter lock (5 ms each)


class ProbeExit(BaseException):
    """A BaseException of the user's own."""


FAILURES: dict[str, type[BaseException]] = {
    "exception": ValueError,
    "system-exit": SystemExit,
    "keyboard-interrupt": KeyboardInterrupt,
    "base-exception": ProbeExit,
    "cancelled": asyncio.CancelledError,
}


class Job:
    """One planned call: reports its begin, with the unit's outcome, and its end."""

    def __init__(self, token: str, name: str) -> None:
        self.token = token
        self.name = name
        self.call: DeferredCall | None = None

    def begin(self) -> None:
        """Report the begin, stamped before anything else."""
        at = now()
        report(self.token, "begin", self.name, at, **self._outcome())

    def end(self) -> None:
        """Report the end."""
        report(self.token, "end", self.name)

    def _outcome(self) -> dict[str, object]:
        outcome = self.call.outcome if self.call else None
        if outcome is None:
            return {}
        return {
            "ok": outcome.ok,
            "status": outcome.status,
            "exception": type(outcome.exception).__name__,
            "delivered": outcome.delivered,
            "reason": outcome.reason,
        }


def run_sync(job: Job) -> None:
    """Report only."""
    job.begin()
    job.end()


async def run_async(job: Job) -> None:
    """Report, with a turn of the loop in between."""
    job.begin()
    await asyncio.sleep(0)
    job.end()


def run_busy(job: Job) -> None:
    """Keep the interpreter busy."""
    job.begin()
    until = time.thread_time() + BUSY_SECONDS
    while time.thread_time() < until:
        pass
    job.end()


def run_held(job: Job) -> None:
    """Block this thread until the test opens the gate."""
    job.begin()
    watch_exit()
    if wait_at_gate(job.token, job.name):
        job.end()


async def run_held_async(job: Job) -> None:
    """Wait until the test opens the gate."""
    job.begin()
    watch_exit()
    if await await_gate(job.token, job.name):
        job.end()


def run_nesting(job: Job) -> None:
    """Block as `run_held` does, then defer one more held call."""
    job.begin()
    watch_exit()
    if wait_at_gate(job.token, job.name):
        plan(job.token, [f"{job.name}.nested:held"])
        job.end()


async def run_nesting_async(job: Job) -> None:
    """Wait as `run_held_async` does, then defer one more held call."""
    job.begin()
    watch_exit()
    if await await_gate(job.token, job.name):
        plan(job.token, [f"{job.name}.nested:held-async"])
        job.end()


def _fail_with(error: type[BaseException]) -> Callable[[Job], None]:
    def run_failing(job: Job) -> None:
        job.begin()
        raise error(f"{job.name} of {job.token} fails on purpose")

    return run_failing


def _fail_async_with(error: type[BaseException]) -> Callable[[Job], Any]:
    async def run_failing_async(job: Job) -> None:
        job.begin()
        raise error(f"{job.name} of {job.token} fails on purpose")

    return run_failing_async


KINDS: dict[str, Callable[[Job], Any]] = {
    "sync": run_sync,
    "async": run_async,
    "busy": run_busy,
    "held": run_held,
    "held-async": run_held_async,
    "nesting": run_nesting,
    "nesting-async": run_nesting_async,
    **{f"fail-{name}": _fail_with(error) for name, error in FAILURES.items()},
    **{f"afail-{name}": _fail_async_with(error) for name, error in FAILURES.items()},
}


def plan(token: str, specs: Iterable[str]) -> None:
    """Defer what the specs name: `mail:sync`, `audit:async:always`."""
    for spec in specs:
        name, kind, *options = spec.split(":")
        job = Job(token, name)
        call = job.call = defer(KINDS[kind], job).named(name)
        for option in options:
            getattr(call, option)()
