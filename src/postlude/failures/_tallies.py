"""Adds calls up, minute by minute."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from postlude.failures._store import Tally

if TYPE_CHECKING:
    from postlude.instrumentation import CallRecord

BOUNDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip
"""Seconds: the upper bounds of what is counted together. Five is the limit between a
deferred call and a queue's job."""
LABELS = (*(f"{bound:g}" for bound in BOUNDS), "inf")

_MOST = 20_000
"""Different numbers that may wait for a store that is down. More are not counted."""
_Key = tuple[int, str, str, str, str]


class Tallies:
    """Numbers that have not been written yet. One thread."""

    def __init__(self) -> None:
        self._numbers: dict[_Key, list[float]] = {}

    def __bool__(self) -> bool:
        return bool(self._numbers)

    def add(self, record: CallRecord) -> None:
        """Count a call that has ended."""
        minute = int(record.ended // 60)
        function = record.function
        route = _route(record.unit)
        state = record.state
        if record.reason is not None:
            state = f"{state}:{record.reason}"
        ran = record.duration
        self._count((minute, "ended", function, route, state), ran or 0.0)
        if ran is not None:
            self._count((minute, "duration", function, "", _bucket(ran)), 0.0)
            where = "loop" if record.is_async else "thread"
            self._count((minute, "busy", function, "", where), ran)
        if (delay := record.start_delay) is not None:
            self._count((minute, "delay", function, "", _bucket(delay)), delay)
        if (own := record.first_of_unit) is not None:
            self._count((minute, "unit", "", route, ""), own)

    def beat(self, now: float, met: tuple[str, ...]) -> None:
        """Count a look at the process, and the limits that were met then."""
        for label in ("all", *met):
            self._count((int(now // 60), "beat", "", "", label), 0.0)

    def take(self) -> tuple[Tally, ...]:
        """Give all numbers, and begin anew."""
        numbers, self._numbers = self._numbers, {}
        return tuple(
            Tally(*key, count=int(count), total=total)
            for key, (count, total) in numbers.items()
        )

    def put_back(self, tallies: tuple[Tally, ...]) -> None:
        """Take numbers back that could not be written."""
        for tally in tallies:
            self._count(tally[:5], tally.total, tally.count)

    def _count(self, key: _Key, total: float, count: int = 1) -> None:
        known = self._numbers.get(key)
        if known is not None:
            known[0] += count
            known[1] += total
        elif len(self._numbers) < _MOST:
            self._numbers[key] = [count, total]


def _bucket(seconds: float) -> str:
    return LABELS[bisect_left(BOUNDS, seconds)]


def _route(unit: dict[str, object]) -> str:
    """Name the unit: a route's pattern; a path would be another name for every id."""
    route = unit.get("route")
    if route is None:
        return str(unit.get("block") or unit.get("kind") or "")
    method = unit.get("method")
    return f"{method} {route}" if method else str(route)
