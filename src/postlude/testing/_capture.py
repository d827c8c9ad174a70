"""`capture()`: collect without running, look, then run."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from postlude import _scope
from postlude._background import run_here
from postlude._scope import DeferScope
from postlude.testing._watch import failing_calls
from postlude.transactions._gate import drop_orphans

if TYPE_CHECKING:
    from postlude._call import DeferredCall


class Captured:
    """The calls that were deferred while `capture()` was in force."""

    def __init__(self) -> None:
        self._seen: list[DeferredCall] = []
        self._held: list[DeferScope] = []

    def __repr__(self) -> str:
        return f"<Captured {[call.name for call in self.calls]}>"

    @property
    def calls(self) -> list[DeferredCall]:
        """The calls that would run, in order: none that was dropped.

        A unit that has ended badly has dropped its plain calls by then (C1), and a
        transaction that was rolled back those made in it (C2).
        """
        for scope in self._held:
            _judge(scope)
        return [call for call in self._seen if call.state != "dropped"]

    def find(
        self, what: str | Callable[..., object], *args: object, **kwargs: object
    ) -> list[DeferredCall]:
        """Give the calls of that name or function, and with these arguments, if any."""
        return [
            call
            for call in self.calls
            if what in (call.name, call.fn)
            and (not args or call.args == args)
            and (not kwargs or call.kwargs == kwargs)
        ]

    def assert_deferred(
        self,
        what: str | Callable[..., object],
        *args: object,
        times: int | None = None,
        **kwargs: object,
    ) -> None:
        """Fail unless that name or function was deferred, with these arguments, if any.

        Raises:
            AssertionError: it was not, or not *times* times.
        """
        found = len(self.find(what, *args, **kwargs))
        if found == times or (times is None and found):
            return
        wanted = "at least once" if times is None else f"{times} times"
        raise AssertionError(
            f"{_shown(what, args, kwargs)} was deferred {found} times, wanted "
            f"{wanted}; deferred were: {self._listed()}"
        )

    def assert_not_deferred(
        self, what: str | Callable[..., object], *args: object, **kwargs: object
    ) -> None:
        """Fail if that name or function was deferred.

        Raises:
            AssertionError: it was.
        """
        self.assert_deferred(what, *args, times=0, **kwargs)

    def assert_nothing_deferred(self) -> None:
        """Fail if anything was deferred.

        Raises:
            AssertionError: something was.
        """
        if self.calls:
            raise AssertionError(f"nothing should be deferred; was: {self._listed()}")

    def run(self) -> None:
        """Run the calls of all units that have ended, in order, in this thread.

        Raises:
            BaseException: what the first failing call raised, after all have run.
        """
        held, self._held = self._held, []
        with failing_calls():
            for scope in held:
                if scope.hold():
                    run_here(scope)

    def _listed(self) -> str:
        return ", ".join(call.name for call in self.calls) or "nothing"

    # -- the interceptor ----------------------------------------------------

    def registered(self, call: DeferredCall, scope: DeferScope | None) -> bool:
        """Note a call; without a unit, give it one of its own to run in later."""
        self._seen.append(call)
        if scope is not None:
            return False
        alone = DeferScope()
        call._context.run(_scope.current.set, alone)
        alone.add(call)
        alone._ended = True
        self._held.append(alone)
        return True

    def holds(self, scope: DeferScope) -> bool:
        """Keep the calls of a unit that has ended."""
        if scope not in self._held:
            self._held.append(scope)
        return True


def _judge(scope: DeferScope) -> None:
    drop_orphans()
    for call in list(scope._calls):
        if call._rule is not None:
            continue
        if call._committed is False and call._after_commit:
            scope._refuse(call, "rollback")
        elif not scope._succeeded():
            scope._refuse(call, "outcome")


def _shown(what: object, args: tuple[object, ...], kwargs: dict[str, object]) -> str:
    name = what if isinstance(what, str) else getattr(what, "__qualname__", repr(what))
    parts = [repr(arg) for arg in args]
    parts += [f"{key}={value!r}" for key, value in kwargs.items()]
    return f"{name}({', '.join(parts)})" if parts else f"{name}"


@contextmanager
def capture() -> Generator[Captured]:
    """Collect what is deferred, in every unit and thread, without running it (G2).

    Units are judged as always: what an answer of 400 drops is not among the calls.
    Calls that were not run when the block is left never run.
    """
    captured = Captured()
    before, _scope.interceptor = _scope.interceptor, captured
    try:
        yield captured
    finally:
        _scope.interceptor = before
