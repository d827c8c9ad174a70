"""What stands behind a call that a queue backs: at its begin, at its end, at its loss.

Everything that waits for the engine is a `Ticket` of the line, so that threads can
block for it and event loops need not.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, cast

from postlude import _names, _reporting, _runner
from postlude._log import say
from postlude.exceptions import QueueError
from postlude.failures import FailureRecord
from postlude.queues._job import Job
from postlude.queues._ticket import Ticket

if TYPE_CHECKING:
    from typing import Any

    from postlude._call import DeferredCall
    from postlude._scope import DeferScope
    from postlude._types import State
    from postlude.queues._carrier import Carrier


class Retrying:
    """Behind `.retry()`: the first run is in process, its failure is handed over.

    One without a payload may stand behind many calls: it keeps nothing of any of them.
    """

    asks = False
    retries = 0
    backoff: float | tuple[float, ...] = 0.0
    key: str | None = None
    delay = 0.0
    promised = False
    """Whether it must be written before the response."""
    joins = False
    """Whether transactions around the call have been asked to write it."""
    sealed = False
    """Whether it is written, and yet has not left: what it says cannot change."""
    ticket: Ticket | None = None
    """What the engine was asked to write; its result is the engine's token."""

    def __init__(self, carrier: Carrier, payload: str | None) -> None:
        self._carrier = carrier
        self._payload = payload
        """The arguments; None if they cannot change, and are read when needed."""
        # On the object, where CPython finds it at once: each call asks for it twice.
        self.asks = self.asks

    @property
    def token(self) -> str | None:
        """The engine's name for the job; None if it is not known to be written."""
        if self.ticket is None:
            return None
        token: str | None = self.ticket.result
        return token

    def job(
        self, call: DeferredCall, /, *, attempt: int = 0, delay: float = 0.0
    ) -> Job:
        """Give the call as a job, of which *attempt* runs are over."""
        scope = call._scope
        return Job(
            id=call.id,
            name=call.name,
            function=_names.qualified(call.fn),
            payload=self._payload or self._carrier.encoded(call),
            site=call.site,
            unit={} if scope is None else scope.describe(),
            retries=self.retries,
            backoff=self.backoff,
            attempt=attempt,
            timeout=call._timeout,
            key=self.key,
            delay=delay or self.delay,
        )

    def _is_written(self) -> bool:
        return self.ticket is not None and self.ticket.error is None

    def written(self, call: DeferredCall, /, hold: float = 0.0) -> Ticket:
        """Have it written, once, whoever comes first: its place or its turn."""
        with self._carrier.lock:
            if self.ticket is None or self.ticket.error is not None:
                self.ticket = self._carrier.line.put(self.job(call), hold)
                # Workers have it, or its key is taken: neither can be undone.
                leases = self._carrier.queue.can.leases
                self.sealed = self.key is not None or not leases
            return self.ticket

    def changed(self, call: DeferredCall, /) -> None:
        """Write it anew, if it is written: an option was set."""
        before = self.ticket
        if before is None:
            return
        self.ticket = after = self._carrier.rewrite(call, before)

        def keep() -> None:
            if after.error is not None and self.ticket is after:
                self.ticket = before

        after.on_end(keep)

    def claim(self, writer: object) -> bool:
        """Become who writes the job; False if another one is. Any thread."""
        return self.__dict__.setdefault("writer", writer) is writer

    # -- the begin ----------------------------------------------------------

    def beginning(self, _call: DeferredCall, /) -> Ticket | None:
        """Ask the engine for the call; None: nothing needs to be waited for."""
        return None

    def begun(self, _call: DeferredCall, _ticket: Ticket | None, /) -> bool:
        """Tell whether the call runs here; if not, it has been settled."""
        return True

    # -- the end ------------------------------------------------------------

    def ending(
        self, scope: DeferScope, call: DeferredCall, exc: BaseException | None
    ) -> Ticket | None:
        """Begin to settle a call that ran; None: it is settled."""
        if exc is None:
            self.done(call)
            _settle(scope, call, "done")
            return None
        call.exception = exc
        pause = self._next_pause(call)
        if pause is None:
            self._fail(scope, call, exc)
            return None
        record = FailureRecord.of(call, scope.describe(), "failed")
        ticket = self.again(call, record, pause)
        ticket.pause = pause
        return ticket

    def ended(
        self, scope: DeferScope, call: DeferredCall, exc: BaseException, ticket: Ticket
    ) -> None:
        """Settle a call that was to be handed over: the engine has answered."""
        try:
            ticket.get()
        except QueueError as error:
            text = "deferred call %s could not be handed to the queue %s: %s"
            queue = self._carrier.queue.name
            say(logging.ERROR, text, call.name, queue, error, call=call)
            if not self._comes_back():
                self._fail(scope, call, exc)
                return
        _settle(scope, call, "handed_over")
        self._say_again(call, exc, ticket.pause)

    def _say_again(self, call: DeferredCall, exc: BaseException, pause: float) -> None:
        text = (
            "deferred call %s failed: %s: %s; run %d of %d begins on the queue, %.1f s "
            "from now (deferred at %s)"
        )
        what = type(exc).__qualname__, _reporting.text_of(exc)
        runs = call.attempt + 1, self.retries + 1
        args = (call.name, *what, *runs, pause, call.site)
        say(logging.WARNING, text, *args, call=call, exc_info=exc)

    def _next_pause(self, call: DeferredCall, /) -> float | None:
        return self.job(call).pause(call.attempt)

    def done(self, _call: DeferredCall, /) -> None:
        """The call has run, or is not wanted any more."""

    def again(
        self, call: DeferredCall, _record: FailureRecord, pause: float, /
    ) -> Ticket:
        """Have the call run again after *pause* seconds."""
        return self._carrier.line.put(self.job(call, attempt=call.attempt, delay=pause))

    def _comes_back(self) -> bool:
        """Tell whether another run comes although the engine was not told."""
        return False

    def failed(self, _call: DeferredCall, _record: FailureRecord | None, /) -> None:
        """The last run failed; the record of it is in the failure store."""

    def _fail(self, scope: DeferScope, call: DeferredCall, exc: BaseException) -> None:
        call.state = "failed"
        self.failed(call, _reporting.failed(scope, call, exc))

    # -- other ends ---------------------------------------------------------

    def timed_out(self, scope: DeferScope, call: DeferredCall) -> bool:
        """See to a call whose time is over; True: it is handed over."""
        exc = TimeoutError(f"it took more than {call._timeout:g} s")
        call.exception = exc
        if self._next_pause(call) is None:
            return False
        ticket = self.ending(scope, call, exc)
        if ticket is not None:
            ticket.on_end(lambda: self.ended(scope, call, exc, ticket))
        return True

    def dropped(self, _call: DeferredCall, /) -> None:
        """See to a call that does not start."""

    def leaving(self, call: DeferredCall, /, *, ran: bool) -> Ticket | None:
        """Hand over a call that this process does not finish; None: it cannot be."""
        if call.waits_for_commit() or (ran and call.attempt > self.retries):
            self.dropped(call)
            return None
        return self._carrier.line.put(self.job(call, attempt=call.attempt * ran))


