"""What stands behind a call that a queue backs: at its begin, at its end, at its loss.

Everything that waits for the engine is a `Ticket` of the line, so that threads can
block for it and event loops need not.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from postlude import _names, _reporting, _runner
from postlude._log import say
from postlude.exceptions import QueueError
from postlude.failures import FailureRecord
from postlude.queues._job import Job

if TYPE_CHECKING:
    from typing import Any

    from postlude._call import DeferredCall
    from postlude._scope import DeferScope
    from postlude._types import State
    from postlude.queues._carrier import Carrier
    from postlude.queues._line import Ticket


class Retrying:
    """Behind `.retry()`: the first run is in process, its failure is handed over."""

    retries = 0
    backoff: float | tuple[float, ...] = 0.0
    key: str | None = None
    delay = 0.0
    token: str | None = None
    ticket: Ticket | None = None
    joins = False
    """Whether transactions around the call have been asked to write it."""
    sealed = False
    """Whether it is written, and yet has not left: what it says cannot change."""

    def __init__(self, carrier: Carrier, payload: str) -> None:
        self._carrier = carrier
        self._payload = payload
        self._record: FailureRecord | None = None
        self._pause = 0.0

    def job(
        self, call: DeferredCall, /, *, attempt: int = 0, delay: float = 0.0
    ) -> Job:
        """Give the call as a job, of which *attempt* runs are over."""
        scope = call._scope
        return Job(
            id=call.id,
            name=call.name,
            function=_names.qualified(call.fn),
            payload=self._payload,
            site=call.site,
            unit={} if scope is None else scope.describe(),
            retries=self.retries,
            backoff=self.backoff,
            attempt=attempt,
            timeout=call._timeout,
            key=self.key,
            delay=delay or self.delay,
        )

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
        if pause is not None:
            self._pause = pause
            self._record = FailureRecord.of(call, scope.describe(), "failed")
            try:
                return self.again(call, self._record, pause)
            except QueueError as error:
                self._refused(call, error)
        self._fail(scope, call, exc)
        return None

    def ended(
        self, scope: DeferScope, call: DeferredCall, exc: BaseException, ticket: Ticket
    ) -> None:
        """Settle a call that was to be handed over: the engine has answered."""
        try:
            ticket.get()
        except QueueError as error:
            self._refused(call, error)
            self._fail(scope, call, exc)
            return
        _settle(scope, call, "handed_over")
        text = (
            "deferred call %s failed: %s: %s; run %d of %d begins in %.1f s on the "
            "queue %s (deferred at %s)"
        )
        kind = type(exc).__qualname__
        say(
            logging.WARNING,
            text,
            call.name,
            kind,
            _reporting.text_of(exc),
            call.attempt + 1,
            self.retries + 1,
            self._pause,
            self._carrier.queue.name,
            call.site,
            call=call,
            exc_info=exc,
        )

    def _next_pause(self, call: DeferredCall, /) -> float | None:
        return self.job(call).pause(call.attempt)

    def done(self, _call: DeferredCall, /) -> None:
        """The call has run, or is not wanted any more."""

    def again(
        self, call: DeferredCall, _record: FailureRecord, pause: float, /
    ) -> Ticket | None:
        """Have the call run again after *pause* seconds."""
        job = self.job(call, attempt=call.attempt, delay=pause)
        return self._carrier.line.put([job])

    def failed(self, _call: DeferredCall, _record: FailureRecord | None, /) -> None:
        """The last run failed; the record of it is in the failure store."""

    def _refused(self, call: DeferredCall, error: BaseException) -> None:
        text = "deferred call %s could not be handed to the queue %s: %s"
        say(logging.ERROR, text, call.name, self._carrier.queue.name, error, call=call)

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

    def lost(self, _scope: DeferScope, call: DeferredCall, /, *, ran: bool) -> bool:
        """Hand over a call that this process cannot finish; blocks."""
        attempt = call.attempt if ran else 0
        if ran and attempt > self.retries:
            return False
        return hand_over(self._carrier, self.job(call, attempt=attempt), call)


def hand_over(carrier: Carrier, job: Job, call: DeferredCall) -> bool:
    """Put a job on the queue, blocking; False, and a log line, if that fails."""
    try:
        carrier.line.put([job]).wait()
    except QueueError as error:
        text = "deferred call %s could not be handed to the queue: %s"
        say(logging.ERROR, text, call.name, error, call=call)
        return False
    return True


class Leased(Retrying):
    """A job that runs here under a lease of the engine's."""

    def done(self, _call: DeferredCall, /) -> None:
        """Tell the engine, soon: nobody waits for it."""
        if self.token is not None:
            self._carrier.line.finish(self.token)

    def again(
        self, call: DeferredCall, record: FailureRecord, pause: float, /
    ) -> Ticket | None:
        """Have the engine give the job to whoever comes after *pause* seconds."""
        if self.token is None:
            return super().again(call, record, pause)
        return self._fails(record, pause)

    def failed(self, call: DeferredCall, record: FailureRecord | None, /) -> None:
        """Put the job among the engine's failed ones."""
        if self.token is None:
            return
        if record is None:
            self.done(call)
        else:
            self._fails(record, None)

    def _fails(self, record: FailureRecord, pause: float | None) -> Ticket:
        line, token = self._carrier.line, self.token
        assert token is not None  # noqa: S101 - asked before

        def fail() -> None:
            try:
                self._carrier.leasing.fail(token, record, pause)
            finally:
                line.unwatch(token)

        return line.do(fail)

    def lost(self, scope: DeferScope, call: DeferredCall, /, *, ran: bool) -> bool:
        """Leave it to its lease: another process takes it when that has ended."""
        if self.token is None:
            return super().lost(scope, call, ran=ran)
        self._carrier.line.unwatch(self.token)
        if not ran:
            self._carrier.release(self.token)
        return True


