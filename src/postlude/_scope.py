"""DeferScope: what collects the calls of one unit of work, and hands them out."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from functools import wraps
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from postlude import _names
from postlude._outcome import Outcome
from postlude.exceptions import GENERATOR_BLOCK, SCOPE_ENDED, ScopeEndedError

if TYPE_CHECKING:
    from types import TracebackType

    from postlude._call import DeferredCall
    from postlude._types import Around, BlockRunner, Interceptor, Reason, Runner

_F = TypeVar("_F", bound=Callable[..., Any])

current: ContextVar[DeferScope | None] = ContextVar("postlude_scope", default=None)
"""The unit that collects here. Set once per unit, by its outermost adapter or block."""


KEY = "postlude.scope"
"""Where the unit stands in the ASGI scope or WSGI environ, for whoever is inside the
same request (A8)."""
_LATE = 0.005
"""Seconds before a late call starts: its options are still being chained (A2)."""
interceptor: Interceptor | None = None
block_runner: BlockRunner  # installed by postlude._background, which has a runner


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
    """

    # Class attributes are the state of a unit in which nothing happened yet: most
    # requests defer nothing, and then no attribute but the adapter's own is ever set.
    _ok: bool | None = None
    _next = 0
    _names: dict[str, DeferredCall] | None = None
    _ended = False
    _entered = False
    _held = False
    _outstanding = 0
    _outcome: Outcome | None = None
    _exception: BaseException | None = None
    _token: Token[DeferScope | None] | None = None
    _around: tuple[Around, ...] = ()
    _finished: tuple[Callable[[], object], ...] = ()
    runner: Runner | None = None
    wake: Event | None = None
    route: str | None = None
    """Set by a framework that knows which of its routes the request took."""
    stay = False
    on_loop = False

    forks = 0
    """How often this process was forked off. A unit that is older than that is its
    parent's, and so are its calls (D8)."""

    # One lock for all units: it is held for a few instructions at a time and never
    # while code of others runs, and a lock per unit costs more than it could save.
    _lock = Lock()

    def __init__(self) -> None:
        """Make an open scope; enter it with `with` or `async with`."""
        self._calls: list[DeferredCall | None] = []
        self._born = DeferScope.forks

    def __repr__(self) -> str:
        state = "ended" if self._ended else "open"
        return f"<{type(self).__name__} {state}, {self.pending} calls>"

    # -- what users see -----------------------------------------------------

    @property
    def pending(self) -> int:
        """How many calls have not been handed out yet."""
        return len(self._calls) - self._next

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
        try:
            asynchronous = _names.is_async(fn)
        except TypeError as exc:
            if callable(fn):
                name = _names.qualified(fn)
                raise TypeError(GENERATOR_BLOCK.format(name=name)) from None
            raise exc from None

        if asynchronous:

            @wraps(fn)
            async def unit(*args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportRedeclaration]  # one or the other
                async with DeferScope():
                    return await fn(*args, **kwargs)

        else:

            @wraps(fn)
            def unit(*args: Any, **kwargs: Any) -> Any:
                with DeferScope():
                    return fn(*args, **kwargs)

        return cast("_F", unit)

    def _leave(self, exc: BaseException | None) -> None:
        self._exception = exc
        if self._token is not None:
            reset(self._token)
            self._token = None

    def describe(self) -> dict[str, object]:
        """Say in words which unit this was, for records."""
        return {}

    # -- what adapters use --------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether calls of this unit are running or about to."""
        return self._held

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
        if not self._calls or self._born != DeferScope.forks or not self.hold():
            return False
        return interceptor is None or not self._intercepted()

    def hold(self) -> bool:
        """Become the holder, who alone hands out calls; False if there is no need."""
        with self._lock:
            free = not self._held and self._next < len(self._calls)
            if free:
                self._held = True
        return free

    def _judge(self) -> Outcome:
        return Outcome.of_block(self._exception)

    def _intercepted(self) -> bool:
        if interceptor is not None and interceptor.holds(self):
            self._held = False
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
        if self._next == len(self._calls):
            return False
        call = self._calls[self._next]
        return call is not None and not call.is_async

    def take(self) -> DeferredCall | list[DeferredCall] | None:
        """Hand out what starts now: one call, or a group that runs together (D1).

        Only for the holder; the calls are running from here on. None puts the unit
        down: all its calls have settled, and whoever waits for that is told.
        """
        if self._ok is None:
            self._ok = self._succeeded()
        calls = self._calls
        with self._lock:
            place = self._next
            if place < len(calls):
                call = calls[place]
                if (
                    call is not None
                    and self._ok
                    and call._rule is None
                    and call._grouped is None
                    and call.state == "pending"
                ):
                    calls[place] = None
                    self._next = place + 1
                    call.state = "running"
                    self._outstanding = 1
                    return call
                finished = None
            else:
                del calls[:place]
                self._names = None
                self._next = 0
                self._held = False
                if self.runner is not None:
                    self.runner.active.pop(self, None)
                finished, self._finished = self._finished, ()
        if finished is None:
            return self._take_by_rule()
        for tell in finished:
            tell()
        return None

    def _take_by_rule(self) -> DeferredCall | list[DeferredCall] | None:
        """Go on where `take` found no plain call but a rule, a group, or a gap."""
        call = self._pop(None)
        if call is None or not self._admits(call):
            return self.take()
        if call._grouped is None:
            self._outstanding = 1
            return call
        group = [call]
        while (member := self._pop(call._grouped)) is not None:
            if self._admits(member):
                group.append(member)
        self._outstanding = len(group)
        return group

    def _pop(self, group: object) -> DeferredCall | None:
        """Take the next pending call out of the line; only one of *group*, if given."""
        with self._lock:
            calls = self._calls
            while self._next < len(calls):
                call = calls[self._next]
                if call is not None and call.state == "pending":
                    if group is not None and call._grouped is not group:
                        return None
                    calls[self._next] = None
                    self._next += 1
                    return call
                calls[self._next] = None
                self._next += 1
            return None

    def _succeeded(self) -> bool:
        """Judge the unit for calls that have no rule of their own (C1)."""
        outcome = self.outcome
        return outcome is None or outcome.ok

    def _admits(self, call: DeferredCall) -> bool:
        """Judge one call by the unit's outcome, right before it starts (C1)."""
        rule, wanted = call._rule, bool(self._ok)
        if rule is not None:
            try:
                wanted = bool(call._context.run(rule, self.outcome or Outcome()))
            except BaseException as exc:  # noqa: BLE001 - a condition fails as its call does (D2)
                call.exception, wanted = exc, True
        if not wanted:
            self._refuse(call, "outcome")
            return False
        with self._lock:
            if call.state != "pending":  # taken back while its condition was asked
                return False
            call.state = "running"
            return True

    def _refuse(self, call: DeferredCall, reason: Reason) -> bool:
        """Drop a call that has not started; False if it has."""
        with self._lock:
            if call.state != "pending":
                return False
            call.state = "dropped"
            call.reason = reason
        call._say_dropped()
        return True

    def settled(self) -> bool:
        """Note that one call taken has settled; True: the caller now holds the unit."""
        if self._outstanding == 1 and self.wake is None:
            self._outstanding = 0
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
        """Call *tell* (quick, any thread) once no call is left; at once if so now."""
        with self._lock:
            if self._held:
                self._finished += (tell,)
                return
        tell()

    def abandon(self) -> list[DeferredCall]:
        """Give up all calls that have not begun; they are the caller's to record."""
        with self._lock:
            left = [
                call
                for call in self._calls[self._next :]
                if call is not None and call.state == "pending"
            ]
            self._next = len(self._calls)
            return left
