"""One more run of a recorded call (E2).

Two who retry the same record at once do not run it twice, and a process that is killed
meanwhile loses nothing: the record is first written a second time, under an id of this
attempt, and then taken out. Taking out tells who was first. The copy stays until the
call has ended; a copy whose process died is a record like any other. A store in memory
dies with its process, so there the record is just taken out.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from contextvars import Context, copy_context
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from postlude._call import DeferredCall
from postlude._scope import DeferScope
from postlude.exceptions import ArgumentError, RecordGoneError, StoreError
from postlude.failures._record import FailureRecord, host_name
from postlude.failures._store import Batch, FailureStore

if TYPE_CHECKING:
    from postlude._types import Around

arounds: tuple[Around, ...] = ()
"""What stands around every call that this process runs again."""
_under_way: set[str] = set()
"""Ids of the copies of records that this process runs now."""
_CLAIM = "~"


class RetryResult(NamedTuple):
    """What became of a call that was run again."""

    record: FailureRecord
    """As it was before."""
    state: str
    """`done`, and the record is forgotten; `failed`, `timed_out` or `lost`."""
    failure: FailureRecord | None
    """What replaced the record, if the call failed again."""
    seconds: float
    """From its start until it, and what it deferred itself, had ended."""
    others: tuple[FailureRecord, ...] = ()
    """The new records of failed calls that it deferred."""


def refusal(record: FailureRecord) -> str | None:
    """Say why *record* cannot be run again now; None if it can, as far as it says."""
    if record.refusal is not None:
        return record.refusal
    if record.payload is None:
        return "its arguments were not kept"
    if _runs(record):
        return f"process {record.pid} on {record.host} is running it again now"
    return None


def _runs(record: FailureRecord) -> bool:
    """Tell whether a record is the copy of an attempt whose process still lives.

    Of another machine's processes nothing is known here.
    """
    if _CLAIM not in record.id:
        return False
    if record.host == host_name() and record.pid == os.getpid():
        return record.id in _under_way
    return lives(record.host, record.pid, unknown=False)


def lives(host: str, pid: int, *, unknown: bool) -> bool:
    """Tell whether a process lives; *unknown* of other machines, and on Windows."""
    if host != host_name() or os.name != "posix":  # on Windows, signal 0 is Ctrl-C
        return unknown
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


class _Unit(DeferScope):
    """The unit of one attempt; its failures are for the store that has the record."""

    def __init__(self, record: FailureRecord, outer: DeferScope | None) -> None:
        super().__init__()
        self.failures: list[FailureRecord] = []
        self._record = record
        self._closed = False
        for around in arounds:
            self.surround(around)
        for other in outer._around if outer is not None else ():
            if (again := getattr(other, "for_retry", None)) is not None:
                self.surround(again())

    def describe(self) -> dict[str, object]:
        """Say that this was no request: numbers must not count as the route's."""
        return {"kind": "retry"}

    def count(self) -> float | None:
        """Give nothing: nobody waited for a response."""
        return None

    def keep(self, record: FailureRecord, /) -> bool:
        """Keep a failure for the store, as one of the request that it came from."""
        with self._lock:
            if self._closed:  # a thread that outlived the attempt
                return False
            self.failures.append(record._replace(unit=self._record.unit))
            return True

    def finish(self) -> list[FailureRecord]:
        """Give what was kept; later failures go to the process's own store."""
        with self._lock:
            self._closed = True
        return self.failures


class _Again(DeferredCall):
    """A call that was deferred elsewhere, some time ago."""

    def __init__(
        self,
        record: FailureRecord,
        fn: Callable[..., object],
        args: list[Any],
        kwargs: dict[str, Any],
    ) -> None:
        super().__init__(fn, tuple(args), kwargs, Context(), None, 0)
        self._id = record.id
        self._name = record.name
        self._site = record.site
        self.attempt = record.attempt + 1

    @property
    def site(self) -> str:
        """The place that deferred the call the first time."""
        return self._site


