"""DeferScope: what collects the calls of one unit of work, and hands them out."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from threading import Event, Lock
from time import monotonic
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from postlude._decorator import each_call_in
from postlude._outcome import Outcome
from postlude.exceptions import SCOPE_ENDED, ScopeEndedError
from postlude.instrumentation import _instruments

if TYPE_CHECKING:
    from types import TracebackType

    from postlude._call import DeferredCall
    from postlude._types import Around, BlockRunner, Interceptor, Reason, Runner
    from postlude.failures._record import FailureRecord
    from postlude.transactions._gate import Gate

_F = TypeVar("_F", bound=Callable[..., Any])

current: ContextVar[DeferScope | None] = ContextVar("postlude_scope", default=None)
"""The unit that collects here. Set once per unit, by its outermost adapter or block."""
KEY = "postlude.scope"
"""Where the unit stands in the ASGI scope or WSGI environ, for whoever is inside the
same request (A8)."""
_LATE = 0.05
"""Seconds before a late call starts: its options are still being chained (A2)."""
_ABSENT = object()
surroundings: tuple[Around, ...] = ()
"""What stands around every call of every unit that is made from now on (D4)."""
interceptor: Interceptor | None = None
block_runner: BlockRunner  # installed by postlude._background, which has a runner
held: dict[DeferScope, list[int]] = {}
"""The units whose calls are run in this process now, and how many calls each brought.
Whoever puts a unit in holds it: he alone hands out its calls."""
waiting: dict[DeferredCall, float] = {}
"""The calls whose unit is over and whose transaction is not, and since when; on the
clock of `time.monotonic`. postlude._threads looks after them."""
forks = 0
"""How often this process was forked off. A unit that is older than that is its
parent's, and so are its calls (D8)."""
look_after_waiting: Callable[[], object]  # installed by postlude._threads


def reset(token: Token[DeferScope | None]) -> None:
    """Undo a `current.set()`, also where enter and exit ran in different contexts."""
    try:
        current.reset(token)
    except ValueError:  # a generator's halves may run in two contexts; both are over
        pass


