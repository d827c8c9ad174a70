"""The one thread of a process that talks to the engine."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from postlude._log import say
from postlude._threads import start_thread
from postlude.queues._ticket import Ticket

if TYPE_CHECKING:
    from postlude.queues._job import Job
    from postlude.queues._queue import Leasing, Queue

_BEATS = 3
"""How often a lease is extended before it would end: two may fail."""
_TOGETHER = 200
"""Most jobs that are written in one transaction."""
_AT_ONCE = 1.0
"""Seconds within which an engine that is there refuses what it cannot take."""


class _Put(Ticket):
    """A job to be written, with those of others in one transaction."""

    def __init__(self, queue: Queue, job: Job, hold: float) -> None:
        super().__init__(lambda: queue.put([job], hold=hold)[0])
        self.job = job
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
        self._done: list[Ticket] = []
        """Jobs, by their tokens, that are done and that the engine does not know of."""
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._beat_at = 0.0
        self._troubled = False
        self._closed = False

    def put(self, job: Job, hold: float = 0.0) -> Ticket:
        """Have *job* written; the result is its token. One put on hold is kept so."""
        return self._add(_Put(self.queue, job, hold))

    def rewrite(self, written: Ticket, job: Job, hold: float) -> Ticket:
        """Have another job written for one that waits for its unit here."""

        def rewrite() -> str:
            before = written.get()
            (token,) = self.queue.put([job], hold=hold)
            self.held[token] = None
            self.unwatch(before)
            self._leasing().finish([before])
            return token

        return self.do(rewrite)

    def do(self, work: Callable[[], Any]) -> Ticket:
        """Have *work* done."""
        return self._add(Ticket(work))

    def finish(self, written: Ticket) -> None:
        """Have a job finished, soon, by the ticket of its token."""
        self._done.append(written)
        self._add(Ticket(self._finish))

    def watch(self, token: str) -> None:
        """Keep the lease of a job that runs here."""
        self.running[token] = None
        self.held.pop(token, None)
        if not self._beat_at:
            self._add(Ticket(_nothing))  # wakes the thread, which then knows of it

    def hold(self, token: str) -> None:
        """Keep a job on hold for a unit of this process that somebody else wrote."""
        self.held[token] = None
        if not self._beat_at:
            self._add(Ticket(_nothing))

    def unwatch(self, token: str) -> None:
        """Keep the lease of a job no longer."""
        self.running.pop(token, None)
        self.held.pop(token, None)

    def flush(self, deadline: float) -> bool:
        """Wait until all that was asked for is done; False if it is not."""
        if self._thread is None:
            return True
        ticket = self.do(self._finish)
        return ticket._over.wait(max(0.0, deadline - monotonic())) and not self._done

    def close(self) -> None:
        """End the thread when it has done what was asked for by now."""
        self.do(self._close)

    def _close(self) -> None:
        self._closed = True
        self._thread = None  # what still comes starts another

    def _add(self, ticket: Ticket) -> Ticket:
        self._items.put(ticket)
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._closed = False
                    try:
                        self._thread = start_thread(self._work, "postlude-queue")
                    except RuntimeError:  # the interpreter is at its end
                        self._do(self._taken(0.0))
        return ticket

    # -- the thread ---------------------------------------------------------

    def _work(self) -> None:
        while not self._closed:
            self._do(self._taken(self._until_beat()))
            if self._beat_at and monotonic() >= self._beat_at:
                self._beat()

    def _until_beat(self) -> float | None:
        if not (self.held or self.running or self._done):
            self._beat_at = 0.0
            return None
        now = monotonic()
        if not self._beat_at:
            self._beat_at = now + self.lease / _BEATS
        return max(0.0, self._beat_at - now)

    def _taken(self, wait: float | None) -> list[Ticket]:
        tickets: list[Ticket] = []
        try:
            tickets.append(self._items.get(timeout=wait))
            while len(tickets) < _TOGETHER:
                tickets.append(self._items.get_nowait())
        except Empty:
            pass
        return tickets

    def _do(self, tickets: list[Ticket]) -> None:
        puts = [t for t in tickets if isinstance(t, _Put) and not t.is_over]
        for hold in dict.fromkeys(put.hold for put in puts):
            self._write([put for put in puts if put.hold == hold], hold)
        for ticket in tickets:
            ticket.do()

    def _write(self, puts: list[_Put], hold: float) -> None:
        began = monotonic()
        whole = Ticket(partial(self.queue.put, [put.job for put in puts], hold=hold))
        whole.do()
        if whole.error is None:
            for put, token in zip(puts, whole.result, strict=True):
                if hold and token:
                    self.held[token] = None
                put.answer(token)
        elif len(puts) == 1 or monotonic() - began > _AT_ONCE:
            for put in puts:
                put.answer(error=whole.error)
        else:  # one of them may be to blame; the others shall not pay for it
            for put in puts:
                self._write([put], hold)

    def _finish(self) -> None:
        """Tell the engine what is done; what it does not hear, it is told again."""
        mine, self._done = self._done, []
        tokens = [ticket.result for ticket in mine if ticket.error is None]
        tokens = [token for token in tokens if token]
        if not tokens:
            return
        try:
            self._leasing().finish(tokens)
        except BaseException as exc:  # noqa: BLE001 - the next beat tries again
            self._done = mine + self._done
            self._trouble(UNFINISHED, exc)
            return
        for token in tokens:
            self.unwatch(token)

    def _beat(self) -> None:
        self._beat_at = monotonic() + self.lease / _BEATS
        self._finish()
        held, running = list(self.held), list(self.running)
        if not (held or running):
            return
        try:
            gone = self._leasing().extend(held, running, self.lease)
        except BaseException as exc:  # noqa: BLE001 - as above
            self._trouble(UNEXTENDED, exc)
            return
        self._troubled = False
        for token in gone:
            if token in self.running:
                say(logging.WARNING, TAKEN, self.lease)
            self.unwatch(token)

    def _trouble(self, text: str, exc: BaseException) -> None:
        if not self._troubled:
            self._troubled = True
            say(logging.WARNING, text, self.queue.name, exc)

    def _leasing(self) -> Leasing:
        return cast("Leasing", self.queue)


def _nothing() -> None:
    pass


UNFINISHED = (
    "the queue %s could not be told which jobs are done (%s); it is told again, and if "
    "that goes on, another process runs them too. This is said once."
)
UNEXTENDED = (
    "the leases of jobs that run here could not be extended on %s (%s); if that goes "
    "on, another process runs them too. This is said once."
)
TAKEN = (
    "a job that runs here has been given to another process: its lease was not "
    "extended within %g s. Usually this process stood still. It may run twice."
)