class Leased(Retrying):
    """A job that runs here under a lease of the engine's."""

    asks = True

    def done(self, _call: DeferredCall, /) -> None:
        """Tell the engine, soon: nobody waits for it."""
        if self.ticket is not None:
            self._carrier.line.finish(self.ticket)

    def again(
        self, call: DeferredCall, record: FailureRecord, pause: float, /
    ) -> Ticket:
        """Have the engine give the job to whoever comes after *pause* seconds."""
        if self.token is None:
            return super().again(call, record, pause)
        return self._fails(self.token, record, pause)

    def _comes_back(self) -> bool:
        return self.token is not None  # when its lease has ended

    def failed(self, call: DeferredCall, record: FailureRecord | None, /) -> None:
        """Put the job among the engine's failed ones."""
        if self.token is None:
            return
        if record is None:  # the store could not make one; the engine has the job
            record = FailureRecord.of(call, {}, "failed")
        self._fails(self.token, record, None)

    def _fails(self, token: str, record: FailureRecord, pause: float | None) -> Ticket:
        line, leasing = self._carrier.line, self._carrier.leasing

        def fail() -> None:
            try:
                leasing.fail(token, record, pause)
            finally:
                line.unwatch(token)

        return line.do(fail)

    def leaving(self, call: DeferredCall, /, *, ran: bool) -> Ticket | None:
        """Leave it to its lease: another process takes it when that has ended."""
        if not self._is_written() or call.waits_for_commit():
            return super().leaving(call, ran=ran)
        if not ran:
            return self._carrier.release(cast("Ticket", self.ticket))
        self._carrier.line.unwatch(self.token or "")
        return self.ticket


