"""Functions that break the five-second rule, that fail, and that are rolled back."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from postlude.advice._advice import Advice, calls, duration, percent
from postlude.advice._numbers import at_least, most_common

if TYPE_CHECKING:
    from postlude.advice._numbers import Function, Numbers
    from postlude.failures import FailureRecord

SAMPLE = 20
"""Calls of a function below which no share of them is spoken of."""
_HITS = 3
"""Calls that a finding stands on at least: one or two may be chance."""
_SLOW_SHARE = 0.05
"""A function is too slow if more than this share of its calls is, with 95 %
confidence. A rare outlier wants a `.timeout()`, not a queue."""
_FAIL_SHARE = 0.02
"""The same for failures: a queue earns its keep from one in fifty on."""
_BROKEN_SHARE = 0.5
"""The same, from which on it is no bad luck that another attempt would mend."""
_ROLLBACK_SHARE = 0.1
_SOFT_LIMIT = 5.0

_BUGS = frozenset(
    {
        "AssertionError",
        "AttributeError",
        "ImportError",
        "IndexError",
        "KeyError",
        "LookupError",
        "ModuleNotFoundError",
        "NameError",
        "NotImplementedError",
        "RecursionError",
        "TypeError",
        "UnboundLocalError",
        "UncommittedError",
        "UnicodeDecodeError",
        "UnicodeEncodeError",
        "ZeroDivisionError",
    }
)
"""What the next attempt would raise again."""
_MOSTLY = 0.8


def slow(numbers: Numbers) -> Iterator[Advice]:
    """Give the functions that break the five-second rule."""
    soft_limit = numbers.limit("soft_limit", _SOFT_LIMIT)
    for function in numbers.functions.values():
        of = function.durations.count
        over, limit = function.durations.over(soft_limit)
        surely = at_least(over, of)
        if over < _HITS or of < SAMPLE or surely < _SLOW_SHARE:
            continue
        floor = function.durations.floor()
        slowest = f", and the slowest for more than {duration(floor)}"
        sentence = (
            f"{function.name} ran for more than {duration(limit)} in {over:,} of "
            f"{calls(of)} ({percent(over / of)}; {_confident(surely)})"
            f"{slowest if floor > limit else ''}. Work over {duration(soft_limit)} "
            "belongs on a queue, `queue(fn, ...)` in place of `defer(fn, ...)`: no "
            "restart waits for it for long, and what is cut off is lost."
            f"{_from(function)}"
        )
        yield Advice.of(
            "slow",
            over / of * 10,
            function.name,
            sentence,
            {
                "calls": of,
                "over": over,
                "limit": limit,
                "share_at_least": surely,
                "slowest_over": floor,
            },
        )


def failing(numbers: Numbers, records: Sequence[FailureRecord]) -> Iterator[Advice]:
    """Give the functions that fail so often that something must be done."""
    kept: dict[str, list[FailureRecord]] = {}
    for record in records:
        if record.state in {"failed", "timed_out"}:
            kept.setdefault(record.function, []).append(record)
    for function in numbers.functions.values():
        of, failed = function.ran, function.failed
        surely = at_least(failed, of)
        if failed < _HITS or of < SAMPLE or surely < _FAIL_SHARE:
            continue
        yield _failing(function, kept.get(function.name, []), surely)


def _failing(
    function: Function, records: Sequence[FailureRecord], surely: float
) -> Advice:
    of, failed = function.ran, function.failed
    kinds = Counter(map(_kind, records))
    kind, most = most_common(kinds)
    bugs = sum(
        count for name, count in kinds.items() if name.rpartition(".")[2] in _BUGS
    )
    hinted = sum(record.hint is not None for record in records)
    start = (
        f"{function.name} failed in {failed:,} of {calls(of)} ({percent(failed / of)}; "
        f"{_confident(surely)})"
    )
    if kind:
        start += f", with {kind} in {most:,} of {calls(len(records), 'record')} kept"
    evidence: dict[str, float | str] = {
        "calls": of,
        "failed": function.states["failed"],
        "timed_out": function.states["timed_out"],
        "share_at_least": surely,
        "records": len(records),
        "exception": kind,
        "exception_records": most,
        "bug_records": bugs,
        "hinted_records": hinted,
    }
    enough = len(records) >= _HITS
    if enough and (max(bugs, hinted) >= _MOSTLY * len(records)):
        end = (
            ". Such an error comes again at every attempt, so a queue would only "
            "repeat it: fix it first. The newest: "
            f"`postlude failures show {records[-1].id[:8]}`."
        )
        return Advice.of(
            "broken", failed / of * 10, function.name, start + end, evidence
        )
    if surely >= _BROKEN_SHARE:
        end = (
            ". That is most of the time, and more than another attempt mends: look at "
            "what it needs before it goes on a queue."
        )
        return Advice.of(
            "broken", failed / of * 10, function.name, start + end, evidence
        )
    late = function.states["timed_out"]
    own = f" {late:,} of them had their `.timeout()`." if late else ""
    end = (
        f".{own} A plain deferred call is not tried again: if it must arrive, add "
        f"`.retry(3)`, and only its failures go to the queue.{_from(function)}"
    )
    return Advice.of("queue", failed / of * 10, function.name, start + end, evidence)


def rolled_back(numbers: Numbers) -> Iterator[Advice]:
    """Give the functions whose calls are often dropped by a rollback."""
    for function in numbers.functions.values():
        dropped = function.states["dropped:rollback"]
        of = function.ran + dropped
        surely = at_least(dropped, of)
        if dropped < _HITS or of < SAMPLE or surely < _ROLLBACK_SHARE:
            continue
        sentence = (
            f"{dropped:,} of {calls(of)} of {function.name} ({percent(dropped / of)}; "
            f"{_confident(surely)}) did not run, because their transaction was rolled "
            "back. That is the rule; what must run all the same says "
            f"`.after_commit(False)` or `.always()`.{_from(function)}"
        )
        yield Advice.of(
            "rollback",
            dropped / of * 10,
            function.name,
            sentence,
            {"calls": of, "dropped": dropped, "share_at_least": surely},
        )


def _confident(share: float) -> str:
    return f"at least {percent(share)} with 95 % confidence"


def _from(function: Function) -> str:
    route, count = most_common(function.routes)
    if not route:
        return ""
    if count == sum(function.routes.values()):
        return f" All of them come from {route}."
    return f" Most come from {route} ({count:,})."


_NAME = re.compile(r"[\w.]+")


def _kind(record: FailureRecord) -> str:
    """Give the type of a record's exception."""
    if record.state == "timed_out":
        return ".timeout()"
    match = _NAME.match((record.exception or "").lstrip("<"))
    return match.group()[:80] if match else "an unknown error"
