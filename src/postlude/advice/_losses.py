"""Calls that never ran, or were cut off: at shutdown, and at the bound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, inf
from typing import TYPE_CHECKING, NamedTuple

from postlude.advice._advice import Advice, calls, duration
from postlude.advice._functions import SAMPLE

if TYPE_CHECKING:
    from postlude.advice._numbers import Function, Numbers
    from postlude.failures import FailureRecord, ProcessRecord

_SILENCE = 70.0
"""Seconds after which a process that lives has been seen again: once a minute, and
some for a slow store."""
_USUAL_KILL = 30.0
"""Seconds that container runtimes wait between SIGTERM and SIGKILL: Docker 10,
Kubernetes 30."""
_MARGIN = 2.0
_CUT = 0.05
"""Share of a function's runs that may have been cut off for its times to count."""


class _Ends(NamedTuple):
    """How a function's lost calls were lost."""

    running: int
    """Cut off while they ran, by the end of their process."""
    waiting: int
    """Not begun at the end of their process."""
    alive: int
    """Lost in a process that went on."""
    unknown: int
    processes: int
    """That ended."""


def lost(
    numbers: Numbers, records: Sequence[FailureRecord], now: float
) -> Iterator[Advice]:
    """Give the functions that lost calls. One is enough: it is a fact, no sample."""
    kept: dict[str, list[FailureRecord]] = {}
    for record in records:
        if record.state == "lost":
            kept.setdefault(record.function, []).append(record)
    names = {f.name for f in numbers.functions.values() if f.states["lost"] > 0}
    for name in sorted(names | set(kept)):
        found = kept.get(name, [])
        ends = _ends(found, numbers.processes, now)
        yield _lost(numbers, numbers.function(name), found, ends)


def _ends(
    records: Sequence[FailureRecord], processes: Sequence[ProcessRecord], now: float
) -> _Ends:
    running = waiting = alive = unknown = 0
    ended: set[str] = set()
    for record in records:
        process = _process(record, processes)
        if process is None or now - record.ended < _SILENCE:
            unknown += 1
        elif process.seen > record.ended + _SILENCE:
            alive += 1
        else:
            ended.add(process.id)
            running += record.started is not None
            waiting += record.started is None
    return _Ends(running, waiting, alive, unknown, len(ended))


def _process(
    record: FailureRecord, processes: Sequence[ProcessRecord]
) -> ProcessRecord | None:
    """Find the process that a record is of; a number may have been used again."""
    mine = [
        process
        for process in processes
        if (process.host, process.pid) == (record.host, record.pid)
        and process.began <= record.ended
    ]
    return max(mine, key=lambda process: process.began, default=None)


def _lost(
    numbers: Numbers,
    function: Function,
    records: Sequence[FailureRecord],
    ends: _Ends,
) -> Advice:
    count = max(function.states["lost"], len(records))
    at_end = ends.running + ends.waiting
    evidence: dict[str, float | str] = {
        "lost": count,
        "records": len(records),
        "cut_off_running": ends.running,
        "not_begun": ends.waiting,
        "process_went_on": ends.alive,
        "processes_ended": ends.processes,
    }
    sentence = f"{calls(count)} of {function.name} {_were(count)} lost"
    if at_end:
        part = "" if at_end == count else f", {at_end:,} of them"
        sentence += (
            f"{part} when {calls(ends.processes, 'process')} ended: "
            f"{ends.running:,} had begun, {ends.waiting:,} had not"
        )
    sentence += "."
    if at_end:
        sentence += _grace(numbers, function, ends, evidence)
    if ends.alive:
        sentence += (
            f" {ends.alive:,} in a process that went on: usually a transaction that "
            "nobody ended within commit_wait, or an event loop that was closed."
        )
    if ends.unknown and not (at_end or ends.alive):
        sentence += " Their records do not show yet whether their process ended."
    if records:
        sentence += f" The newest was deferred at {records[-1].site}."
    return Advice.of("lost", count, function.name, sentence, evidence)


def _grace(
    numbers: Numbers,
    function: Function,
    ends: _Ends,
    evidence: dict[str, float | str],
) -> str:
    """Say what grace would have held them, if the times of that function tell."""
    known = [p.limits["grace"] for p in numbers.processes if "grace" in p.limits]
    of = function.durations.count
    if not known or of < SAMPLE or function.states["lost"] > _CUT * of:
        return ""
    grace = min(known)
    p95 = function.durations.most(0.95)
    evidence.update({"grace": grace, "runs": of})
    if p95 < inf:
        evidence["p95_at_most"] = p95
    if p95 > _USUAL_KILL:
        return (
            f" The grace is {duration(grace)}, and more than 1 of 20 runs takes longer "
            f"than {duration(_USUAL_KILL)}, which no usual shutdown waits: give it to "
            "`queue()`, or add `.durable()`."
        )
    if p95 > grace:
        kill = ceil(p95 + _MARGIN)
        return (
            f" The grace is {duration(grace)}, and 95 of 100 runs take at most "
            f"{duration(p95)}: set grace={p95:g}, and give the process {kill} s "
            "between SIGTERM and SIGKILL."
        )
    if ends.waiting > ends.running:
        return (
            f" 95 of 100 runs take at most {duration(p95)} and the grace is "
            f"{duration(grace)}, so they waited behind others: more threads, a longer "
            "grace, or `.durable()` for what must not be lost."
        )
    return (
        f" 95 of 100 runs take at most {duration(p95)} and the grace is "
        f"{duration(grace)}, so these were unusual: a `.timeout()` keeps such "
        "calls from holding the shutdown."
    )


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def overflowed(numbers: Numbers) -> Iterator[Advice]:
    """Give the calls that were dropped at `max_pending`."""
    by_function = {
        f.name: f.states["dropped:overflow"]
        for f in numbers.functions.values()
        if f.states["dropped:overflow"]
    }
    count = sum(by_function.values())
    if not count:
        return
    name, most = max(sorted(by_function.items()), key=lambda pair: pair[1])
    evidence: dict[str, float | str] = {
        "dropped": count,
        "functions": len(by_function),
        "function": name,
        "function_dropped": most,
    }
    bound = ""
    if any("max_pending" in process.limits for process in numbers.processes):
        limit = numbers.limit("max_pending", 0)
        evidence["max_pending"] = limit
        bound = f" of {limit:,.0f}"
    sentence = (
        f"{calls(count)} {_were(count)} dropped at the bound{bound} pending calls, "
        f"{most:,} of them of {name}. Set overflow='wait', and the requests wait for "
        "their own calls after their response instead; nothing is lost then."
    )
    yield Advice.of("overflow", count, "overflow", sentence, evidence)