class Durable(Leased):
    """Behind `.durable()`: written before the response, run here under a lease."""

    promised = True

    def beginning(self, call: DeferredCall, /) -> Ticket | None:
        """Write it now if that has not been done, and take it."""
        carrier = self._carrier
        written = self.ticket

        def begin() -> object:
            token = self.token
            if token is None:
                if written is None:
                    job = self.job(call)
                    token = carrier.queue.put([job], hold=carrier.line.lease)[0]
                else:
                    token = written.get()[0]
                self.token = token
            return carrier.leasing.begin(token, carrier.line.lease)

        return carrier.line.do(begin)

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
        self.token = lease.token
        self._carrier.line.watch(lease.token, runs=True)
        return True

    def dropped(self, call: DeferredCall, /) -> None:
        """Take it out again."""
        if self.token and self._carrier.takes_back(call, self.token):
            return
        self.done(call)


class Remote(Retrying):
    """A call that a worker runs: `queue()`, or `.durable()` without leases."""

    promised = False
    """Whether it must be written before the response."""

    def beginning(self, call: DeferredCall, /) -> Ticket | None:
        """Write it if that has not been done, and let the workers have it."""
        carrier = self._carrier
        token = self.token
        if token is None:
            return self.ticket or carrier.line.put([self.job(call)])
        if token and carrier.queue.can.leases:
            carrier.line.unwatch(token)
            return carrier.line.do(lambda: carrier.leasing.release([token]))
        return None

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
        carrier, token = self._carrier, self.token
        if not (token and carrier.queue.can.leases):
            return
        if not carrier.takes_back(call, token):
            carrier.line.finish(token)

    def lost(self, scope: DeferScope, call: DeferredCall, /, *, ran: bool) -> bool:
        """Let the workers have it."""
        if self.token is None:
            return super().lost(scope, call, ran=ran)
        if self.token and self._carrier.queue.can.leases:
            self._carrier.release(self.token)
        return True


def _hand(call: DeferredCall) -> None:
    scope = _runner.running.pop(call, None)
    if scope is not None:
        _settle(scope, call, "handed_over")


def _settle(scope: DeferScope, call: DeferredCall, state: State) -> None:
    call.state = state
    _reporting.tell(scope, call)
