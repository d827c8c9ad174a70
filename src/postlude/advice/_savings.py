"""How much time users no longer wait."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from postlude.advice._advice import Advice, calls, duration, moment
from postlude.advice._functions import SAMPLE

if TYPE_CHECKING:
    from postlude.advice._numbers import Numbers

_REQUEST = re.compile(r"(?!WEBSOCKET )[A-Z]+ \S")
"""A route of HTTP. Nobody waits for a block, nor for the end of a WebSocket."""
_SHORT = 1.0
"""Seconds in all below which nobody cares."""


def saved(numbers: Numbers, since: float) -> Iterator[Advice]:
    """Give each route's time with and without what it defers, and the total."""
    if numbers.began is None:
        return
    begin = max(since, numbers.began * 60.0)
    total = 0.0
    units_of_all = routes = 0
    for route, (units, waited, ran, seconds) in sorted(numbers.routes.items()):
        if not _REQUEST.match(route) or units < SAMPLE or seconds < _SHORT:
            continue
        total += seconds
        units_of_all += int(units)
        routes += 1
        now, before = waited / units, (waited + seconds) / units
        yield Advice.of(
            "saved",
            seconds / 3600,
            route,
            f"{route}: the user waits {duration(now)} instead of {duration(before)}; "
            f"{duration(seconds)} saved in {calls(int(units), 'request')} since "
            f"{moment(begin)}.",
            {
                "requests": units,
                "calls": ran,
                "waits": now,
                "would_wait": before,
                "saved": seconds,
                "since": begin,
            },
        )
    if routes > 1:
        yield Advice.of(
            "saved",
            total / 3600,
            "",
            f"On {routes} routes users did not wait {duration(total)} in "
            f"{calls(units_of_all, 'request')} since {moment(begin)}.",
            {
                "routes": routes,
                "requests": units_of_all,
                "saved": total,
                "since": begin,
            },
        )
