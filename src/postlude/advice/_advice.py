"""One piece of advice, and the words that numbers are put in."""

from __future__ import annotations

import time
from typing import NamedTuple

_RANKS = ("saved", "rollback", "limit", "slow", "queue", "broken", "overflow", "lost")
"""From what is good to know to what has done harm."""


class Advice(NamedTuple):
    """One finding, with the numbers that it stands on."""

    kind: str
    """`lost`, `overflow`, `broken`, `queue`, `slow`, `limit`, `rollback`, `saved`."""
    weight: float
    """The higher, the sooner it should be read; only the order means anything."""
    subject: str
    """A function (`module:qualname`), a setting, or a route; empty for the total."""
    sentence: str
    """In words. Names in it are the application's: escape what is shown."""
    evidence: dict[str, float | str]
    """The numbers, by name. Times are seconds, moments Unix seconds."""

    @classmethod
    def of(
        cls,
        kind: str,
        size: float,
        subject: str,
        sentence: str,
        evidence: dict[str, float | str],
    ) -> Advice:
        """Make one; *size* orders it among its kind and counts up to infinity."""
        weight = _RANKS.index(kind) + size / (1 + size)
        return cls(kind, weight, subject, sentence, evidence)


_SHORTEST = 0.0005
_SECOND = 0.9995
"""From here on it is rounded to a second, or more."""
_ONE_DECIMAL = 9.95
_WHOLE = 0.1
_MINUTE = 60.0
_HOUR = 3600.0
_DAY = 24 * _HOUR


def duration(seconds: float) -> str:
    """Say how long, in the unit that people use: `81 ms`, `1.2 s`, `3.1 h`."""
    if seconds < _SHORTEST:
        return "under 1 ms"
    if seconds < _SECOND:
        return f"{seconds * 1000:.0f} ms"
    for most, unit, word in (
        (2 * _MINUTE, 1.0, "s"),
        (2 * _HOUR, _MINUTE, "min"),
        (2 * _DAY, _HOUR, "h"),
    ):
        if seconds < most:
            number = seconds / unit
            text = f"{number:.{1 if number < _ONE_DECIMAL else 0}f}"
            return f"{text.removesuffix('.0')} {word}"
    return f"{seconds / _DAY:,.1f} days"


def percent(share: float) -> str:
    """Say a share of the whole: `35 %`, `0.4 %`."""
    return f"{share * 100:.0f} %" if share >= _WHOLE else f"{share * 100:.2g} %"


def moment(unix: float) -> str:
    """Say when, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(unix))


def calls(count: int, what: str = "call") -> str:
    """Say how many: `1 call`, `1,200 calls`."""
    return f"{count:,} {what}{'' if count == 1 else _plural(what)}"


def _plural(what: str) -> str:
    return "es" if what.endswith("s") else "s"


def noun(count: int, what: str = "call") -> str:
    """Give the noun alone, one or many."""
    return what if count == 1 else what + _plural(what)