class Attempt:
    """One more run of a recorded call: `claim`, `begin` in its open unit, `settle`."""

    def __init__(
        self, record: FailureRecord, store: FailureStore, outer: DeferScope | None
    ) -> None:
        """Find the function and the arguments; imports the function's module.

        Args:
            record: that of the call.
            store: the one that has it.
            outer: the unit of whoever asks, for its surroundings.

        Raises:
            ArgumentError: the call cannot be run again.
        """
        self._record = record
        self._store = store
        self._call = found(record)
        self._copy = record._replace(
            id=_copy_id(record.id),
            attempt=self._call.attempt,
            host=host_name(),
            pid=os.getpid(),
        )
        self._began = 0.0
        self._seconds = 0.0
        self._failure: FailureRecord | None = None
        self.unit = _Unit(record, outer)

    def within(self, work: Callable[[], object]) -> None:
        """Do what concerns the store within the surroundings of a call.

        Django's store has a connection for each thread, and they close it.
        """
        with ExitStack() as stack:
            for around in self.unit._around:
                stack.enter_context(around.sync())
            work()

    def claim(self) -> None:
        """Take the record out of the store; only one can.

        Raises:
            RecordGoneError: somebody was quicker.
            StoreError: the store cannot be used now.
        """
        record, copy, store = self._record, self._copy, self._store
        if not store.immediate:
            _under_way.add(copy.id)
            store.write(Batch((copy,)))
        if store.forget([record.id]) == 0:
            if not store.immediate:
                store.forget([copy.id])
                _under_way.discard(copy.id)
            raise RecordGoneError(
                f"The failure {record.id} is not in {store!r} any more. Usually "
                "somebody else has run it again or forgotten it just now. Look at "
                "what is there: `postlude failures list`."
            )

    def begin(self) -> None:
        """Let the unit that is open here collect the call."""
        self._began = monotonic()
        self._call._context = copy_context()
        self.unit.add(self._call)

    def settle(self) -> None:
        """Write what became of the call, and let go of the record.

        Raises:
            StoreError: the store cannot be used now. The copy of the record stays.
        """
        self._seconds = monotonic() - self._began
        failures = self._failures()
        try:
            if failures:
                self._store.write(Batch(tuple(failures)))
            if not self._store.immediate:
                self._store.forget([self._copy.id])
        except StoreError as exc:
            raise StoreError(
                f"The call {self._record.name} ended as {self._call.state}, but its "
                f"record could not be brought up to date: {exc}"
            ) from exc
        finally:
            _under_way.discard(self._copy.id)

    def _failures(self) -> list[FailureRecord]:
        record = self._record
        failures = self.unit.finish()
        for i, failure in enumerate(failures):
            if failure.id == record.id:  # the call may have changed its arguments
                self._failure = failures[i] = failure._replace(
                    arguments=record.arguments, payload=record.payload, refusal=None
                )
        if self._failure is None and self._call.state != "done":
            return [record, *failures]  # it never ran: the testing kit took it
        return failures

    def result(self) -> RetryResult:
        """Say what became of the call."""
        return RetryResult(
            record=self._record,
            state=self._call.state,
            failure=self._failure,
            seconds=self._seconds,
            others=tuple(f for f in self.unit.failures if f is not self._failure),
        )


def _copy_id(one: str) -> str:
    """Give an id as long as others, which begins like *one* and is nobody else's."""
    return f"{one[:24]}{_CLAIM}{os.urandom(4).hex()[:7]}"


def found(record: FailureRecord) -> DeferredCall:
    """Make the call of *record*, if it still can be made.

    Raises:
        ArgumentError: it cannot.
    """
    if (reason := refusal(record)) is not None:
        usual = (
            "that was so when it was recorded. Run it by hand, and forget the record"
        )
        if _runs(record):
            usual = "somebody was quicker. Wait for its end, and look again"
        raise ArgumentError(
            f"The call {record.name} cannot be run again: "
            f"{reason.removesuffix('.')}. Usually {usual}."
        )
    from postlude import _codec, _importable  # noqa: PLC0415 - only where one is run again

    try:
        thing = _importable.resolve(record.function)
        args, kwargs = _codec.decode(cast("str", record.payload))
    except ArgumentError:
        raise
    except (Exception, SystemExit) as exc:
        raise ArgumentError(
            f"Looking for {record.function} and its arguments raised "
            f"{type(exc).__name__}: {exc}. Usually its module needs settings that are "
            "not there. Start from the project's folder with its environment, or "
            "import the application first: --app module:attribute."
        ) from exc
    fn = cast("Callable[..., object]", thing)
    try:
        call = _Again(record, fn, args, kwargs)
        check_signature(fn, args, kwargs)
    except TypeError as exc:
        raise ArgumentError(
            f"The arguments of the call {record.name} do not fit {record.function} "
            f"any more: {exc}. Usually its parameters were changed since. Run it by "
            "hand with what `postlude failures show` tells, and forget the record."
        ) from exc
    return call


def check_signature(
    fn: Callable[..., object], args: list[Any], kwargs: dict[str, Any]
) -> None:
    """See that arguments fit a function; raises TypeError if they do not."""
    from inspect import signature  # noqa: PLC0415 - as above

    try:
        expected = signature(fn)
    except ValueError:  # of a class written in C; the call itself will tell
        return
    expected.bind(*args, **kwargs)
