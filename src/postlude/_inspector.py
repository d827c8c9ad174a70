"""Looks, in development, at what a call captures that ends with its request."""

from __future__ import annotations

import logging
import re
import warnings
from itertools import islice
from typing import TYPE_CHECKING

from postlude import _scope
from postlude._captures import everything
from postlude._log import say
from postlude._request_bound import Finding, judge
from postlude.exceptions import REQUEST_BOUND, RequestBoundWarning

if TYPE_CHECKING:
    from types import FrameType

    from postlude._call import DeferredCall
    from postlude._scope import DeferScope

_MOST = 200
"""How many values of a call are looked at."""
_warned: set[tuple[object, int, str]] = set()


def look(call: DeferredCall, scope: DeferScope | None, frame: FrameType) -> None:
    """Warn, once per call site and value, of what ends before *call* can use it.

    Not in a block: its calls run inside the code that owns the objects, as often as
    not before they end. Nor where no unit collects, since the call runs at once.

    Raises:
        RequestBoundWarning: where the user's filters make warnings errors.
    """
    at_once = scope is None and _scope.interceptor is None
    if at_once or (scope is not None and scope._entered):
        return
    for finding in found(call):
        key = (call._code, call._lasti, finding.place)
        if key not in _warned:
            warnings.warn_explicit(
                REQUEST_BOUND.format(call=call.name, **finding._asdict()),
                RequestBoundWarning,
                frame.f_code.co_filename,
                frame.f_lineno,
                frame.f_globals.get("__name__"),
            )
            _warned.add(key)  # last: made an error, it is one at every `defer`


def found(call: DeferredCall) -> list[Finding]:
    """Give what *call* holds that ends with its request. Never raises, never loads."""
    findings: dict[object, Finding] = {}
    try:
        for held in islice(everything(call.fn, call.args, call.kwargs), _MOST):
            finding = judge(held)
            if finding is not None:
                name = held.name or _snake(type(held.value).__name__)
                fix = finding.fix.replace("{name}", name)
                finding = finding._replace(fix=fix, place=held.place)
                findings.setdefault(held.items_of or id(held.value), finding)
    except Exception as exc:  # noqa: BLE001 - the call is worth more than a warning
        kind = type(exc).__qualname__
        say(logging.DEBUG, "the inspector could not look (%s)", kind, call=call)
    return list(findings.values())


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
