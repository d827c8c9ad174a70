"""Between calls and the engine: what the options of a call ask for (F1, F2, F3)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from time import monotonic
from types import FunctionType
from typing import TYPE_CHECKING, TypeVar

from postlude import _codec, _importable, _names, _reporting, _scope, _settings
from postlude._quick_codec import lasts
from postlude._settings import in_force
from postlude._threads import start_thread
from postlude.exceptions import (
    NOT_IMPORTABLE,
    UNSUPPORTED,
    ArgumentError,
    QueueOptionError,
)
from postlude.queues._handles import Durable, Remote, Retrying
from postlude.queues._job import MOST
from postlude.queues._line import Line
from postlude.queues._writer import Writer, on_loop

if TYPE_CHECKING:
    from postlude._call import DeferredCall
    from postlude._scope import DeferScope
    from postlude._settings import Settings
    from postlude.queues._queue import Queue
    from postlude.queues._ticket import Ticket

_R = TypeVar("_R", bound=Retrying)
DURABLE_RETRIES = 3
"""What `.durable()` and `queue()` allow without `.retry()`: a process that dies while
it runs a call uses up one, so with none a call could be taken over by nobody."""
_MOST_KNOWN = 1_000
_FIXED = frozenset((float, int, tuple))
"""Types of a backoff that is the same as long as it is the same object."""


class Carrier(Writer):
    """Hands calls of this process to one engine."""

    def __init__(self, queue: Queue) -> None:
        super().__init__(queue)
        self.lock = threading.Lock()
        self._worker: threading.Thread | None = None
        self._stop = threading.Event()
        self._stop.set()
        self._known: dict[int, tuple[FunctionType, object, Settings, Retrying]] = {}
        """By the `id` of a function, which is kept here so that it stays its own: the
        backoff that was asked for, the settings that it was under, and what stands
        behind calls like that."""

    # -- at the call site ---------------------------------------------------

    def retry_as_before(
        self, call: DeferredCall, retries: object, backoff: object
    ) -> bool:
        """Stand behind *call* as behind one before it; False: somebody must look at it.

        Of what was found good once, the very same is good again: the function, under
        these settings, and the policy. The arguments are looked at each time (F3).
        """
        known = self._known.get(id(call.fn))
        if known is None or call._handle is not None or call.state != "pending":
            return False
        _fn, asked, settings, handle = known
        if (
            retries is not handle.retries
            or backoff is not asked
            or settings is not _settings._loaded
            or _scope.interceptor is not None
        ):
            return False
        if not lasts(call.args, call.kwargs):
            try:
                payload = self.encoded(call)
            except ArgumentError:  # whoever looks at it refuses it
                return False
            handle = self._retrying(payload, handle.retries, handle.backoff)
        call._handle = handle
        return True

    def retry(
        self,
        call: DeferredCall,
        retries: int,
        backoff: float | tuple[float, ...],
        asked: object,
    ) -> None:
        """Stand behind *call* with further runs; *asked* is the backoff as it came.

        Raises:
            ArgumentError: it cannot be carried.
            QueueOptionError: the engine cannot do that.
        """
        if not self.queue.can.delays and backoff not in {0, ()}:
            raise self._unsupported("retry(backoff=...)", call, "make anything wait")
        handle = self._handle(call)
        if handle is None:
            settings = in_force()
            handle = self._retrying(self._noted(call), retries, backoff)
            if _scope.interceptor is None:  # as in _stand_behind()
                call._handle = handle
            if type(call.fn) is FunctionType and type(asked) in _FIXED:
                if len(self._known) >= _MOST_KNOWN:  # functions made at run time
                    self._known.clear()
                shared = self._retrying(None, retries, backoff)
                self._known[id(call.fn)] = call.fn, asked, settings, shared
        elif type(handle) is Retrying:  # it may stand behind others, too
            handle = self._retrying(handle._payload, retries, backoff)
            call._handle = handle
        else:
            handle.retries, handle.backoff = retries, backoff
        if handle.ticket is not None:
            handle.changed(call)
        if call.state == "failed":
            self._go_on(call, handle)

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
        if call.state == "failed":
            self._go_on(call, handle)
        else:
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

    def _retrying(
        self, payload: str | None, retries: int, backoff: float | tuple[float, ...]
    ) -> Retrying:
        handle = Retrying(self, payload)
        handle.retries, handle.backoff = retries, backoff
        return handle

    def _go_on(self, call: DeferredCall, handle: Retrying) -> None:
        """Hand over a call that ran at once for want of a unit, and failed (A5).

        Raises:
            QueueError: the engine failed; its failure is on record.
        """
        pause = handle.job(call).pause(1)
        if pause is None or _scope.interceptor is not None:
            return
        handle.sealed = True
        ticket = self.line.put(handle.job(call, attempt=1, delay=pause))
        ticket.on_end(partial(_went_on, call, ticket))
        if not on_loop():
            ticket.wait()

    def _stand_behind(self, call: DeferredCall, kind: type[_R]) -> _R:
        before = self._handle(call)
        payload = self._noted(call) if before is None else before._payload
        handle = kind(self, payload)
        if _scope.interceptor is not None:  # in a test that collects
            return handle
        call._handle = handle
        call._plain = False  # it is asked before the call begins, and told of its end
        if kind is Remote:
            call.is_async = False  # what it does here is to wait for the engine
        return handle

    def _noted(self, call: DeferredCall) -> str | None:
        """Write the arguments down as they are now (F3).

        None: they are sure to be the same later, and can be carried.

        Raises:
            ArgumentError: they, or the function, cannot be carried.
        """
        fn = call.fn
        while isinstance(fn, partial):
            fn = fn.func
        if (reason := _importable.refusal(fn)) is not None:
            raise ArgumentError(NOT_IMPORTABLE.format(name=call.name, reason=reason))
        if fn is call.fn and lasts(call.args, call.kwargs):
            return None
        return self.encoded(call)

    def encoded(self, call: DeferredCall) -> str:
        """Give the arguments of a call as text.

        Raises:
            ArgumentError: one of them cannot be carried; never if they last.
        """
        fn, args, kwargs = call.fn, call.args, call.kwargs
        args, kwargs = _names.bound(fn, args, kwargs)
        while isinstance(fn, partial):  # its arguments are bound already
            fn = fn.func
        return _codec.encode(fn, args, kwargs, MOST)

    def _unsupported(
        self, option: str, call: DeferredCall, what: str
    ) -> QueueOptionError:
        text = UNSUPPORTED.format(
            option=option, name=call.name, queue=self.queue.name, what=what
        )
        return QueueOptionError(text)

    # -- what does not end here ---------------------------------------------

    def carry(self, call: DeferredCall, *, ran: bool) -> Ticket | None:
        """Hand over a call that this process does not finish (D6, D7).

        None: it cannot be carried, or it may yet be rolled back.
        """
        handle = self._handle(call)
        if handle is None:
            try:
                handle = Retrying(self, self._noted(call))
            except ArgumentError:
                return None
            handle.retries = call.attempt * ran
        return handle.leaving(call, ran=ran)

    def unload(self, scope: DeferScope) -> None:
        """Hand over the calls of a unit that ended while there were too many (D6)."""
        for call in list(scope._calls):
            if call.refusal() is None and scope._withdraw(call):
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
        self.lock = threading.Lock()
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
        with self.lock:
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


def _went_on(call: DeferredCall, ticket: Ticket) -> None:
    """Settle a call that the queue goes on with: that it failed once is no news."""
    if ticket.error is None:
        call.state = "handed_over"
        _reporting.flush()
        _reporting.failure_store().forget([call.id])


def _unloaded(scope: DeferScope, call: DeferredCall, ticket: Ticket) -> None:
    """Settle a call that was handed over, or take it back."""
    if ticket.error is None:
        call.state = "handed_over"
        _reporting.tell(scope, call)
    else:
        scope.take_back(call)
