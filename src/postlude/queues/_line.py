"""The one thread of a process that talks to the engine."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from postlude._log import say
from postlude._threads import start_thread
from postlude.exceptions import QueueError

if TYPE_CHECKING:
    from postlude.queues._job import Job
    from postlude.queues._queue import Leasing, Queue

_BEATS = 3
"""How often a lease is extended before it would end: two may fail."""
_TOGETHER = 200
"""Most jobs that are written in one transaction."""
WAIT = 30.0
"""Seconds after which an engine that does not answer has failed."""


class Ticket:
    """Something that the line is asked to do, and what came of it."""

    def __init__(self, work: Callable[[], Any] | None) -> None:
        self.work = work
        self.result: Any = None
        self.error: BaseException | None = None
        self._over = threading.Event()
        self._tell: Callable[[], object] | None = None

    def settle(self) -> None:
        """Wake whoever waits."""
        self._over.set()
        if self._tell is not None:
            self._tell()

    def on_end(self, tell: Callable[[], object]) -> None:
        """Call *tell* (quick, any thread) at the end; at once if that was before."""
        self._tell = tell
        if self._over.is_set():
            tell()

    def get(self) -> Any:
        """Give the result, without waiting for it.

        Raises:
            QueueError: the engine failed.
        """
        if self.error is None:
            return self.result
        if isinstance(self.error, QueueError):
            raise self.error
        raise QueueError(
            f"The queue failed: {type(self.error).__name__}: {self.error}. Usually its "
            "server or its file cannot be reached now. Look at it; what could not be "
            "handed over was refused or recorded."
        ) from self.error

    def wait(self) -> Any:
        """Wait for the result, blocking.

        Raises:
            QueueError: the engine failed, or did not answer.
        """
        if not self._over.wait(WAIT):
            raise QueueError(
                f"The queue did not answer within {WAIT:g} s. Usually its server hangs "
                "or its file is locked. Look at it; the call was not acknowledged."
            )
        return self.get()


class _Put(Ticket):
    """Jobs to be written, with those of others in one transaction."""

    def __init__(self, jobs: Sequence[Job], hold: float) -> None:
        super().__init__(None)
        self.jobs = jobs
        self.hold = hold


class Line:
    """Does what blocks, one thing after another, and keeps leases alive.

    One thread with one connection, because a file has one writer: several would wait
    for each other, and the event loop for none of them. What requests write at the
    same time goes into one transaction.
    """

    def __init__(self, queue: Queue, lease: float) -> None:
        self.queue = queue
        self.lease = lease
        self.held: dict[str, None] = {}
        """Tokens of jobs that wait for the end of their units here."""
        self.running: dict[str, None] = {}
        """Tokens of jobs that run here."""
        self._items: SimpleQueue[Ticket] = SimpleQueue()
        self._done: list[str] = []
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._beat_at = 0.0
        self._complained = False

    def put(self, jobs: Sequence[Job], hold: float = 0.0) -> Ticket:
        """Have *jobs* written; the result is their tokens."""
        return self._add(_Put(jobs, hold))

    def do(self, work: Callable[[], Any]) -> Ticket:
        """Have *work* done."""
        return self._add(Ticket(work))

    def finish(self, token: str) -> None:
        """Have a job finished, soon."""
        self._done.append(token)
        self._add(Ticket(self._finish))

    def watch(self, token: str, *, runs: bool) -> None:
        """Keep the lease of a job from now on."""
        mine, other = (self.running, self.held) if runs else (self.held, self.running)
        mine[token] = None
        other.pop(token, None)
        if not self._beat_at:
            self._add(Ticket(_nothing))  # wakes the thread, which then knows of it

    def unwatch(self, token: str) -> None:
        """Keep the lease of a job no longer."""
        self.running.pop(token, None)
        self.held.pop(token, None)

    def flush(self, deadline: float) -> bool:
        """Wait until all that was asked for is done; False if it is not."""
        if self._thread is None:
            return True
        ticket = self.do(_nothing)
        return ticket._over.wait(max(0.0, deadline - monotonic()))

    def _add(self, ticket: Ticket) -> Ticket:
        self._items.put(ticket)
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = start_thread(self._work, "postlude-queue")
        return ticket

    def _work(self) -> None:
        while True:
            try:
                tickets = [self._items.get(timeout=self._until_beat())]
            except Empty:
                self._beat()
                continue
            while len(tickets) < _TOGETHER:
                try:
                    tickets.append(self._items.get_nowait())
                except Empty:
                    break
            self._write([each for each in tickets if isinstance(each, _Put)])
            for ticket in tickets:
                if ticket.work is not None:
                    _attempt(ticket, ticket.work)
            del tickets

    def _until_beat(self) -> float | None:
        if not (self.held or self.running):
            self._beat_at = 0.0
            return None
        now = monotonic()
        if not self._beat_at:
            self._beat_at = now + self.lease / _BEATS
        return max(0.0, self._beat_at - now)

    def _write(self, puts: list[_Put]) -> None:
        for hold in dict.fromkeys(put.hold for put in puts):
            group = [put for put in puts if put.hold == hold]
            jobs = [job for put in group for job in put.jobs]
            whole = _Put(jobs, hold)
            _attempt(whole, partial(self.queue.put, jobs, hold=hold))
            if whole.error is not None and len(group) > 1:
                # One of them may be to blame; the others shall not pay for it.
                for put in group:
                    _attempt(put, partial(self.queue.put, put.jobs, hold=hold))
                continue
            tokens = iter(whole.result or ())
            for put in group:
                put.error = whole.error
                put.result = [next(tokens, "") for _ in put.jobs]
                put.settle()

    def _finish(self) -> None:
        tokens, self._done = self._done, []
        if tokens:
            try:
                self._leasing().finish(tokens)
            except BaseException as exc:  # noqa: BLE001 - they are done; somebody may do them again
                say(logging.WARNING, UNFINISHED, len(tokens), exc_info=exc)
            for token in tokens:
                self.unwatch(token)

    def _beat(self) -> None:
        self._beat_at = monotonic() + self.lease / _BEATS
        try:
            gone = self._leasing().extend(
                list(self.held), list(self.running), self.lease
            )
        except BaseException as exc:  # noqa: BLE001 - the next beat tries again
            if not self._complained:
                self._complained = True
                say(logging.WARNING, UNEXTENDED, self.queue.name, exc_info=exc)
            return
        self._complained = False
        for token in gone:
            if token in self.running:
                say(logging.WARNING, TAKEN, self.lease)
            self.unwatch(token)

    def _leasing(self) -> Leasing:
        return cast("Leasing", self.queue)


def _attempt(ticket: Ticket, work: Callable[[], Any]) -> None:
    try:
        ticket.result = work()
    except BaseException as exc:  # noqa: BLE001 - whoever waits for it gets it
        ticket.error = exc
    finally:
        ticket.settle()


def _nothing() -> None:
    pass


UNFINISHED = (
    "the queue could not be told that %d jobs are done; they may be run once more"
)
UNEXTENDED = (
    "the leases of jobs that run here could not be extended on %s; if that goes on, "
    "another process runs them too. This is said once."
)
TAKEN = (
    "a job that runs here has been given to another process: its lease was not "
    "extended within %g s. Usually this process stood still. It may run twice."
)
