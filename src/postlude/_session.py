"""A session that deferred calls can read but not change: its response has left (B7)."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Self

from postlude.exceptions import TOO_LATE, TooLateError

inside: ContextVar[bool] = ContextVar("postlude_inside", default=False)
"""Whether the code that runs is a deferred call whose request has a session."""


class SealedSession(dict[str, Any]):
    """What a session becomes with the last byte; a change by a call is an error.

    The request's own code may still be at work, and is none of our business: its
    changes are lost in silence, as they always were, until it has returned.
    """

    closed = False

    def _check(self) -> None:
        if self.closed or inside.get():
            raise TooLateError(TOO_LATE.format(what="the session"))

    def __setitem__(self, key: str, value: Any) -> None:
        self._check()
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self._check()
        super().__delitem__(key)

    def pop(self, *args: Any) -> Any:
        """Do what `dict` does, if it is not too late."""
        self._check()
        return super().pop(*args)

    def popitem(self) -> tuple[str, Any]:
        """Do what `dict` does, if it is not too late."""
        self._check()
        return super().popitem()

    def clear(self) -> None:
        """Do what `dict` does, if it is not too late."""
        self._check()
        super().clear()

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Do what `dict` does, if it is not too late."""
        self._check()
        super().update(*args, **kwargs)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Do what `dict` does, if it is not too late."""
        self._check()
        return super().setdefault(key, default)

    def __ior__(self, other: Any, /) -> Self:  # type: ignore[override,misc]  # as dict
        """Do what `dict` does, if it is not too late."""
        self.update(other)
        return self
