"""One deferred call: a function, its arguments, its options and its state."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextvars import Context, ContextVar
from os import urandom
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, cast

from postlude import _names
from postlude._log import logger, say
from postlude._names import CO_COROUTINE, UNUSUAL
from postlude._outcome import Outcome
from postlude._settings import settings
from postlude.exceptions import (
    BAD_BACKOFF,
    BAD_NAME,
    BAD_PREDICATE,
    BAD_RETRIES,
    BAD_TIMEOUT,
    CALL_STARTED,
    NO_QUEUE,
    SEALED,
    CallStartedError,
    NoQueueError,
    QueueOptionError,
)
from postlude.instrumentation import _instruments

if TYPE_CHECKING:
    from postlude._scope import DeferScope
    from postlude._types import Carrier, Handle, Reason, State
    from postlude.transactions._gate import Gate


carrier: Carrier | None = None
"""Hands calls to a queue; installed with the setting `queue`."""
here: ContextVar[DeferredCall | None] = ContextVar("postlude_call", default=None)
"""The call that runs here; see `postlude.current_call`."""
set_here = here.set
"""Bound once: each `here.set` would be a new object."""


class DeferredCall:
    """A function that waits for the end of its unit of work, with its options.

    Made by `defer()`. Options may be chained and set until the call starts (A2).
    """

    # Class attributes are the defaults: a call costs what it sets.
    fn: Callable[..., object]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    is_async: bool
    state: State = "pending"
    """Where the call is in its life; the last one is final (C5)."""
    reason: Reason | None = None
    """Why the call was dropped."""
    exception: BaseException | None = None
    """What the call raised."""
    rolled_back: str | None = None
    """The database whose rollback the call was deferred in, if any (C2)."""
    started: float | None = None
    """When the call began, on the clock of `time.monotonic`, in seconds."""
    _scope: DeferScope | None = None
    _id: str | None = None
    attempt = 1
    """The how manieth run this is; more than 1 when it was run again from a record."""
    _name: str | None = None
    _rule: Callable[[Outcome], object] | None = None
    _timeout: float | None = None
    _thread: int | None = None
    _after_commit = True
    _gates: list[Gate] | None = None
    _committed: bool | None = None
    _observers: _instruments.Around | None = None
    _grouped: object = None
    _handle: Handle | None = None

    def __init__(
        self,
        fn: Callable[..., object],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context,
        code: CodeType | None,
        lasti: int,
    ) -> None:
        """Not for users: `defer()` makes calls."""
        if type(fn) is not FunctionType:
            self.is_async = _names.is_async(fn)
        elif not (flags := fn.__code__.co_flags & UNUSUAL):
            self.is_async = False
        else:
            self.is_async = flags == CO_COROUTINE or _names.is_async(fn)
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self._context = context
        self._plain = True
        self._code = code
        self._lasti = lasti

    # `_plain` says that no option was set, no transaction is open, and no queue wants
    # to be asked: it is looked at in place of all of them.

    def __repr__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        return f"<DeferredCall {self.name} {self.state}{reason}>"

    @property
    def name(self) -> str:
        """The name given with `.named()`, else that of the function."""
        return self._name or _names.qualified(self.fn)

    @property
    def id(self) -> str:
        """An identifier of this very call, unique across processes."""
        if self._id is None:
            self._id = urandom(16).hex()
        return self._id

    @property
    def site(self) -> str:
        """The place that deferred the call: `file:line in function`."""
        return _names.site(self._code, self._lasti)

    @property
    def outcome(self) -> Outcome | None:
        """How the call's unit, and its transactions, ended; None while it is open."""
        outcome = self._scope.outcome if self._scope is not None else None
        if outcome is None or self._committed is None:
            return outcome
        return outcome._replace(committed=self._committed)

    def named(self, name: str) -> DeferredCall:
        """Give the call a name; it replaces an earlier call of that name (C3).

        Raises:
            TypeError: *name* is not a non-empty string.
            QueueOptionError: it is written where it cannot be changed.
            QueueError: it is written, and the engine cannot be reached.
            CallStartedError: the call has started.
        """
        if not isinstance(name, str) or not name:
            kind = type(name).__qualname__
            raise TypeError(BAD_NAME.format(name=name, type=kind))
        if self._open("named"):
            self._name = name
            self._plain = False
            if self._scope is not None:
                self._scope._claim(name, self)
            if self._handle is not None:
                self._handle.changed(self)
        return self

    def always(self) -> DeferredCall:
        """Run the call however the unit ends (C1). Undoes an earlier `.when()`.

        Raises:
            CallStartedError: the call has started.
        """
        if self._open("always"):
            self._rule = always
            self._plain = False
        return self

    def when(self, predicate: Callable[[Outcome], object]) -> DeferredCall:
        """Run the call if *predicate*, given the unit's `Outcome`, is true (C1).

        It is asked once, right before the call would start, in place of the rule of
        success. What it raises is a failure of this call.

        Raises:
            TypeError: *predicate* is not callable.
            CallStartedError: the call has started.
        """
        if not callable(predicate):
            what = _names.described(predicate)
            raise TypeError(BAD_PREDICATE.format(what=what))
        if self._open("when"):
            self._rule = predicate
            self._plain = False
        return self

    def timeout(self, seconds: float) -> DeferredCall:
        """Give the call at most *seconds*: async is cancelled, sync abandoned (D5).

        Raises:
            ValueError: *seconds* is not a positive number.
            QueueOptionError: it is written where it cannot be changed.
            QueueError: it is written, and the engine cannot be reached.
            CallStartedError: the call has started.
        """
        number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if not number or not 0 < seconds < float("inf"):
            raise ValueError(BAD_TIMEOUT.format(seconds=seconds))
        if self._open("timeout"):
            self._timeout = float(seconds)
            self._plain = False
            if self._handle is not None:
                self._handle.changed(self)
        return self

    def after_commit(self, wait: bool = True) -> DeferredCall:
        """Choose whether the call waits for the transactions open around it (B3).

        Raises:
            CallStartedError: the call has started.
        """
        if self._open("after_commit"):
            self._after_commit = wait
            scope = self._scope
            if not wait and scope is not None and scope._aside and self in scope._aside:
                scope.rejoin([self])
        return self

    def waits_for_commit(self) -> bool:
        """Tell whether a transaction that the call was deferred in has not ended."""
        return (
            self._gates is not None and self._committed is None and self._after_commit
        )

    def refusal(self) -> Reason | None:
        """Say why it would not run if it began now; None: it would, or may yet."""
        if self._rule is not None:
            try:
                wanted = self._rule(self.outcome or Outcome())
            except BaseException:  # noqa: BLE001 - it fails as its call does (D2)
                return None
            return None if wanted else "outcome"
        if self._committed is False and self._after_commit:
            return "rollback"
        return None if self._scope is None or self._scope._succeeded() else "outcome"

    def awaited(self) -> str:
        """Name the databases whose transactions the call waits for."""
        return " and ".join(dict.fromkeys(gate.database for gate in self._gates or ()))

    def concurrently(self) -> DeferredCall:
        """Run together with the neighbours that say the same (D1).

        Raises:
            CallStartedError: the call has started.
        """
        return self._group(_neighbours, "concurrently")

    def cancel(self) -> DeferredCall:
        """Take the call back; it ends as `dropped(cancelled)` (C4).

        Raises:
            CallStartedError: the call has started.
        """
        if (
            self._open("cancel")
            and not self._drop("cancelled")
            and self._open("cancel")  # out of the line, and not yet said to run
        ):
            raise CallStartedError(CALL_STARTED.format(option="cancel", call=self))
        return self

    def retry(
        self, retries: int, *, backoff: float | Sequence[float] = 2.0
    ) -> DeferredCall:
        """Have a failed call run again on the queue, *retries* times at most (F1).

        The first run is in process; only a failure of it goes to the queue. The last
        failure is recorded.

        Args:
            retries: further runs after the first.
            backoff: seconds before the first of them, doubled each time up to an hour
                and varied by a quarter; or the seconds before each, the last again.

        Raises:
            NoQueueError: no queue is configured.
            QueueOptionError: the engine cannot do that.
            ArgumentError: the function or an argument cannot be carried.
            ValueError: *retries* or *backoff* is none.
            CallStartedError: the call has started.
        """
        if carrier is None or not carrier.retry_as_before(self, retries, backoff):
            self._retry(retries, backoff)
        return self

    def _retry(self, retries: int, backoff: float | Sequence[float]) -> None:
        # Apart from retry(): what the lambda sees would cost it a cell each, each time.
        if type(retries) is not int or retries < 0:
            raise ValueError(BAD_RETRIES.format(retries=retries))
        pauses = _pauses(backoff)
        if self._open("retry"):
            self._backed("retry", lambda q: q.retry(self, retries, pauses, backoff))

    def durable(self) -> DeferredCall:
        """Have the call survive this process: it runs at least once (F2).

        It is written to the queue before the response, or in the transaction around it
        where the engine can, runs in process after both, and is taken over by another
        process if this one dies. Three retries, unless `.retry()` says otherwise.

        Raises:
            NoQueueError: no queue is configured.
            QueueOptionError: the engine cannot do that.
            QueueError: the response has begun, and the engine cannot be reached.
            ArgumentError: the function or an argument cannot be carried.
            CallStartedError: the call has started.
        """
        if self._open("durable"):
            self._backed("durable", lambda queue: queue.durable(self))
        return self

    def _backed(self, option: str, ask: Callable[[Carrier], None]) -> None:
        """Ask the queue; a call whose promise is refused is taken back, all of it."""
        settings()
        try:
            if carrier is None:
                dot = "" if option == "queue" else "."
                text = NO_QUEUE.format(option=f"{dot}{option}", name=self.name)
                raise NoQueueError(text)
            ask(carrier)
        except BaseException:
            if self.state == "pending":
                self._drop("cancelled")
            raise

    def _open(self, option: str) -> bool:
        """Tell whether an option still has an effect; raise if it comes too late."""
        state, handle = self.state, self._handle
        if state == "dropped":
            return False
        if state != "pending" and self._scope is not None:
            raise CallStartedError(CALL_STARTED.format(option=option, call=self))
        sealed = state == "handed_over" or (handle is not None and handle.sealed)
        if sealed and option not in _UNWRITTEN:
            raise QueueOptionError(SEALED.format(option=option, name=self.name))
        if state == "failed":
            # At once, for want of a unit; the queue can go on with it.
            return not sealed and option != "cancel"
        return state == "pending"

    def _group(self, group: object, option: str) -> DeferredCall:
        if self._open(option):
            self._grouped = group
            self._plain = False
        return self

    def _drop(self, reason: Reason) -> bool:
        if self._scope is not None:
            return self._scope._refuse(self, reason)
        self._plain = False
        self.end_dropped(reason)
        return True

    def end_dropped(self, reason: Reason) -> None:
        """End a call that does not start; whoever took it out of the line does it."""
        self.state = "dropped"
        self.reason = reason
        if self._handle is not None:
            self._handle.dropped(self)
        if _instruments.instruments:
            _instruments.tell(self._scope, self)
        level = logging.WARNING if self.reason == "overflow" else logging.INFO
        if logger.isEnabledFor(level):
            why = str(self.reason)
            if self.reason == "rollback":
                why += f" of {self.rolled_back}"
            text = "deferred call %s dropped: %s (deferred at %s)"
            say(level, text, self.name, why, self.site, call=self)


_UNWRITTEN = ("cancel", "durable")
"""Options that change nothing of a job that is written."""


_FOREVER = float("inf")


def _pauses(backoff: object) -> float | tuple[float, ...]:
    """Understand the pauses between runs."""
    several = isinstance(backoff, (list, tuple))
    values = cast("Sequence[Any]", backoff if several else (backoff,))
    found = tuple(map(seconds, values))
    if not found or None in found:
        raise ValueError(BAD_BACKOFF.format(backoff=backoff))
    return cast("tuple[float, ...]", found) if several else cast("float", found[0])


def seconds(value: Any) -> float | None:
    """Understand a number of seconds, 0 or more; None if it is none."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if number and 0 <= value < _FOREVER else None


def always(_outcome: Outcome) -> bool:
    """Be the rule of `.always()`."""
    return True


_neighbours = object()