class DeferScope:
    """Collects the deferred calls of one unit of work.

    As a block, `with DeferScope():` or `async with DeferScope():`, or as a decorator,
    `@DeferScope()`, it is a unit of its own: its calls run when the block is left and
    have run before the next line (B6). A block inside a request makes a smaller unit.
    Frameworks' adapters make one per request.

    While the unit is open, calls are collected. After its end they are handed out by
    `take()` to one holder at a time: whoever was told to run the unit holds it until
    `take()` gives None. A call that comes later is judged by the same outcome and wakes
    the runner again (A6, A7).

    A pending call stands in the line (or aside, for a transaction). Whoever gets it out
    of there decides what becomes of it: it starts, is dropped, or is lost. Lists and
    dicts give a thing to one thread only, so none of this needs a lock.
    """

    # Class attributes are the state of a unit in which nothing happened yet. What every
    # unit with calls is asked for is set on the object all the same, in `__init__` and
    # LoopRunner.end(): CPython finds it there at once, and searches for the class's.
    _ok: bool | None = None
    _names: dict[str, DeferredCall] | None = None
    _ended = False
    _entered = False
    _outstanding = 0
    _outcome: Outcome | None = None
    _exception: BaseException | None
    _token: Token[DeferScope | None] | None = None
    _around: tuple[Around, ...]
    _gates: list[Gate] | None
    _aside: dict[DeferredCall, None] | None = None
    _outer: DeferScope | None = None
    _durables: list[DeferredCall] | None = None
    _secured = False
    _finished: list[Callable[[], object]] | None = None
    runner: Runner | None = None
    wake: Event | None = None
    route: str | None = None
    """Set by a framework that knows which of its routes the request took."""
    stay = False
    on_loop = False
    _counted = False
    _began = 0.0
    head_sent: float | None = None
    last_byte: float | None = None
    """When the response's head and its last byte were handed over, or a block ended, on
    the clock of `time.monotonic`; only noted where somebody watches."""

    # One lock for all units, for what is rare: names, groups and transactions. It is
    # held for a few instructions at a time and never while code of others runs.
    _lock = Lock()

    def __init__(self) -> None:
        """Make an open scope; enter it with `with` or `async with`."""
        self._calls: list[DeferredCall] = []
        self._born = forks
        self._around = surroundings
        self._exception = self._gates = None
        self._began = monotonic()

    def __repr__(self) -> str:
        state = "ended" if self._ended else "open"
        return f"<{type(self).__name__} {state}, {self.pending} calls>"

    # -- what users see -----------------------------------------------------

    @property
    def pending(self) -> int:
        """How many calls have not been handed out yet."""
        return len(self._calls) + len(self._aside or ())

    @property
    def ended(self) -> bool:
        """Whether the unit's work is over; calls deferred from now on are late (A6)."""
        return self._ended

    @property
    def outcome(self) -> Outcome | None:
        """How the unit ended; None while it is open."""
        if self._outcome is None and self._ended:
            self._outcome = self._judge()
        return self._outcome

    def forget(self, name: str) -> bool:
        """Take back the call of that name if it has not started (C4)."""
        with self._lock:
            call = self._names.pop(name, None) if self._names else None
        if call is None or call._name != name:
            return False
        return self._refuse(call, "cancelled")

    def __enter__(self) -> Self:
        """Begin the unit.

        Raises:
            ScopeEndedError: the scope has been entered before.
        """
        if self._entered or self._ended:
            raise ScopeEndedError(SCOPE_ENDED)
        self._entered = True
        self._began = monotonic()
        self._outer = current.get()  # its transactions are around this block, too
        self._gates = []  # not None: defer() looks at those, too
        self._token = current.set(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the unit; returns when its calls have run, in this thread (B6)."""
        self._leave(exc)
        block_runner.run(self)  # noqa: F821 - declared above, set by _background

    async def __aenter__(self) -> Self:
        """Begin the unit, like `with`."""
        return self.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the unit; return when its calls have run: sync in threads, async here."""
        self._leave(exc)
        await block_runner.arun(self)  # noqa: F821 - as above

    def __call__(self, fn: _F) -> _F:
        """Make every call of *fn*, sync or async, a unit of its own.

        Raises:
            TypeError: *fn* is a generator function, or cannot be called.
        """
        return each_call_in(DeferScope, fn)

    def _leave(self, exc: BaseException | None) -> None:
        self._exception = exc
        if self._token is not None:
            reset(self._token)
            self._token = None

    def describe(self) -> dict[str, object]:
        """Say in words which unit this was, for records."""
        return {}

    def keep(self, record: FailureRecord, /) -> bool:  # noqa: ARG002 - whoever keeps any looks at it
        """Keep the record of a failed call; False: it is for the process's store."""
        return False

    def count(self) -> float | None:
        """Give when the unit began, as far as the adapter notes it, the first time."""
        if self._counted:
            return None
        self._counted = True
        return self._began

    def timing(self) -> str:
        """Give the value of a `Server-Timing` header: own time so far, and calls.

        In milliseconds, as https://www.w3.org/TR/server-timing/ says.
        """
        own = (monotonic() - self._began) * 1000
        return f'app;dur={own:.1f}, deferred;desc="{self.pending} calls"'

    # -- what adapters use --------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether calls of this unit are running, about to, or wait for a commit."""
        return self in held or bool(self._aside)

    def surround(self, around: Around) -> None:
        """Put a framework's surroundings around every call of this unit (D4)."""
        if around not in self._around:
            self._around += (around,)

    def end(self, delay: float = 0.0) -> bool:
        """End the unit and have its calls run, at the earliest in *delay* seconds.

        A second end does nothing (C5).

        Returns:
            Whether calls were handed to the runner.
        """
        if not self.close():
            return False
        assert self.runner is not None  # noqa: S101 - every adapter sets it first
        self.runner.resume(self, delay)
        return True

    def close(self) -> bool:
        """End the unit; True if there are calls, which the caller then holds."""
        self._ended = True  # first: what is added from here on wakes the runner itself
        if _instruments.instruments:
            self.last_byte = monotonic()
        if not self._calls or self._born != forks or not self.hold():
            return False
        return interceptor is None or not self._intercepted()

    def hold(self) -> bool:
        """Become the holder, who alone hands out calls; False if there is one."""
        mine = [len(self._calls)]
        return held.setdefault(self, mine) is mine

    def _judge(self) -> Outcome:
        return Outcome.of_block(self._exception)

    def _intercepted(self) -> bool:
        if interceptor is not None and interceptor.holds(self):
            held.pop(self, None)
            return True
        return False

    # -- what defer() uses --------------------------------------------------

    def add(self, call: DeferredCall) -> None:
        """Collect a call; after the end, run it in the background (A6)."""
        call._scope = self
        self._calls.append(call)
        # No lock: close() writes `_ended` before it looks at `_calls`, and here it is
        # the other way round, so one of the two sees what the other did.
        if self._ended:
            self._add_late()

    def _add_late(self) -> None:
        if not self.hold():
            return  # whoever holds the unit comes to this call in its turn
        if interceptor is None or not self._intercepted():
            assert self.runner is not None  # noqa: S101 - no unit ends without one
            self.runner.resume(self, _LATE)

    def _free_name(self, call: DeferredCall) -> None:
        with self._lock:
            names, name = self._names, call._name
            if names is not None and name is not None and names.get(name) is call:
                del names[name]

    def rejoin(self, calls: list[DeferredCall]) -> None:
        """Line up again calls that were set aside: their transactions have ended."""
        aside = self._aside
        if aside is None or self._born != forks:
            return
        for call in calls:
            if aside.pop(call, _ABSENT) is None:
                waiting.pop(call, None)
                self._calls.append(call)
        if self.hold() and (interceptor is None or not self._intercepted()):
            assert self.runner is not None  # noqa: S101 - no unit ends without one
            self.runner.resume(self)

    def _claim(self, name: str, call: DeferredCall) -> None:
        """Let *call* own *name*: the last registration wins (C3)."""
        with self._lock:
            if self._names is None:
                self._names = {}
            earlier = self._names.get(name)
            self._names[name] = call
        if earlier is not None and earlier is not call and earlier._name == name:
            self._refuse(earlier, "replaced")

    # -- what runners use ---------------------------------------------------

    def starts_in_thread(self) -> bool:
        """Tell whether what is next in line is a sync call. Only for the holder."""
        first = next(iter(self._calls), None)
        return first is not None and not first.is_async

    def take(
        self, call: DeferredCall | None = None
    ) -> DeferredCall | list[DeferredCall] | None:
        """Hand out what starts now: one call, or a group that runs together (D1).

        For the holder, who may have got the first *call* out of the line himself. None
        puts the unit down: all its calls have settled, and whoever waits is told.
        """
        if self._ok is None:
            self._ok = self._succeeded()
        calls = self._calls
        while True:
            if call is None:
                if not calls and self.put_down():
                    return None
                try:
                    call = calls.pop(0)
                except IndexError:  # it was taken back just now
                    continue
            if call._plain and self._ok:
                call.state = "running"
                self._outstanding = 1
                return call
            if (batch := self._decide(call)) is not None:
                return batch
            call = None

    def put_down(self) -> bool:
        """Stop holding a unit with an empty line; False if it must go on after all."""
        held.pop(self, None)
        if self._calls and self.hold():  # one came just now, and saw it held
            return False
        if self._finished:
            self._tell_finished()
        return True

    def _decide(self, call: DeferredCall) -> DeferredCall | list[DeferredCall] | None:
        """Decide on a call that is not plain, or whose unit failed."""
        if not self._may_start(call):
            return None
        if call._grouped is None:
            self._outstanding = 1
            return call
        group = [call]
        calls = self._calls
        while calls and calls[0]._grouped is call._grouped:
            member = calls.pop(0)
            if member._grouped is not call._grouped:  # the other one was taken back
                calls.insert(0, member)
            elif self._may_start(member):
                group.append(member)
        self._outstanding = len(group)
        return group

    def _may_start(self, call: DeferredCall) -> bool:
        """Judge one call by its unit and its transactions, right before it starts.

        Both by the unit's outcome (C1) and by the commit (B3, C2).
        """
        if call.state != "pending":  # taken back without its unit (A5)
            return False
        if call._gates is not None and self._must_wait(call):
            return False
        if call._name is not None:
            self._free_name(call)
        rule, wanted, reason = call._rule, bool(self._ok), "outcome"
        if rule is not None:
            if self._aside is None:
                self._aside = {}
            self._aside[call] = None  # it can be taken back while its rule is asked
            try:
                wanted = bool(call._context.run(rule, call.outcome or Outcome()))
            except BaseException as exc:  # noqa: BLE001 - a condition fails as its call does (D2)
                call.exception, wanted = exc, True
            if self._aside.pop(call, _ABSENT) is not None:
                return False
        elif call._committed is False and call._after_commit:
            wanted, reason = False, "rollback"
        if wanted:
            call.state = "running"
        else:
            call.end_dropped(cast("Reason", reason))
        return wanted

    def _must_wait(self, call: DeferredCall) -> bool:
        """Set a call aside whose transaction has not ended; others run before it."""
        for gate in tuple(call._gates or ()):
            gate.poll()
        with self._lock:  # a gate that ends looks here for the calls it wakes
            if not call.waits_for_commit():
                return False
            if self._aside is None:
                self._aside = {}
            self._aside[call] = None
            waiting[call] = monotonic()
        look_after_waiting()  # noqa: F821 - declared above, set by _threads
        return True

    def _would_succeed(self) -> bool:
        """Tell whether the unit, as far as it has come, is a success."""
        return self._judge().ok

    def _succeeded(self) -> bool:
        """Judge the unit for calls that have no rule of their own (C1)."""
        outcome = self.outcome
        return outcome is None or outcome.ok

    def take_back(self, call: DeferredCall) -> None:
        """Line up again a call that nobody else would have. Any thread."""
        self._calls.append(call)
        self._add_late()

    def _refuse(self, call: DeferredCall, reason: Reason) -> bool:
        """Drop a call that has not started; False if it has."""
        if not self._withdraw(call):
            return False
        if call._name is not None:
            self._free_name(call)
        call.end_dropped(reason)
        return True

    def lose(self, call: DeferredCall) -> bool:
        """Give up a call that has not started; False if it has."""
        if not self._withdraw(call):
            return False
        call.state = "lost"
        return True

    def _withdraw(self, call: DeferredCall) -> bool:
        """Take a call out of the line, or from aside."""
        try:
            self._calls.remove(call)
        except ValueError:
            if not self._aside or self._aside.pop(call, _ABSENT) is not None:
                return False
            waiting.pop(call, None)
        return True

    def settled(self) -> bool:
        """Note that one call taken has settled; True: the caller now holds the unit."""
        if self._outstanding == 1 and self.wake is None:
            return True
        with self._lock:
            self._outstanding -= 1
            if self._outstanding:
                return False
            if self.wake is None:
                return True
            self.wake.set()  # the block's own thread holds the unit
            return False

    def on_finish(self, tell: Callable[[], object]) -> None:
        """Call *tell* (quick, any thread) once nobody runs calls; at once if so now."""
        if self._finished is None:
            self._finished = []
        self._finished.append(tell)
        if self not in held:
            self._tell_finished()

    def _tell_finished(self) -> None:
        while self._finished:
            try:
                tell = self._finished.pop()
            except IndexError:  # another thread was quicker
                return
            tell()

    def abandon(self) -> list[DeferredCall]:
        """Give up all calls that have not begun; they are the caller's to record."""
        line = [*self._calls, *(self._aside or ())]
        return [call for call in line if self._withdraw(call)]
