"""From tallies to what advice is made of: shares, percentiles, minutes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from math import ceil, inf, sqrt
from typing import TYPE_CHECKING

from postlude.failures._tallies import BOUNDS as _BOUNDS

if TYPE_CHECKING:
    from postlude.failures import ProcessRecord, Tally

_Z = 1.959964
"""Standard deviations of a 95 % confidence interval."""


def at_least(hits: int, of: int) -> float:
    """Give the lower bound of a share, with 95 % confidence.

    Wilson's score interval (Wilson 1927, equation 8): right for few samples and for
    shares near 0 and 1. It is 0 where there are none.
    """
    if of <= 0 or hits <= 0:
        return 0.0
    share = min(1.0, hits / of)
    middle = share + _Z * _Z / (2 * of)
    margin = _Z * sqrt((share * (1 - share) + _Z * _Z / (4 * of)) / of)
    return max(0.0, (middle - margin) / (1 + _Z * _Z / of))


class Histogram:
    """Counts by upper bound in seconds; what is asked of it is a bound, too."""

    def __init__(self) -> None:
        self._counts: defaultdict[float, int] = defaultdict(int)

    def add(self, label: str, count: int) -> None:
        """Count *count* values of at most *label* seconds."""
        try:
            self._counts[float(label)] += count
        except ValueError:
            return  # of a newer version

    def merge(self, other: Histogram) -> None:
        """Add all that another one counted."""
        for bound, count in other._counts.items():
            self._counts[bound] += count

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(self._counts.values())

    def over(self, seconds: float) -> tuple[int, float]:
        """Give how many values are certainly over *seconds*, and over which bound.

        A value is only known to be at most its label, and over the label below. So the
        bound is *seconds*, or the next label up.
        """
        bounds = sorted(bound for bound in _BOUNDS if bound >= seconds)
        limit = bounds[0] if bounds else inf
        return sum(n for bound, n in self._counts.items() if bound > limit), limit

    def most(self, share: float) -> float:
        """Give seconds that *share* of the values, or more, are at most; or `inf`."""
        need = ceil(share * self.count)
        for bound in sorted(self._counts):
            need -= self._counts[bound]
            if need <= 0:
                return bound
        return inf

    def floor(self) -> float:
        """Give seconds that the greatest value is over."""
        top = max((bound for bound, n in self._counts.items() if n), default=0.0)
        return max((bound for bound in _BOUNDS if bound < top), default=0.0)


class Function:
    """What is known of one function's calls."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.states: defaultdict[str, int] = defaultdict(int)
        self.routes: defaultdict[str, int] = defaultdict(int)
        self.durations = Histogram()
        self.delays = Histogram()

    @property
    def ran(self) -> int:
        """How many calls ran to an end of their own, good or bad."""
        return sum(self.states[state] for state in ("done", "failed", "timed_out"))

    @property
    def failed(self) -> int:
        """How many of them failed or had their time."""
        return self.states["failed"] + self.states["timed_out"]


class Numbers:
    """All tallies of a window, in the order in which advice asks for them."""

    def __init__(
        self, tallies: Iterable[Tally], processes: Iterable[ProcessRecord]
    ) -> None:
        self.functions: dict[str, Function] = {}
        self.routes: defaultdict[str, list[float]] = defaultdict(_four)
        """Per route: units, their seconds, calls that ran, their seconds."""
        self.looks: defaultdict[str, int] = defaultdict(int)
        self.busy: defaultdict[tuple[str, int, str], list[float]] = defaultdict(_two)
        """Per where, minute and function: calls that ended and seconds they ran."""
        self.processes = list(processes)
        self.began: int | None = None
        """The first minute that has numbers."""
        for tally in tallies:
            if tally.count > 0:
                self._add(tally)

    def _add(self, tally: Tally) -> None:
        if self.began is None or tally.minute < self.began:
            self.began = tally.minute
        read = _READERS.get(tally.kind)
        if read is not None:
            read(self, tally)

    def function(self, name: str) -> Function:
        """Give a function's numbers, which may be none."""
        found = self.functions.get(name)
        if found is None:
            found = self.functions[name] = Function(name)
        return found

    def _ended(self, tally: Tally) -> None:
        function = self.function(tally.function)
        function.states[tally.label] += tally.count
        function.routes[tally.route] += tally.count
        if tally.label in {"done", "failed", "timed_out"}:
            self.routes[tally.route][2] += tally.count
            self.routes[tally.route][3] += max(0.0, tally.total)

    def _duration(self, tally: Tally) -> None:
        self.function(tally.function).durations.add(tally.label, tally.count)

    def _delay(self, tally: Tally) -> None:
        self.function(tally.function).delays.add(tally.label, tally.count)

    def _busy(self, tally: Tally) -> None:
        pair = self.busy[tally.label, tally.minute, tally.function]
        pair[0] += tally.count
        pair[1] += max(0.0, tally.total)

    def _unit(self, tally: Tally) -> None:
        self.routes[tally.route][0] += tally.count
        self.routes[tally.route][1] += max(0.0, tally.total)

    def _beat(self, tally: Tally) -> None:
        self.looks[tally.label] += tally.count

    def limit(self, name: str, default: float) -> float:
        """Give a setting as the processes have it: the highest, if they differ."""
        found = [p.limits[name] for p in self.processes if name in p.limits]
        return max(found, default=default)


_READERS = {
    "ended": Numbers._ended,
    "duration": Numbers._duration,
    "delay": Numbers._delay,
    "busy": Numbers._busy,
    "unit": Numbers._unit,
    "beat": Numbers._beat,
}


def _two() -> list[float]:
    return [0.0, 0.0]


def _four() -> list[float]:
    return [0.0, 0.0, 0.0, 0.0]


def most_common(counts: Mapping[str, int]) -> tuple[str, int]:
    """Give the key with the highest count, by name among equals; `` and 0 of none."""
    return max(sorted(counts.items()), key=lambda pair: pair[1], default=("", 0))
