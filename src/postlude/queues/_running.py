"""Runs jobs: the same unit, isolation and records as in a request."""

from __future__ import annotations

import time
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, cast

from postlude import _codec, _importable, _reporting
from postlude._call import DeferredCall
from postlude._scope import DeferScope
from postlude.exceptions import ArgumentError
from postlude.failures import FailureRecord, _attempt
from postlude.failures._record import host_name
from postlude.queues._handles import Leased, Retrying
from postlude.queues._job import Job
from postlude.queues._queue import Verdict
from postlude.queues._ticket import Ticket

if TYPE_CHECKING:
    from collections.abc import Callable

    from postlude.queues._carrier import Carrier
    from postlude.queues._queue import Lease, Run


class _Unit(DeferScope):
    """The unit of one run of a job (C1): it failed if the job did."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job = job
        for around in _attempt.arounds:
            self.surround(around)

    def describe(self) -> dict[str, object]:
        """Say which request the job came from."""
        return {**self._job.unit, "kind": "job"}

    def count(self) -> float | None:
        """Give nothing: nobody waited for a response."""
        return None

    def failed(self, exc: BaseException) -> None:
        """Judge what the job deferred by its failure."""
        self._exception = exc
        self._outcome = None
        self._ok = False


class _JobCall(DeferredCall):
    """A call that was deferred in another process, or in an earlier attempt."""

    def __init__(self, job: Job, attempt: int, fn: Callable[..., object]) -> None:
        args, kwargs = _codec.decode(job.payload)
        super().__init__(fn, tuple(args), kwargs, Context(), None, 0)
        _attempt.check_signature(fn, args, kwargs)
        self._id = job.id
        self._name = job.name
        self._site = job.site
        self.attempt = attempt
        self._timeout = job.timeout
        self._plain = False

    @property
    def site(self) -> str:
        """The place that deferred the call."""
        return self._site


class _InEngine(Retrying):
    """Behind a job that its engine's own worker runs, and has run again."""

    def __init__(self, carrier: Any, job: Job, unit: _Unit) -> None:
        super().__init__(carrier, job.payload)
        self.retries, self.backoff = job.retries, job.backoff
        self.verdict = Verdict("done")
        self._job = job
        self._unit = unit

    def job(
        self, _call: DeferredCall, /, *, attempt: int = 0, delay: float = 0.0
    ) -> Job:
        """Give the job as it is next."""
        return self._job._replace(attempt=attempt or self._job.attempt, delay=delay)

    def again(
        self, call: DeferredCall, record: FailureRecord, pause: float, /
    ) -> Ticket:
        """Say that the engine must run it again."""
        self.verdict = Verdict("again", pause, record)
        self._unit.failed(cast("BaseException", call.exception))
        return Ticket.answered()

    def failed(self, call: DeferredCall, record: FailureRecord | None, /) -> None:
        """Say that it failed for good."""
        self.verdict = Verdict("failed", 0.0, record)
        self._unit.failed(cast("BaseException", call.exception))

    def leaving(self, _call: DeferredCall, /, *, ran: bool) -> Ticket | None:
        """Leave it to the engine, which still has it."""
        del ran
        return Ticket.answered()


class _UnderLease(Leased):
    """Behind a job that this process took with a lease."""

    def __init__(self, carrier: Carrier, lease: Lease, unit: _Unit) -> None:
        super().__init__(carrier, lease.job.payload)
        self.retries, self.backoff = lease.job.retries, lease.job.backoff
        self.ticket = Ticket.answered(lease.token)
        self._job = lease.job
        self._unit = unit

    def job(
        self, _call: DeferredCall, /, *, attempt: int = 0, delay: float = 0.0
    ) -> Job:
        """Give the job as it is next."""
        return self._job._replace(attempt=attempt or self._job.attempt, delay=delay)

    def refuse(self, record: FailureRecord) -> None:
        """Put a job that was not run among the engine's failed ones."""
        self._fails(self.token or "", record, None)

    def _fails(self, token: str, record: FailureRecord, pause: float | None) -> Ticket:
        self._unit.failed(RuntimeError(record.exception or "it failed"))
        return super()._fails(token, record, pause)


