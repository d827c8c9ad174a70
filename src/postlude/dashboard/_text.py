"""How values are shown: safe to look at, short, and with units."""

from __future__ import annotations

import math
from datetime import UTC, datetime

_MINUTE, _HOUR, _DAY = 60, 3600, 86400

_STRANGE: dict[int, str] = {
    **{code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"},
    0x7F: "\u2421",
    **dict.fromkeys(range(0x80, 0xA0), "\ufffd"),
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),
    **{
        code: f"<U+{code:04X}>"
        for code in (
            *(0x061C, 0x200B, 0x200E, 0x200F, 0x2028, 0x2029, 0xFEFF),
            *range(0x202A, 0x202F),
            *range(0x2066, 0x206A),
            *range(0xE0000, 0xE0080),
        )
    },
}
"""What a browser would not show, or show elsewhere: control characters, halves of
surrogate pairs, what is invisible or turns the direction of text (CVE-2021-42574)."""


def clean(value: object) -> object:
    """Make what a template prints visible as it is; escaping it comes after."""
    if value is None:
        return ""
    if type(value) is str:  # not Markup, whose parts came through here already
        return value.translate(_STRANGE)
    return value


def number(value: float) -> str:
    """Show a number with thousands apart: `1,234`, `20.6`."""
    if value == int(value) or abs(value) >= 100:  # noqa: PLR2004 - digits that matter
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 1 else f"{value:.2g}"


def seconds(value: float) -> str:
    """Show a length of time with two digits that matter: `81 ms`, `1.2 s`, `3 min`."""
    if value < 0.9995:  # noqa: PLR2004 - what rounds to a second
        ms = value * 1000
        if 0 < ms < 0.1:  # noqa: PLR2004 - less is no time at all
            return "under 0.1 ms"
        return f"{ms:.1f} ms" if 0 < ms < 9.95 else f"{ms:.0f} ms"  # noqa: PLR2004
    if value < 9.95:  # noqa: PLR2004 - what rounds to ten
        return f"{value:.1f} s"
    whole = round(value)
    for unit, name, part, small in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", 1, "s"),
    ):
        if whole >= unit:
            rest = whole % unit // part
            return (
                f"{whole // unit} {name} {rest} {small}"
                if rest
                else (f"{whole // unit} {name}")
            )
    return f"{whole} s"


def bound(value: float) -> str:
    """Show the upper bound of a class of durations."""
    return "over 5 min" if math.isinf(value) else _exact(value)


def _exact(value: float) -> str:
    if value < 1:
        return f"{value * 1000:g} ms"
    return f"{value:g} s" if value < _MINUTE else f"{value / _MINUTE:g} min"


def ago(then: float, now: float) -> str:
    """Say how long ago *then* was, in one unit."""
    passed = int(now - then)
    if passed < 1:
        return "just now"  # also what another machine's clock puts into the future
    for unit, name in ((_DAY, "days"), (_HOUR, "h"), (_MINUTE, "min")):
        if passed >= unit * (2 if unit == _DAY else 1):
            return f"{passed // unit} {name} ago"
    return f"{passed} s ago"


def moment(then: float) -> str:
    """Show a point in time for people, in UTC."""
    return _utc(then).strftime("%Y-%m-%d %H:%M:%S UTC")


def clock(then: float) -> str:
    """Show the time of a day, in UTC."""
    return _utc(then).strftime("%H:%M")


def iso(then: float) -> str:
    """Show a point in time for machines."""
    return _utc(then).strftime("%Y-%m-%dT%H:%M:%SZ")


def _utc(then: float) -> datetime:
    try:
        return datetime.fromtimestamp(then, UTC)
    except (ValueError, OverflowError, OSError):  # a record changed by hand
        return datetime.fromtimestamp(0, UTC)
