"""What is kept of a failed or lost call (E1)."""

from __future__ import annotations

import os
import re
import reprlib
import time
import traceback
from collections.abc import Mapping
from functools import cache, partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, cast

from postlude import _names
from postlude._settings import in_force
from postlude.exceptions import ArgumentError

if TYPE_CHECKING:
    from postlude._call import DeferredCall

__all__ = ["FailureRecord"]

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
_LOOKED_AT = 4_000
"""Characters of a `repr` that are looked at, of which fewer are shown."""
_MOST = 50
"""How many arguments a record shows."""
_PAYLOAD = 64 * 1024
"""Characters of arguments that are kept for another run."""
_OURS = __file__.rpartition("failures")[0]
_LONGEST = 64 * 1024
"""Characters of a traceback that are kept: its beginning and its end."""


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
    hint: str | None = None
    """What to change, if the call used what had ended with its request."""
    payload: str | None = None
    """The arguments as `postlude._codec` writes them, for running the call again."""
    refusal: str | None = None
    """Why the call cannot be run again; None if it can."""
    host: str = ""
    pid: int = 0
    """The process that the call ran in."""

    @classmethod
    def of(
        cls,
        call: DeferredCall,
        unit: Mapping[str, object],
        state: str,
        hint: str | None = None,
    ) -> FailureRecord:
        """Make the record of *call*, now."""
        exc = call.exception
        now = time.time()
        began = None
        if call.started is not None:
            began = now - (time.monotonic() - call.started)
        payload, refusal = _payload(call)
        return cls(
            id=call.id,
            name=_cut(call.name, 500),
            function=_names.qualified(call.fn),
            arguments=_arguments(call) if in_force().record_arguments else {},
            state=state,
            unit=dict(unit),
            site=call.site,
            exception=None if exc is None else _safe_repr(exc),
            traceback=None if exc is None else _cut(_traceback(exc), _LONGEST),
            started=began,
            ended=now,
            attempt=call.attempt,
            hint=hint,
            payload=payload,
            refusal=refusal,
            host=host_name(),
            pid=os.getpid(),
        )


class _Bounded(reprlib.Repr):
    """A `repr` bounded in depth and length that shows no secrets.

    A secret is taken out before a text is cut, or a cut could take away its name and
    leave its end. So only the beginning of a long text is shown.
    """

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
        if type(x) in {tuple, list} and _is_secret_pair(x):
            name, _ = cast("tuple[object, object]", x)  # of headers, say
            return self.repr_tuple((name, _REDACTED), level)
        return super().repr1(x, level)

    def repr_str(self, x: str, level: int) -> str:  # noqa: ARG002 - reprlib's
        """Show the beginning of a text."""
        return _begin(repr(x[:_LOOKED_AT]), self.maxstring)

    def repr_instance(self, x: object, level: int) -> str:  # noqa: ARG002 - as above
        """Show the beginning of what any other object says of itself."""
        try:
            return _begin(repr(x), self.maxother)
        except Exception as exc:  # noqa: BLE001 - others in the same list can be shown
            return _unshown(x, exc)


_bounded = _Bounded()


def _begin(text: str, most: int) -> str:
    text = _scrubbed(text[:_LOOKED_AT])
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _safe_repr(value: object) -> str:
    try:
        return _bounded.repr(value)
    except BaseException as exc:  # noqa: BLE001 - a repr of the user's may do anything
        return _unshown(value, exc)


def _unshown(value: object, exc: BaseException) -> str:
    return f"<{type(value).__qualname__}, its repr raised {type(exc).__name__}>"


def _scrubbed(text: str) -> str:
    """Take out what a text shows as `password='...'`, `"password": "..."` and the like.

    Dataclasses, models, dicts within them, errors, headers; and passwords in addresses.
    """
    named, address = _patterns(in_force().redact)
    return address.sub(rf"\1{_REDACTED}@", named.sub(rf"\1{_REDACTED}", text))