def run(message: Job | str | bytes, runs: int) -> Verdict:
    """Run one job in this thread, async functions on Postlude's own loop.

    What the job defers has run, too, when this returns. A message that is no job, or
    names what may not be run, is refused, recorded and never run.

    Args:
        message: the job or its text.
        runs: how many runs the engine counts before this one.
    """
    try:
        job = message if isinstance(message, Job) else Job.read(message)
    except ArgumentError as exc:
        return Verdict("failed", 0.0, refuse(None, exc, str(message)[:200]))
    unit = _Unit(job)
    handle = _InEngine(None, job, unit)
    attempt = job.attempt + runs + 1
    if attempt > job.retries + 1:
        died = ArgumentError(DIED.format(name=job.name, runs=attempt - 1))
        return Verdict("failed", 0.0, refuse(job, died, attempt=attempt - 1))
    _run(job, attempt, unit, handle)
    if handle.verdict.state == "failed":
        _reporting.flush()  # the engine is told when it is on record
    return handle.verdict


def count(run: Run, message: str | bytes) -> Job | None:
    """Count a run of a message that its broker delivered before, and did not count.

    Gives the job as it must be written anew before the message is acknowledged; None if
    that was its last run, or it is no job: it is on record then.
    """
    try:
        job = Job.read(message)
    except ArgumentError:
        run(message, 0)
        return None
    if job.attempt < job.retries:
        return job._replace(attempt=job.attempt + 1, delay=0.0)
    run(message, 1)
    return None


def run_lease(carrier: Carrier, lease: Lease) -> None:
    """Run a job that was taken with a lease, and tell the engine what became of it."""
    unit = _Unit(lease.job)
    handle = _UnderLease(carrier, lease, unit)
    carrier.line.watch(lease.token)
    try:
        record = _run(lease.job, lease.attempt, unit, handle)
    except BaseException:  # a bug of ours costs this attempt
        carrier.line.unwatch(lease.token)
        raise
    if record is not None:
        handle.refuse(record)


def _run(
    job: Job, attempt: int, unit: _Unit, handle: _InEngine | _UnderLease
) -> FailureRecord | None:
    """Run it; gives a record if it was refused, without being run."""
    try:
        if not job.function:  # no job: its engine says why in place of the name
            raise ArgumentError(job.name)
        fn = cast("Callable[..., object]", _importable.resolve(job.function))
        call = _JobCall(job, attempt, fn)
    except BaseException as exc:  # noqa: BLE001 - its module may raise anything when it is imported
        error = exc if isinstance(exc, ArgumentError) else None
        if error is None:
            error = ArgumentError(UNUSABLE.format(function=job.function, error=exc))
        record = refuse(job, error, attempt=attempt)
        if isinstance(handle, _InEngine):
            handle.verdict = Verdict("failed", 0.0, record)
            return None
        return record
    call._handle = handle
    with unit:
        call._context = copy_context()
        unit.add(call)
    return None


def refuse(
    job: Job | None, exc: Exception, text: str = "", *, attempt: int = 1
) -> FailureRecord:
    """Record a job that was not run, and give the record."""
    now = time.time()
    from uuid import uuid4  # noqa: PLC0415 - rare

    record = FailureRecord(
        id=uuid4().hex if job is None else job.id,
        name="(no job)" if job is None else job.name,
        function="" if job is None else job.function,
        arguments={"message": text} if job is None else {},
        state="failed",
        unit={} if job is None else dict(job.unit),
        site="unknown" if job is None else job.site,
        exception=f"{type(exc).__name__}({str(exc)!r})",
        traceback=None,
        started=None,
        ended=now,
        attempt=attempt,
        payload=None if job is None else job.payload,
        refusal="it is no job of Postlude" if job is None else None,
        host=host_name(),
    )
    _reporting.keep(record, "a job was refused: %s", exc)
    _reporting.flush()
    return record


def exhausted(lease: Lease, seen: str) -> FailureRecord:
    """Record a job whose processes died under it until its attempts were used up."""
    job = lease.job
    exc = ArgumentError(DIED.format(name=job.name, runs=lease.attempt) + f" ({seen})")
    return refuse(job, exc, attempt=lease.attempt)


DIED = (
    "The process that ran the job {name} ended before the job did, in the last of its "
    "{runs} runs. Usually it was killed: out of memory, or by the job itself. Look for "
    "what kills it, then run it again: `postlude failures retry`."
)
UNUSABLE = (
    "The job's function {function} and its arguments cannot be had: {error}. Usually "
    "its module or its parameters have changed since. Deploy what it needs, and run "
    "it again: `postlude failures retry`."
)
