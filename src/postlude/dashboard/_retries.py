"""Running calls again: what a page asks for, and what became of it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from time import time
from typing import TYPE_CHECKING, NamedTuple

from postlude._log import say
from postlude.exceptions import PostludeError
from postlude.failures._retry import aretry, retry

if TYPE_CHECKING:
    from postlude.failures import FailureRecord, FailureStore

PATIENCE = 2.0
"""Seconds that a page waits for calls that run again; longer ones end without it."""


class Verdict(NamedTuple):
    """What became of one record."""

    record: FailureRecord
    state: str
    """That of the call, or `refused`."""
    text: str
    """What it failed with, or why it was not run."""
    seconds: float = 0.0


class Retries:
    """What this process runs again for this dashboard. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[str, float] = {}

    def since(self, one: str) -> float | None:
        """Give when (Unix seconds) that record was begun, if it has not ended."""
        return self._since.get(one)

    def begin(self, records: Iterable[FailureRecord]) -> list[FailureRecord]:
        """Give those that nobody has begun yet, and take note of them."""
        with self._lock:
            new = [record for record in records if record.id not in self._since]
            self._since.update((record.id, time()) for record in new)
        return new

    def end(self, record: FailureRecord) -> None:
        """Take note that a run has ended."""
        with self._lock:
            self._since.pop(record.id, None)


class Runs(NamedTuple):
    """Records to run again, one after another."""

    records: Sequence[FailureRecord]
    store: FailureStore
    retries: Retries

    def run(self) -> list[Verdict]:
        """Run them, and wait. Not on an event loop."""
        return [self._one(record) for record in self.records]

    def _one(self, record: FailureRecord) -> Verdict:
        try:
            result = retry(record, self.store)
        except BaseException as exc:  # noqa: BLE001 - it is shown; the next ones run too
            return _refused(record, exc)
        finally:
            self.retries.end(record)
        failure = result.failure
        return Verdict(record, result.state, _why(failure), result.seconds)

    async def arun(self) -> list[Verdict]:
        """Run them: async calls on this loop."""
        return [await self._aone(record) for record in self.records]

    async def _aone(self, record: FailureRecord) -> Verdict:
        try:
            result = await aretry(record, self.store)
        except Exception as exc:  # noqa: BLE001 - as above; a cancel is the server's
            return _refused(record, exc)
        finally:
            self.retries.end(record)
        failure = result.failure
        return Verdict(record, result.state, _why(failure), result.seconds)


def _why(failure: FailureRecord | None) -> str:
    return "" if failure is None else failure.exception or ""


def _refused(record: FailureRecord, exc: BaseException) -> Verdict:
    if not isinstance(exc, PostludeError):
        say(40, "running %s again failed", record.name, exc_info=exc)
    return Verdict(record, "refused", str(exc) or type(exc).__name__)
