"""Between calls and the engine: what the options of a call ask for (F1, F2, F3)."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from time import monotonic
from typing import TYPE_CHECKING, TypeVar, cast

from postlude import _codec, _importable, _names, _reporting, _scope
from postlude._call import always
from postlude._settings import in_force
from postlude._threads import start_thread
from postlude.exceptions import (
    NOT_IMPORTABLE,
    STILL_ASKED,
    STILL_OPEN,
    UNSUPPORTED,
    ArgumentError,
    QueueError,
    QueueOptionError,
)
from postlude.instrumentation import _instruments
from postlude.queues._handles import Durable, Remote, Retrying
from postlude.queues._job import MOST
from postlude.queues._joining import Joining
from postlude.queues._line import Line

if TYPE_CHECKING:
    from postlude._call import DeferredCall
    from postlude._scope import DeferScope
    from postlude.queues._queue import Leasing, Queue, Transactional
    from postlude.queues._ticket import Ticket

_R = TypeVar("_R", bound=Retrying)
DURABLE_RETRIES = 3
"""What `.durable()` and `queue()` allow without `.retry()`: a process that dies while
it runs a call uses up one, so with none a call could be taken over by nobody."""


class Carrier:
    """Hands calls of this process to one engine."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.line = Line(queue, in_force().queue_lease)
        self._lock = threading.Lock()
        self._worker: threading.Thread | None = None
        self._stop = threading.Event()
        self._stop.set()

    @property
    def leasing(self) -> Leasing:
        """The engine, which has leases."""
        return cast("Leasing", self.queue)

    # -- at the call site ---------------------------------------------------

    def retry(
        self,
        call: DeferredCall,
        retries: int,
        backoff: float | tuple[float, ...],
    ) -> None:
        """Stand behind *call* with further runs.

        Raises:
            ArgumentError: it cannot be carried.
            QueueOptionError: the engine cannot do that.
        """
        if not self.queue.can.delays and backoff not in {0, ()}:
            raise self._unsupported("retry(backoff=...)", call, "make anything wait")
        handle = self._handle(call) or self._stand_behind(call, Retrying)
        handle.retries = retries
        handle.backoff = backoff
        if handle.ticket is not None:  # late, and so written before this was said
            handle.dropped(call)
            handle.ticket = self.line.put(handle.job(call), self._hold())

    def durable(self, call: DeferredCall) -> None:
        """Have *call* written before the response.

        Raises:
            ArgumentError: it cannot be carried.
            QueueOptionError: the engine cannot do that.
            QueueError: the response has begun, and the engine failed now.
        """
        can = self.queue.can
        if not can.at_least_once:
            raise self._unsupported("durable()", call, "keep a job whose process dies")
        before = self._handle(call)
        if isinstance(before, Remote):
            before.promised = True
        if isinstance(before, (Durable, Remote)):
            return
        handle = self._stand_behind(call, Durable if can.leases else Remote)
        handle.retries = DURABLE_RETRIES
        if before is not None:
            handle.retries, handle.backoff = before.retries, before.backoff
        handle.promised = True
        self.collect(call)

    def send(self, call: DeferredCall, delay: float, key: str | None) -> None:
        """Have *call* run by a worker, never here.

        Raises:
            ArgumentError: it cannot be carried.
            QueueOptionError: the engine cannot do that.
        """
        if delay and not self.queue.can.delays:
            raise self._unsupported("queue(delay=...)", call, "make anything wait")
        if key is not None and not self.queue.can.keys:
            raise self._unsupported("queue(key=...)", call, "tell jobs apart by keys")
        handle = self._stand_behind(call, Remote)
        handle.retries = DURABLE_RETRIES
        handle.delay, handle.key = delay, key

    def _handle(self, call: DeferredCall) -> Retrying | None:
        return cast("Retrying | None", call._handle)

    def _stand_behind(self, call: DeferredCall, kind: type[_R]) -> _R:
        before = self._handle(call)
        payload = self._encoded(call) if before is None else before._payload
        handle = kind(self, payload)
        if (
            _scope.interceptor is not None
        ):  # in a test that collects, nothing is written
            return handle
        call._handle = handle
        call._plain = False
        if kind is Remote:
            call.is_async = False  # what it does here is to wait for the engine
        return handle

    def _encoded(self, call: DeferredCall) -> str:
        """Write the arguments down as they are now (F3)."""
        fn, args, kwargs = call.fn, call.args, call.kwargs
        args, kwargs = _names.bound(fn, args, kwargs)
        while isinstance(fn, partial):  # its arguments are bound already
            fn = fn.func
        if (reason := _importable.refusal(fn)) is not None:
            raise ArgumentError(NOT_IMPORTABLE.format(name=call.name, reason=reason))
        return _codec.encode(fn, args, kwargs, MOST)

    def _unsupported(
        self, option: str, call: DeferredCall, what: str
    ) -> QueueOptionError:
        text = UNSUPPORTED.format(
            option=option, name=call.name, queue=self.queue.name, what=what
        )
        return QueueOptionError(text)

    # -- in the caller's transaction ----------------------------------------

    def join(self, call: DeferredCall) -> None:
        """Have a call written by the transactions around it, where the engine can.

        Raises:
            StatementError: a transaction of the call takes no statements any more.
            QueueError: with Django it is written now, and that failed.
        """
        if self._joining is not None and call._handle is not None:
            self._joining.join(call, self._hold())

    def takes_back(self, call: DeferredCall, written: Ticket) -> bool:
        """Take a call out at the end of the transaction that has written it."""
        return self._joining is not None and self._joining.take_back(call, written)

    def _is_joined(self, call: DeferredCall) -> bool:
        return self._joining is not None and self._joining.will_write(call)

    @cached_property
    def _joining(self) -> Joining | None:
        # When it is needed: of Django's tasks nothing is known before Django is set up.
        if not self.queue.can.transactional:
            return None
        return Joining(cast("Transactional", self.queue), self.line, _on_loop)

    # -- before the response ------------------------------------------------

    def collect(self, call: DeferredCall) -> None:
        """Note a call for the moment before the response; if that is over, write it.

        From a thread, it is written when this returns. On an event loop, which must not
        wait here, it is before the next part of the response.

        Raises:
            QueueError: the engine failed, or a promise cannot be kept.
        """
        scope, handle = call._scope, self._handle(call)
        if scope is None or handle is None:  # it ran at once (A5), or a test has it
            return
        self.join(call)
        if scope._secured or scope._ended:
            if self._comes_later(call) or self._is_joined(call):
                return
            if not handle.claim(self):
                return
            handle.ticket = self.line.put(handle.job(call), self._hold())
            if not _on_loop():
                handle.ticket.wait()
                return
        if not scope._ended:
            if scope._durables is None:
                scope._durables = []
            scope._durables.append(call)

    def write(self, call: DeferredCall) -> None:
        """Write a call of `queue()` that is in no unit.

        Raises:
            QueueError: the engine failed.
        """
        handle = cast("Retrying", call._handle)
        try:
            self.line.put(handle.job(call)).wait()
        except QueueError:
            call._drop("cancelled")
            raise
        call.state = "handed_over"
        if _instruments.instruments:
            _instruments.tell(None, call)

    def securing(self, scope: DeferScope) -> Secured | None:
        """Begin to write what must be written before the response (F2).

        None: there is nothing to write. From here on late ones are written at once.

        Raises:
            QueueError: a promise cannot be kept; nothing was written.
        """
        scope._secured = True
        calls, scope._durables = scope._durables, None
        if not calls or _scope.interceptor is not None:
            return None
        ok = scope._would_succeed()
        wanted = [call for call in calls if self._is_needed_now(call, ok)]
        tickets = [self._written(call) for call in wanted]
        return Secured(tickets) if tickets else None

    def secure(self, scope: DeferScope) -> None:
        """Write what must be written before the response; blocks.

        Raises:
            QueueError: the engine failed, and the request must.
        """
        secured = self.securing(scope)
        if secured is not None:
            secured.ticket.wait()
            secured.settle()

    def _written(self, call: DeferredCall) -> Ticket:
        handle = cast("Retrying", call._handle)
        if handle.ticket is None:
            handle.ticket = self.line.put(handle.job(call), self._hold())
        return handle.ticket

    def _is_needed_now(self, call: DeferredCall, ok: bool) -> bool:
        if call.state != "pending":
            return False
        if call._committed is False and call._after_commit and call._rule is None:
            return False
        if not ok and call._rule is None:
            return False
        if self._is_joined(call) or self._comes_later(call):
            return False
        return cast("Retrying", call._handle).claim(self)

    def _comes_later(self, call: DeferredCall) -> bool:
        """Tell whether nobody knows yet if *call* is to run, and the engine must not.

        Workers of an engine without leases begin what is written. `queue()` is then
        written when it is known; `.durable()` was promised for now.

        Raises:
            QueueError: it was promised.
        """
        if self.queue.can.leases:
            return False
        for gate in tuple(call._gates or ()):
            gate.poll()
        if call.waits_for_commit():
            text = STILL_OPEN
        elif call._rule not in {None, always}:
            text = STILL_ASKED
        else:
            return False
        if getattr(call._handle, "promised", False):
            databases = " and ".join(gate.database for gate in call._gates or ())
            call._drop("cancelled")  # all of it, as at the call site
            raise QueueError(
                text.format(name=call.name, queue=self.queue.name, database=databases)
            )
        return True

    def _hold(self) -> float:
        return self.line.lease if self.queue.can.leases else 0.0

    def release(self, token: str) -> Ticket:
        """Let others have a job that waits for its unit here."""
        return self.line.do(lambda: self.leasing.release([token]))

    # -- what does not end here ---------------------------------------------

    def carry(self, call: DeferredCall, *, ran: bool) -> Ticket | None:
        """Hand over a call that this process does not finish (D6, D7).

        None: it cannot be carried, or it may yet be rolled back.
        """
        handle = self._handle(call)
        if handle is None:
            try:
                handle = Retrying(self, self._encoded(call))
            except ArgumentError:
                return None
            handle.retries = call.attempt * ran
        return handle.leaving(call, ran=ran)

    def unload(self, scope: DeferScope) -> None:
        """Hand over the calls of a unit that ended while there were too many (D6)."""
        for call in list(scope._calls):
            if scope.refusal_of(call) is None and scope._withdraw(call):
                ticket = self.carry(call, ran=False)
                if ticket is None:
                    scope._calls.append(call)
                else:
                    ticket.on_end(partial(_unloaded, scope, call, ticket))

    # -- the process --------------------------------------------------------

    def forked(self) -> None:
        """Begin anew in a forked child: the parent's jobs are the parent's (D8)."""
        self.line = Line(self.queue, self.line.lease)
        self.__dict__.pop("_joining", None)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._stop.set()
        self._worker = None
        forked: Callable[[], None] | None = getattr(self.queue, "forked", None)
        if forked is not None:
            forked()

    def serve(self, work: Callable[[Carrier, threading.Event], None]) -> None:
        """Have threads of this process work on the queue, if the engine allows it."""
        if self._joining is not None:
            self._joining.ask()
        if not (self._stop.is_set() and in_force().queue_threads):
            return
        if not self.queue.can.embedded:
            return
        with self._lock:
            if self._stop.is_set():
                self._stop = stop = threading.Event()
                self._worker = start_thread(lambda: work(self, stop), "postlude-worker")

    def end(self) -> None:
        """Begin no more jobs."""
        self._stop.set()

    def retire(self, deadline: float) -> None:
        """End all that this process does with the engine."""
        self.end()
        self.stop(deadline)
        self.line.close()
        self.queue.close()

    def stop(self, deadline: float) -> None:
        """Wait for the jobs that run, and until the engine knows of all."""
        if self._stop.is_set() and self._worker is not None:
            self._worker.join(max(0.0, deadline - monotonic()))
        self.line.flush(deadline)


class Secured:
    """Calls that are being written before their response."""

    def __init__(self, tickets: Sequence[Ticket]) -> None:
        """Take the tickets of all, in the order that they were asked in."""
        self._tickets = tickets
        self.ticket = tickets[-1]
        """The last to be answered."""

    def settle(self) -> None:
        """Take note of the engine's answers.

        Raises:
            QueueError: the engine failed, and the request must.
        """
        for ticket in self._tickets:
            ticket.get()


def _unloaded(scope: DeferScope, call: DeferredCall, ticket: Ticket) -> None:
    """Settle a call that was handed over, or take it back."""
    if ticket.error is None:
        call.state = "handed_over"
        _reporting.tell(scope, call)
    else:
        scope.take_back(call)


def _on_loop() -> bool:
    """Tell whether an event loop, of asyncio or trio, runs in this thread."""
    asyncio, trio = sys.modules.get("asyncio.events"), sys.modules.get("trio.lowlevel")
    if asyncio is not None and asyncio._get_running_loop() is not None:
        return True
    return trio is not None and bool(trio.in_trio_run())
