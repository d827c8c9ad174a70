"""What is kept of a failed or lost call, and the port for keeping it (E1)."""

from __future__ import annotations

import reprlib
import time
import traceback
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from postlude import _names

if TYPE_CHECKING:
    from postlude._call import DeferredCall

__all__ = ["FailureRecord", "FailureStore"]

_SECRET = (
    "password",
    "passwd",
    "secret",
    "token",
    "api_key",
    "apikey",
    "authorization",
    "cookie",
    "credential",
)
_REDACTED = "[redacted]"
_MOST = 50
"""How many arguments a record shows."""


class FailureRecord(NamedTuple):
    """All that is known of a call that failed, timed out or was lost."""

    id: str
    name: str
    function: str
    """`module:qualname`."""
    arguments: dict[str, str]
    """Parameter to bounded `repr`; what is named like a secret is redacted."""
    state: str
    """`failed`, `timed_out` or `lost`."""
    unit: dict[str, object]
    """Method, route, path, status and request id, as far as the adapter knows."""
    site: str
    """The place that deferred the call."""
    exception: str | None
    traceback: str | None
    started: float | None
    """Unix time in seconds; None if the call never began."""
    ended: float
    """Unix time in seconds."""
    attempt: int = 1

    @classmethod
    def of(
        cls, call: DeferredCall, unit: Mapping[str, object], state: str
    ) -> FailureRecord:
        """Make the record of *call*, now."""
        exc = call.exception
        now = time.time()
        began = None
        if call.started is not None:
            began = now - (time.monotonic() - call.started)
        return cls(
            id=call.id,
            name=call.name,
            function=_names.qualified(call.fn),
            arguments=_arguments(call),
            state=state,
            unit=dict(unit),
            site=call.site,
            exception=None if exc is None else _safe_repr(exc),
            traceback=None if exc is None else _traceback(exc),
            started=began,
            ended=now,
        )


class FailureStore(Protocol):
    """Keeps failure records. Called from any thread; may raise, nobody is hurt (E3)."""

    def add(self, record: FailureRecord) -> None:
        """Keep one record."""
        ...

    def list(self) -> Iterable[FailureRecord]:
        """Give the records kept, oldest first."""
        ...


class _Bounded(reprlib.Repr):
    """A `repr` bounded in depth and length that shows no secrets."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = 10
        self.maxstring = self.maxother = 200

    def repr1(self, x: object, level: int) -> str:
        """Show any mapping as one: `reprlib` knows `dict` by its exact name only."""
        if isinstance(x, Mapping):
            mapping = cast("Mapping[object, object]", x)
            keys = islice(mapping, 11)
            shown = {k: _REDACTED if _is_secret(k) else mapping[k] for k in keys}
            return self.repr_dict(shown, level)
        return super().repr1(x, level)


_bounded = _Bounded()


def _safe_repr(value: object) -> str:
    try:
        return _bounded.repr(value)
    except BaseException as exc:  # noqa: BLE001 - a repr of the user's may do anything
        return f"<{type(value).__qualname__}, its repr raised {type(exc).__name__}>"


def _is_secret(name: object) -> bool:
    return isinstance(name, str) and any(word in name.lower() for word in _SECRET)


def _arguments(call: DeferredCall) -> dict[str, str]:
    names = _names.parameters(call.fn)
    args, kwargs = _names.bound(call.fn, call.args, call.kwargs)
    named: dict[str, object] = {
        names[i] if i < len(names) else f"*{i}": value
        for i, value in enumerate(args[:_MOST])
    }
    named.update(islice(kwargs.items(), _MOST - len(named)))
    shown = {k: _REDACTED if _is_secret(k) else _safe_repr(v) for k, v in named.items()}
    if (more := len(args) + len(kwargs) - len(shown)) > 0:
        shown["..."] = f"{more} more"
    return shown


def _traceback(exc: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(exc))
    except BaseException:  # noqa: BLE001 - a str of the user's exception may do anything
        return f"{type(exc).__qualname__}: <its text raised>\n"
