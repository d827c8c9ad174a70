"""Writes calls down: in their transactions, before the response, or now (F2)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, cast

from postlude import _scope
from postlude._call import always
from postlude._settings import in_force
from postlude.exceptions import STILL_ASKED, STILL_OPEN, QueueError
from postlude.instrumentation import _instruments
from postlude.queues._joining import Joining
from postlude.queues._line import Line

if TYPE_CHECKING:
    from postlude._call import DeferredCall
    from postlude._scope import DeferScope
    from postlude.queues._handles import Retrying
    from postlude.queues._queue import Leasing, Queue, Transactional
    from postlude.queues._ticket import Ticket


class Writer:
    """Has the engine keep what must survive this process."""

    def __init__(self, queue: Queue) -> None:
        """Write to *queue*."""
        self.queue = queue
        self.line = Line(queue, in_force().queue_lease)

    @property
    def leasing(self) -> Leasing:
        """The engine, which has leases."""
        return cast("Leasing", self.queue)

    def _handle(self, call: DeferredCall) -> Retrying | None:
        return cast("Retrying | None", call._handle)

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
        return Joining(cast("Transactional", self.queue), self.line, on_loop)

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
            ticket = handle.written(call, self._hold())
            if not on_loop():
                ticket.wait()
                return
        if not scope._ended:
            if scope._durables is None:
                scope._durables = []
            scope._durables.append(call)

    def rewrite(self, call: DeferredCall, written: Ticket) -> Ticket:
        """Write a call anew, since an option was set; from a thread, it is then.

        Raises:
            QueueError: the engine failed; what was written before is there.
        """
        job = cast("Retrying", call._handle).job(call)
        ticket = self.line.rewrite(written, job, self._hold())
        if not on_loop():
            ticket.wait()
        return ticket

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
        handles = [cast("Retrying", call._handle) for call in wanted]
        pairs = zip(handles, wanted, strict=True)
        tickets = [handle.written(call, self._hold()) for handle, call in pairs]
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

    def release(self, written: Ticket) -> Ticket:
        """Let others have a job that waits for its unit here."""

        def release() -> None:
            token = written.get()
            self.line.unwatch(token)
            self.leasing.release([token])

        return self.line.do(release)


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


def on_loop() -> bool:
    """Tell whether an event loop, of asyncio or trio, runs in this thread."""
    asyncio, trio = sys.modules.get("asyncio.events"), sys.modules.get("trio.lowlevel")
    if asyncio is not None and asyncio._get_running_loop() is not None:
        return True
    return trio is not None and bool(trio.in_trio_run())