class Durable(Leased):
    """Behind `.durable()`: written before the response, run here under a lease."""

    def beginning(self, call: DeferredCall, /) -> Ticket | None:
        """Take it; write it now if that has not been done."""
        line, leasing = self._carrier.line, self._carrier.leasing
        written = self.written(call, line.lease)
        return line.do(lambda: leasing.begin(written.get(), line.lease))

    def begun(self, call: DeferredCall, ticket: Ticket | None, /) -> bool:
        """Run it, unless another process has it; also if the engine is gone now."""
        assert ticket is not None  # noqa: S101 - given by beginning()
        try:
            lease: Any = ticket.get()
        except QueueError as error:
            text = "deferred call %s runs without its lease: %s"
            say(logging.ERROR, text, call.name, error, call=call)
            return True
        if lease is None:
            _hand(call)
            return False
        call.attempt = lease.attempt
        self.ticket = Ticket.answered(lease.token)
        self._carrier.line.watch(lease.token)
        return True

    def dropped(self, call: DeferredCall, /) -> None:
        """Take it out again."""
        if self.ticket is None or not self._carrier.takes_back(call, self.ticket):
            self.done(call)


class Remote(Retrying):
    """A call that a worker runs: `queue()`, or `.durable()` without leases."""

    asks = True

    def beginning(self, call: DeferredCall, /) -> Ticket | None:
        """Write it if that has not been done, and let the workers have it."""
        is_held = self._is_written() and self._carrier.queue.can.leases
        ticket = self.written(call)
        return self._carrier.release(ticket) if is_held else ticket

    def begun(self, call: DeferredCall, ticket: Ticket | None, /) -> bool:
        """Settle it: it is the queue's now."""
        try:
            if ticket is not None:
                ticket.get()
        except QueueError as error:
            call.exception = error
            return True  # and so it fails with that, and is recorded
        _hand(call)
        return False

    def _next_pause(self, _call: DeferredCall, /) -> float | None:
        return None  # it never ran here: what failed is the queue

    def dropped(self, call: DeferredCall, /) -> None:
        """Take it out again, where that can be done."""
        carrier = self._carrier
        if self.ticket is None or not carrier.queue.can.leases:
            return
        if not carrier.takes_back(call, self.ticket):
            carrier.line.finish(self.ticket)

    def leaving(self, call: DeferredCall, /, *, ran: bool) -> Ticket | None:
        """Let the workers have it."""
        if not self._is_written() or call.waits_for_commit():
            return super().leaving(call, ran=ran)
        return self.beginning(call)


def _hand(call: DeferredCall) -> None:
    scope = _runner.running.pop(call, None)
    if scope is not None:
        _settle(scope, call, "handed_over")


def _settle(scope: DeferScope, call: DeferredCall, state: State) -> None:
    call.state = state
    _reporting.tell(scope, call)
