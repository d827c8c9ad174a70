"""Limits that were met, by Little's law on the measured rates.

Little, "A Proof for the Queuing Formula: L = λW" (1961): calls that run at the same
time = calls per second × seconds of one call.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from postlude.advice._advice import Advice, calls, duration, moment, percent
from postlude.advice._functions import SAMPLE
from postlude.advice._numbers import Histogram, at_least, most_common
from postlude.failures._schema import KEPT_FINE

if TYPE_CHECKING:
    from postlude.advice._numbers import Numbers

_MET = 5
_MET_SHARE = 0.05
"""Looks at which the limit was met, with 95 % confidence, for it to be in the way."""
_LATE = 1.0
"""Seconds of start delay that are a symptom; without one a limit hurts nobody."""
_LATE_SHARE = 0.01
_FULL = 0.7
_MAIN = 0.5
_WORDS = {
    "threads": ("thread", "sync"),
    "concurrency": ("loop", "async"),
}


class _Peak(NamedTuple):
    """The minute in which most calls ran at the same time, per process."""

    minute: int
    rate: float
    """Calls per second, of all processes (lambda)."""
    each: float
    """Seconds of one call (W)."""
    together: float
    """Calls at the same time, per process (L)."""
    processes: int
    function: str
    share: float
    """What part of the seconds is that function's."""


def met(numbers: Numbers, now: float) -> Iterator[Advice]:
    """Give the limits that were in the way, and what to set."""
    for setting in _WORDS:
        advice = _met(numbers, setting, now)
        if advice is not None:
            yield advice
    yield from _pending(numbers)


def _looks(numbers: Numbers, setting: str) -> tuple[int, int, float] | None:
    found, of = numbers.looks[setting], numbers.looks["all"]
    surely = at_least(found, of)
    if found < _MET or of < SAMPLE or surely < _MET_SHARE:
        return None
    if not any(setting in process.limits for process in numbers.processes):
        return None
    return found, of, surely


def _met(numbers: Numbers, setting: str, now: float) -> Advice | None:
    where, kind = _WORDS[setting]
    looks = _looks(numbers, setting)
    delays = _delays(numbers, where)
    late, bound = delays.over(_LATE)
    surely_late = at_least(late, delays.count)
    few = late < _MET or delays.count < SAMPLE or surely_late < _LATE_SHARE
    if looks is None or few:
        return None
    found, of, surely = looks
    limit = numbers.limit(setting, 0)
    peak = _peak(numbers, where, now)
    wanted = _wanted(limit, peak)
    sentence = (
        f"All {limit:g} {_named(setting)} of a process were in use at {found:,} of "
        f"{calls(of, 'look')} ({percent(found / of)}), and {late:,} of "
        f"{delays.count:,} {kind} calls ({percent(late / delays.count)}) began more "
        f"than {bound:g} s after their response."
    )
    evidence: dict[str, float | str] = {
        "limit": limit,
        "looks": of,
        "looks_met": found,
        "share_at_least": surely,
        "calls": delays.count,
        "late": late,
        "late_over": bound,
        "set": wanted,
    }
    if peak is not None:
        sentence += _described(peak)
        evidence.update(
            {
                "peak": peak.minute * 60.0,
                "rate": peak.rate,
                "seconds": peak.each,
                "together": peak.together,
                "processes": peak.processes,
                "function": peak.function,
                "function_share": peak.share,
            }
        )
    sentence += f" Set {setting}={wanted:.0f} and look again"
    sentence += _remark(setting, peak)
    return Advice.of("limit", found / of, setting, sentence, evidence)


def _named(setting: str) -> str:
    return "threads" if setting == "threads" else "places for async calls"


def _described(peak: _Peak) -> str:
    each = " in each process" if peak.processes > 1 else ""
    return (
        f" In the busiest minute, {moment(peak.minute * 60)}, {peak.rate:.3g} calls/s "
        f"× {duration(peak.each)} kept about {peak.together:.2g} at work{each} "
        "(Little's law)."
    )


def _remark(setting: str, peak: _Peak | None) -> str:
    text = "."
    if setting == "threads":
        text = "; more threads help calls that wait for others, not a full processor."
    if peak is not None and peak.share >= _MAIN and peak.function:
        text += (
            f" {percent(peak.share)} of that time is {peak.function}: on a queue, or "
            "quicker, it would make room by itself."
        )
    return text


def _wanted(limit: float, peak: _Peak | None) -> float:
    """Give what to set: half as much again as was met, double where it was full.

    What was measured is what came through. Where a limit was met for minutes, more
    would have come, so the true need is not known yet.
    """
    if peak is None or peak.together < _FULL * limit:
        return ceil(1.5 * limit)
    return ceil(max(2 * limit, 1.5 * peak.together))


def _delays(numbers: Numbers, where: str) -> Histogram:
    """Give the start delays of the functions that ran there, and nowhere else."""
    here = {name for place, _, name in numbers.busy if place == where}
    elsewhere = {name for place, _, name in numbers.busy if place != where}
    delays = Histogram()
    for name in here - elsewhere:
        delays.merge(numbers.function(name).delays)
    return delays


def _peak(numbers: Numbers, where: str, now: float) -> _Peak | None:
    """Find the busiest minute; older numbers are put together by the hour."""
    fine = int(now // 60) - KEPT_FINE
    counts: defaultdict[int, float] = defaultdict(float)
    seconds: defaultdict[int, float] = defaultdict(float)
    parts: defaultdict[int, defaultdict[str, int]] = defaultdict(_counts)
    for (place, minute, name), (count, total) in numbers.busy.items():
        if place != where or minute < fine or not count:
            continue
        # Counted when they end: what ran for minutes ran in the minutes before, too.
        spread = max(1, ceil(total / count / 60))
        for at in range(minute - spread + 1, minute + 1):
            counts[at] += count / spread
            seconds[at] += total / spread
            parts[at][name] += int(1000 * total / spread)
    best: _Peak | None = None
    for minute, total in seconds.items():
        processes = _alive(numbers, minute)
        together = total / 60 / max(1, processes)
        if processes and total > 0 and (best is None or together > best.together):
            name, part = most_common(parts[minute])
            best = _Peak(
                minute=minute,
                rate=counts[minute] / 60,
                each=total / counts[minute],
                together=together,
                processes=processes,
                function=name,
                share=part / 1000 / total,
            )
    return best


def _counts() -> defaultdict[str, int]:
    return defaultdict(int)


def _alive(numbers: Numbers, minute: int) -> int:
    """Count the processes that were there in a minute, so far as is known."""
    begin, end = minute * 60.0, (minute + 1) * 60.0
    return sum(p.began < end and p.seen >= begin for p in numbers.processes)


def _pending(numbers: Numbers) -> Iterator[Advice]:
    looks = _looks(numbers, "max_pending")
    if looks is None:
        return
    found, of, surely = looks
    limit = numbers.limit("max_pending", 0)
    sentence = (
        f"A process had {limit:,.0f} calls pending, which is all that it takes, at "
        f"{found:,} of {calls(of, 'look')} ({percent(found / of)}). Calls come quicker "
        "than they are done: give them more threads or processes, or put the longest "
        "ones on a queue; a higher max_pending only takes more memory."
    )
    yield Advice.of(
        "limit",
        found / of,
        "max_pending",
        sentence,
        {"limit": limit, "looks": of, "looks_met": found, "share_at_least": surely},
    )
