"""The port to job engines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from postlude.failures._record import FailureRecord
    from postlude.queues._job import Job


class Capabilities(NamedTuple):
    """What an engine guarantees; what it cannot is refused at the call site (F4)."""

    at_least_once: bool
    """A job survives the death of whoever runs it. Without, `.durable()` is refused."""
    leases: bool
    """A durable call runs in its own process first, right after the response, and the
    engine gives it to another one if that process dies. Without, a durable call is run
    by a worker, and may begin before the response's last byte."""
    transactional: bool
    """A durable call can be written in the caller's own database transaction."""
    delays: bool
    """A job can be told to wait."""
    policy_per_call: bool
    """The engine itself keeps retries and pauses of each job; otherwise they travel in
    the job and are kept by Postlude's generic job."""
    keeps_failures: bool
    """The engine has a list of failed jobs; otherwise the failure store has it."""
    keys: bool
    """A second job of the same key is not taken while the first is known."""
    embedded: bool
    """Threads of the web process can be its workers."""
    recovery: float
    """Seconds until a job whose process died begins again, at the worst, with the
    settings that the documentation gives."""


class Lease(NamedTuple):
    """A job that this process, and nobody else, may run now."""

    job: Job
    token: str
    """The engine's name for this run."""
    attempt: int
    """The how manieth run it is, from 1."""


Execute = Callable[[str, Mapping[str, object]], Sequence[Sequence[Any]]]
"""Runs SQL with `:name` parameters in somebody's transaction, and gives its rows."""
Run = Callable[["Job | str | bytes", int], "Verdict"]
"""Runs one job: the job or its text, and how many runs the engine counts before it."""


class Verdict(NamedTuple):
    """What became of one run of a job."""

    state: str
    """`done`; `failed` for good, or not run at all; `again`."""
    pause: float = 0.0
    """For `again`: seconds until the next run."""
    record: FailureRecord | None = None
    """What failed. Of the last failure it is in the failure store already."""


class Queue(Protocol):
    """Carries jobs to workers. Any thread, but for what says otherwise.

    Everything here may block, so nothing calls it on an event loop.
    """

    name: str
    """What messages call the engine."""
    can: Capabilities

    def put(self, jobs: Sequence[Job], /, *, hold: float = 0.0) -> list[str]:
        """Write jobs, all or none; when it returns they survive this process.

        With *hold* (seconds, for engines with leases) nobody but `begin` gets them
        before that has passed. Gives the engine's token of each.

        Raises:
            QueueError: they could not be written.
        """
        ...

    def work(self, run: Run, stop: Event, threads: int, /) -> None:
        """Be a worker until *stop* is set, and let what runs then come to its end.

        Raises:
            QueueError: the engine cannot be reached, or cannot be worked from here.
        """
        ...

    def failed(self) -> Iterable[FailureRecord]:
        """Give the engine's own failed jobs, oldest first."""
        ...

    def retry(self, ids: Sequence[str], /) -> int:
        """Put failed jobs back, for one more run; gives how many were there."""
        ...

    def forget(self, ids: Sequence[str], /) -> int:
        """Take failed jobs out; gives how many were there."""
        ...

    def close(self) -> None:
        """Let go of files and connections; the next use opens them again."""
        ...


class Unlisted:
    """An engine that keeps no list of failed jobs: the failure store has them."""

    def failed(self) -> Iterable[FailureRecord]:
        """Give nothing."""
        return ()

    def retry(self, ids: Sequence[str], /) -> int:
        """Put nothing back: that is done from the failure store."""
        del ids
        return 0

    def forget(self, ids: Sequence[str], /) -> int:
        """Take nothing out."""
        del ids
        return 0


class Leasing(Queue, Protocol):
    """What an engine with `can.leases` does besides."""

    def begin(self, token: str, lease: float, /) -> Lease | None:
        """Take a job that was put on hold, and count the attempt; None: it is gone.

        *lease* is the seconds until others may take it, unless it is extended.
        """
        ...

    def claim(self, most: int, lease: float, /) -> list[Lease]:
        """Take jobs that are due, those of dead processes included; may give none."""
        ...

    def exhausted(self) -> list[tuple[Lease, str]]:
        """Give jobs that ran out of attempts with their processes, and what was seen.

        Each is given once, to one process.
        """
        ...

    def extend(
        self, held: Sequence[str], running: Sequence[str], lease: float, /
    ) -> list[str]:
        """Keep jobs for *lease* more seconds; gives the tokens of what is gone."""
        ...

    def release(self, tokens: Sequence[str], /) -> None:
        """Let others have jobs that were put on hold, now."""
        ...

    def finish(self, tokens: Sequence[str], /) -> None:
        """The jobs are done, or not wanted any more; what is gone is none of it."""
        ...

    def fail(self, token: str, record: FailureRecord, pause: float | None, /) -> None:
        """The run failed: have another after *pause* seconds; None: it was the last."""
        ...

    def waiting(self) -> list[tuple[str, Job]]:
        """Give what nobody has begun, with its token; `delay` is what is left of it."""
        ...


class Transactional(Queue, Protocol):
    """What an engine with `can.transactional` does besides."""

    def identity(self) -> object:
        """Say which database this is: as `Execute.identity()`, or as its `.database`.

        Raises:
            QueueError: it cannot be asked.
        """
        ...

    def is_at(self, database: str, /) -> bool:
        """Tell whether a database of that name in records may be this; asks nobody."""
        ...

    def write(self, execute: Execute, job: Job, /, *, hold: float) -> str:
        """Write a job in the transaction of *execute*; gives its token.

        May run on an event loop, so it waits for nobody but *execute*.
        """
        ...
