"""Between calls and the engine: what the options of a call ask for (F1, F2, F3)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from postlude import _codec, _importable, _names
from postlude._call import always
from postlude._outcome import Outcome
from postlude._settings import in_force
from postlude.exceptions import (
    NOT_IMPORTABLE,
    STILL_ASKED,
    STILL_OPEN,
    UNSUPPORTED,
    ArgumentError,
    QueueError,
    QueueOptionError,
)
from postlude.queues._handles import Durable, Remote, Retrying
from postlude.queues._handles import hand_over as _hand_over
from postlude.queues._job import MOST
from postlude.queues._joining import Joining
from postlude.queues._line import Line, Ticket

if TYPE_CHECKING:
    from postlude._call import DeferredCall
    from postlude._scope import DeferScope
    from postlude.queues._queue import Leasing, Queue, Transactional

DURABLE_RETRIES = 3
"""What `.durable()` and `queue()` allow without `.retry()`: a process that dies while
it runs a call uses up one, so with none a call could be taken over by nobody."""


_FINE = Outcome()


class Carrier:
    """Hands calls of this process to one engine."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.line = Line(queue, in_force().queue_lease)
        self._lock = threading.Lock()
        self._serving = False
        self._stop = threading.Event()
        self._workers: list[threading.Thread] = []

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
        self.join(call)
        self._collect(call)

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

    def _stand_behind(self, call: DeferredCall, kind: type[Retrying]) -> Any:
        before = self._handle(call)
        payload = self._encoded(call) if before is None else before._payload
        call._handle = handle = kind(self, payload)
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

    def _collect(self, call: DeferredCall) -> None:
        """Note a call for the moment before the response; if that is over, write it."""
        scope = call._scope
        if scope is None:  # it ran at once for want of a unit (A5)
            return
        if not scope._secured:
            if scope._durables is None:
                scope._durables = []
            scope._durables.append(call)
            return
        if self._comes_later(call):
            return
        handle = cast("Retrying", call._handle)
        if self._is_joined(call) or not handle.claim(self):
            return
        handle.ticket = self.line.put([handle.job(call)], self._hold())
        if not _on_loop():
            handle.token = handle.ticket.wait()[0]
            self._watch(handle)

    def hand_over(self, scope: DeferScope, call: DeferredCall) -> bool:
        """Put a call of `defer()` on the queue that this process cannot finish (D7).

        Blocks. False if it cannot be carried, was not to run, or may yet be rolled
        back.
        """
        if call._gates is not None and call._after_commit:
            return False
        if call.started is None:
            rule, outcome = call._rule, call.outcome
            if not (scope._would_succeed() if rule is None else rule(outcome or _FINE)):
                return False
        try:
            handle = Retrying(self, self._encoded(call))
        except ArgumentError:
            return False
        return _hand_over(self, handle.job(call), call)

    def collect(self, call: DeferredCall) -> None:
        """Note a call of `queue()`, which is in its unit by now."""
        self.join(call)
        self._collect(call)

    # -- in the caller's transaction ----------------------------------------

    def join(self, call: DeferredCall) -> None:
        """Have a call written by the transactions around it, where the engine can.

        Raises:
            StatementError: a transaction of the call takes no statements any more.
            QueueError: with Django it is written now, and that failed.
        """
        if self._joining is not None:
            self._joining.join(call, self._hold())

    def takes_back(self, call: DeferredCall, token: str) -> bool:
        """Take a call out at the end of the transaction that has written it."""
        return self._joining is not None and self._joining.take_back(call, token)

    def _is_joined(self, call: DeferredCall) -> bool:
        return self._joining is not None and self._joining.will_write(call)

    @cached_property
    def _joining(self) -> Joining | None:
        # When it is needed: of Django's tasks nothing is known before Django is set up.
        if not self.queue.can.transactional:
            return None
        return Joining(cast("Transactional", self.queue), self.line, _on_loop)

    # -- before the response ------------------------------------------------

    def securing(self, scope: DeferScope) -> Secured | None:
        """Begin to write what must be written before the response (F2).

        None: there is nothing to write. From here on late ones are written at once.

        Raises:
            QueueError: a promise cannot be kept; nothing was written.
        """
        scope._secured = True
        calls, scope._durables = scope._durables, None
        ok = scope._would_succeed()
        for call in calls or ():
            self._watch(cast("Retrying", call._handle))
        wanted = [call for call in calls or () if self._is_needed_now(call, ok)]
        if not wanted:
            return None
        handles = [cast("Retrying", call._handle) for call in wanted]
        jobs = [handle.job(call) for handle, call in zip(handles, wanted, strict=True)]
        return Secured(self, handles, self.line.put(jobs, self._hold()))

    def secure(self, scope: DeferScope) -> None:
        """Write what must be written before the response; blocks.

        Raises:
            QueueError: the engine failed, and the request must.
        """
        secured = self.securing(scope)
        if secured is not None:
            secured.ticket.wait()
            secured.settle()

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

    def _watch(self, handle: Retrying) -> None:
        if handle.token and self.queue.can.leases:
            self.line.watch(handle.token, runs=False)

    def release(self, token: str) -> None:
        """Let others have a job that waits for its unit here."""
        self.line.do(lambda: self.leasing.release([token]))

    # -- the process --------------------------------------------------------

    def flush(self, deadline: float) -> None:
        """Wait until the engine knows all that it was to be told."""
        self.line.flush(deadline)

    def forked(self) -> None:
        """Begin anew in a forked child: the parent's jobs are the parent's (D8)."""
        self.line = Line(self.queue, self.line.lease)
        self.__dict__.pop("_joining", None)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._serving = False
        self._workers = []
        forked: Callable[[], None] | None = getattr(self.queue, "forked", None)
        if forked is not None:
            forked()

    def serve(self, work: Callable[[Carrier, threading.Event], None]) -> None:
        """Have threads of this process work on the queue, if the engine allows it."""
        if self._joining is not None:
            self._joining.ask()
        count = in_force().queue_threads
        if self._serving or not self.queue.can.embedded or not count:
            return
        from postlude._threads import start_thread  # noqa: PLC0415 - few processes do

        with self._lock:
            if self._serving:
                return
            self._serving = True
            self._workers.append(
                start_thread(lambda: work(self, self._stop), "postlude-worker")
            )

    def end(self) -> None:
        """Begin no more jobs."""
        self._stop.set()

    def stop(self, deadline: float) -> None:
        """Wait for the jobs that run, and until the engine knows of all."""
        for worker in self._workers if self._stop.is_set() else ():
            worker.join(max(0.0, deadline - monotonic()))
        self.flush(deadline)


class Secured:
    """Calls that are being written before their response."""

    def __init__(
        self, carrier: Carrier, handles: Sequence[Retrying], ticket: Ticket
    ) -> None:
        self._carrier = carrier
        self._handles = handles
        self.ticket = ticket

    def settle(self) -> None:
        """Take note of the engine's answer.

        Raises:
            QueueError: the engine failed, and the request must.
        """
        for handle, token in zip(self._handles, self.ticket.get(), strict=True):
            handle.token = token
            self._carrier._watch(handle)


def _on_loop() -> bool:
    import sys  # noqa: PLC0415 - only for late calls

    module = sys.modules.get("asyncio.events")
    return module is not None and module._get_running_loop() is not None