@cache
def _patterns(words: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    # Atomic, so that a hostile text takes no longer than any other.
    names = (re.escape(word).replace("_", "[-_]") for word in (*_SECRET, *words))
    one = "|".join(names)
    between = r"""(?:['"]?\s*+[=:]|['"]\s*+,)\s*+"""
    name = rf"(\b(?>\w*?(?:{one}))\w*+{between})"
    rest = r"""[^\s,)\]}'"]"""
    value = (
        rf"""[rbf]?'(?:[^'\\]|\\.)*+'?{rest}*+"""  # a literal, perhaps in another one
        rf"""|[rbf]?"(?:[^"\\]|\\.)*+"?{rest}*+"""
        r"""|\w*+\([^()]*+\)?|\[[^\[\]]*+\]?|\{[^{}]*+\}?"""  # in brackets
        rf"""|(?:bearer|basic|digest)\s++{rest}++|[^\s,)\]}}]++"""
    )
    return (
        re.compile(f"{name}(?:{value})", re.IGNORECASE | re.DOTALL),
        re.compile(r"(://[^/\s:@]*+:)[^/\s@]++@"),
    )


def host_name() -> str:
    """Name this machine, as far as that costs no import."""
    uname = getattr(os, "uname", None)
    return os.environ.get("COMPUTERNAME", "") if uname is None else uname().nodename


def holds_secret(value: object, *, is_name: bool) -> bool:
    """Tell whether a text names a secret, or holds one by the name of one."""
    if is_name:
        return _is_secret(value)
    if isinstance(value, str):
        return _scrubbed(value) != value
    return _is_secret_pair(value)


def _is_secret_pair(x: object) -> bool:
    pair = cast("tuple[object, ...]", x)
    return len(pair) == 2 and _is_secret(pair[0])  # noqa: PLR2004 - a pair


def _is_secret(name: object) -> bool:
    if isinstance(name, bytes):
        name = name.decode("latin-1")
    if not isinstance(name, str):
        return False
    lower = name.lower().replace("-", "_")
    own = (word.lower().replace("-", "_") for word in in_force().redact)
    return any(word in lower for word in (*_SECRET, *own))


def _payload(call: DeferredCall) -> tuple[str | None, str | None]:
    """Give the arguments for another run, and why there will be none (E2)."""
    if not in_force().record_arguments:
        return None, "arguments are not recorded (the setting record_arguments)"
    from postlude import _codec, _importable  # noqa: PLC0415 - only where a call failed

    fn = call.fn
    args, kwargs = _names.bound(fn, call.args, call.kwargs)
    while isinstance(fn, partial):
        fn = fn.func
    try:
        if (reason := _importable.refusal(fn)) is not None:
            return None, reason
        return _codec.encode(fn, args, kwargs, _PAYLOAD, holds_secret), None
    except BaseException as exc:  # noqa: BLE001 - arguments of the user's may do anything
        return None, _cut(f"{exc}", 500) if isinstance(exc, ArgumentError) else (
            f"looking at its arguments raised {type(exc).__name__}"
        )


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n[... {len(text) - most:,} characters ...]\n{text[-half:]}"


def _named(call: DeferredCall) -> dict[str, object]:
    names = _names.parameters(call.fn)
    args, kwargs = _names.bound(call.fn, call.args, call.kwargs)
    named: dict[str, object] = {
        names[i] if i < len(names) else f"*{i}": value for i, value in enumerate(args)
    }
    return {**named, **kwargs}


def _arguments(call: DeferredCall) -> dict[str, str]:
    named = _named(call)
    shown = {
        name: _REDACTED if _is_secret(name) else _safe_repr(value)
        for name, value in islice(named.items(), _MOST)
    }
    if (more := len(named) - len(shown)) > 0:
        shown["..."] = f"{more} more"
    return shown


def _traceback(exc: BaseException) -> str:
    try:
        trace = exc.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
            trace = trace.tb_next  # how the call was run is of no interest
        shown = traceback.TracebackException(type(exc), exc, trace or exc.__traceback__)
        # A text may be huge. Cut more generously than in the end: what is at the edge
        # of this cut is not shown.
        return _scrubbed(_cut("".join(shown.format()), 8 * _LONGEST))
    except BaseException:  # noqa: BLE001 - a str of the user's exception may do anything
        return f"{type(exc).__qualname__}: <its text raised>\n"
