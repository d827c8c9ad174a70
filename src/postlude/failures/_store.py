"""The port for keeping what became of calls."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from postlude.failures._record import FailureRecord


class Tally(NamedTuple):
    """Numbers of one minute that are added up, over calls and over processes.

    | kind | function, route | label | count | total |
    | --- | --- | --- | --- | --- |
    | `ended` | both | `done`, `failed`, ..., `dropped:rollback` | calls | seconds they ran |
    | `duration` | function | upper bound in seconds, `inf` for the last | calls | |
    | `delay` | function | the same | calls | seconds from last byte to start |
    | `busy` | function | `thread` or `loop` | calls | seconds they ran |
    | `unit` | route | | units that deferred | seconds until their last byte |
    | `beat` | | `all`, `threads`, `concurrency`, `max_pending` | times looked, and found at that limit | |
    """  # noqa: E501 - a table's row is one line

    minute: int
    """Unix time in whole minutes."""
    kind: str
    function: str
    route: str
    label: str
    count: int  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleMethodOverride]  # nobody counts the fields of a tally
    total: float


class ProcessRecord(NamedTuple):
    """What one process is doing now."""

    id: str
    host: str
    pid: int
    began: float
    """Unix seconds; with host and pid it tells processes apart."""
    seen: float
    """Unix seconds of this look; who lives is seen once a minute at least."""
    pending: int
    running: tuple[tuple[str, str, float], ...]
    """Name, place and Unix time of the start of each running call, oldest first."""
    limits: dict[str, float]
    """The settings `threads`, `concurrency`, `max_pending`, `grace`, `soft_limit`."""


class Batch(NamedTuple):
    """What has gathered since the last write."""

    failures: tuple[FailureRecord, ...] = ()
    tallies: tuple[Tally, ...] = ()
    process: ProcessRecord | None = None


class FailureStore(Protocol):
    """Keeps failure records and numbers. Any thread; what it raises hurts nobody (E3).

    Several processes may share one: what one writes, all can read.
    """

    immediate: bool
    """`write` never waits for anything, so it needs no thread of its own."""

    def write(self, batch: Batch, /) -> None:
        """Keep all of *batch*, or none of it and raise.

        A record whose id is there already replaces it; tallies of the same minute,
        kind, function, route and label are added up.
        """
        ...

    def list(
        self,
        *,
        limit: int | None = None,
        since: float | None = None,
        name: str | None = None,
        state: str | None = None,
    ) -> Iterable[FailureRecord]:
        """Give records, oldest first; with *limit* the newest so many.

        *since* is Unix seconds, *name* a call's name or its `module:qualname`.
        """
        ...

    def find(self, prefix: str, /) -> Iterable[FailureRecord]:
        """Give the records whose id begins with *prefix*, ten at most."""
        ...

    def count(self) -> int:
        """Give the number of records kept."""
        ...

    def forget(self, ids: Iterable[str], /) -> int:
        """Take records out; gives how many were there."""
        ...

    def prune(self, *, before: float, keep: int | None = None) -> int:
        """Take out what is old; gives how many records.

        That is what ended before *before* (Unix seconds), numbers included, and the
        oldest records beyond *keep*.
        """
        ...

    def tallies(self, since: float, /) -> Iterable[Tally]:
        """Give the numbers of all minutes from *since* (Unix seconds) on."""
        ...

    def processes(self, since: float, /) -> Iterable[ProcessRecord]:
        """Give the processes seen from *since* (Unix seconds) on."""
        ...

    def close(self) -> None:
        """Let go of files and connections; the next use opens them again."""
        ...
