"""A failing call fails the test, unless it was expected."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from postlude import _reporting

if TYPE_CHECKING:
    from postlude._call import DeferredCall


class FailedCalls:
    """The calls that failed, timed out or were lost, and are not expected yet."""

    def __init__(self) -> None:
        self._failed: list[DeferredCall] = []

    @property
    def calls(self) -> list[DeferredCall]:
        """The calls that failed and that nobody has expected yet."""
        return list(self._failed)

    def expect(
        self, exception: type[BaseException] = BaseException, name: str | None = None
    ) -> DeferredCall:
        """Take out the first failed call of that exception, and name if given.

        Raises:
            AssertionError: there is none.
        """
        for call in self._failed:
            fits = call.exception is None or isinstance(call.exception, exception)
            if fits and name in {None, call.name}:
                self._failed.remove(call)
                return call
        raise AssertionError(
            f"no deferred call failed with {exception.__qualname__}; "
            f"failed: {self._failed or 'none'}"
        )

    def check(self) -> None:
        """Raise what an unexpected failing call raised.

        Raises:
            BaseException: the exception of the first failed call, with its place.
            AssertionError: a call timed out or was lost.
        """
        if not self._failed:
            return
        call = self._failed[0]
        if call.exception is None:
            raise AssertionError(f"{call!r} (deferred at {call.site})")
        call.exception.add_note(f"in {call!r}, deferred at {call.site}")
        raise call.exception


@contextmanager
def failing_calls() -> Generator[FailedCalls]:
    """Let a deferred call that fails in this block fail the block's end (G2)."""
    failed = FailedCalls()
    _reporting.watchers += (failed._failed.append,)
    try:
        yield failed
    finally:
        _reporting.watchers = tuple(
            watcher
            for watcher in _reporting.watchers
            if watcher.__self__ is not failed._failed  # type: ignore[attr-defined]  # pyright: ignore[reportFunctionMemberAccess]  # each is the append of a list
        )
    failed.check()
