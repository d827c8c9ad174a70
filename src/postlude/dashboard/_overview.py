"""From a store's numbers to what the overview shows. No I/O."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from postlude.dashboard import _text
from postlude.dashboard._spread import Spread

if TYPE_CHECKING:
    from postlude.failures import ProcessRecord, Tally

FAILING = frozenset({"failed", "timed_out", "lost"})
RAN = frozenset({"done", "failed", "timed_out", "handed_over"})
ALIVE = 150.0
"""Seconds for which a process is shown after it was last seen: it tells once a minute,
and may miss one."""
SILENT = 20.0
"""Seconds after which what a busy process said last is called old: it tells every 5."""

_REASONS = {
    "outcome": "The response was an error, or the unit failed.",
    "rollback": "The transaction around the call was rolled back.",
    "cancelled": "The call was cancelled before it began.",
    "replaced": "A later call of the same name took its place.",
    "overflow": "Too many calls were waiting (the setting max_pending).",
}
_MOST = 40
"""Functions and routes that are shown."""


class Period(NamedTuple):
    """How far back one looks, and in how many steps."""

    key: str
    name: str
    minutes: int
    step: int
    """Minutes of one bar; above 48 hours whole hours, as numbers are kept by then."""

    @property
    def seconds(self) -> int:
        """Its length."""
        return self.minutes * 60

    @property
    def step_name(self) -> str:
        """The length of one bar."""
        return "minute" if self.step == 1 else _text.seconds(self.step * 60)


PERIODS = {
    period.key: period
    for period in (
        Period("1h", "hour", 60, 1),
        Period("24h", "24 hours", 24 * 60, 15),
        Period("7d", "7 days", 7 * 24 * 60, 120),
        Period("30d", "30 days", 30 * 24 * 60, 480),
    )
}


class Bar(NamedTuple):
    """One step of the plot of throughput; heights out of 100."""

    place: int
    ran: int
    failed: int
    ran_height: float
    failed_height: float
    when: str


class Timeline(NamedTuple):
    """Throughput over time."""

    bars: list[Bar]
    steps: int
    top: int
    """The number at the upper end of the scale."""
    per_minute: float


class Function(NamedTuple):
    """What became of the calls of one function."""

    name: str
    calls: int
    failed: int
    mean: float
    """Seconds that a call ran."""
    delay: Spread
    duration: Spread

    @property
    def module(self) -> str:
        """Where it is defined."""
        return self.name.partition(":")[0] if ":" in self.name else ""

    @property
    def short(self) -> str:
        """Its name in its module."""
        return self.name.partition(":")[2] or self.name


class Drop(NamedTuple):
    """Calls that were not to run."""

    reason: str
    meaning: str
    calls: int
    share: float


class Saving(NamedTuple):
    """Time that nobody waits for any more."""

    route: str
    units: int
    own: float
    """Seconds until the last byte, on average."""
    all: float
    """The same with the calls in it."""

    @property
    def total(self) -> float:
        """Seconds saved in the whole period."""
        return (self.all - self.own) * self.units

    @property
    def share(self) -> float:
        """What is left, out of 100."""
        return 100 * self.own / self.all if self.all else 100.0


class Running(NamedTuple):
    """A call that runs now."""

    name: str
    site: str
    age: float
    process: str
    is_slow: bool


class Overview(NamedTuple):
    """All that the page shows."""

    period: Period
    running: list[Running]
    pending: int
    processes: Sequence[ProcessRecord]
    silent: set[str]
    """Ids of processes that should have told something by now."""
    states: dict[str, int]
    timeline: Timeline
    functions: list[Function]
    more_functions: int
    drops: list[Drop]
    savings: list[Saving]

    @property
    def ran(self) -> int:
        """Calls that ran, well or not."""
        return sum(self.states.get(state, 0) for state in RAN)

    @property
    def failed(self) -> int:
        """Calls that failed, timed out or were lost."""
        return sum(self.states.get(state, 0) for state in FAILING)

    @property
    def saved(self) -> float:
        """Seconds that users did not wait."""
        return sum(saving.total for saving in self.savings)

    @classmethod
    def of(
        cls,
        tallies: Iterable[Tally],
        processes: Sequence[ProcessRecord],
        period: Period,
        now: float,
    ) -> Overview:
        """Add up."""
        kinds: dict[str, list[Tally]] = defaultdict(list)
        for tally in tallies:
            kinds[tally.kind].append(tally)
        ended = kinds["ended"]
        states: dict[str, int] = defaultdict(int)
        for tally in ended:
            states[tally.label] += tally.count
        functions = _functions(ended, kinds["delay"], kinds["duration"])
        alive = [p for p in processes if now - p.seen < ALIVE]
        return cls(
            period=period,
            running=_running(alive, now),
            pending=sum(process.pending for process in alive),
            processes=alive,
            silent={p.id for p in alive if p.running and now - p.seen > SILENT},
            states=dict(states),
            timeline=_timeline(ended, period, now),
            functions=functions[:_MOST],
            more_functions=max(0, len(functions) - _MOST),
            drops=_drops(states),
            savings=_savings(ended, kinds["unit"])[:_MOST],
        )


def _running(processes: Iterable[ProcessRecord], now: float) -> list[Running]:
    """Give the calls of all processes, the oldest first."""
    found = [
        Running(
            name,
            site,
            max(0.0, now - began),
            f"{process.host}:{process.pid}",
            now - began >= process.limits.get("soft_limit", 5.0),
        )
        for process in processes
        for name, site, began in process.running
    ]
    return sorted(found, key=lambda running: -running.age)


def _timeline(ended: Iterable[Tally], period: Period, now: float) -> Timeline:
    steps = period.minutes // period.step
    first = int(now // 60) // period.step - steps + 1
    ran, failed = [0] * steps, [0] * steps
    for tally in ended:
        place = tally.minute // period.step - first
        if not 0 <= place < steps:
            continue
        if tally.label in FAILING:
            failed[place] += tally.count
        elif tally.label in RAN:
            ran[place] += tally.count
    highest = max(a + b for a, b in zip(ran, failed, strict=True))
    top = _nice(highest)
    bars = [
        Bar(
            place=i,
            ran=a,
            failed=b,
            ran_height=100 * a / top,
            # A failure among thousands of calls is what one wants to see.
            failed_height=max(2.0, 100 * b / top) if b else 0.0,
            when=_text.moment((first + i) * period.step * 60),
        )
        for i, (a, b) in enumerate(zip(ran, failed, strict=True))
        if a or b
    ]
    return Timeline(bars, steps, top, (sum(ran) + sum(failed)) / period.minutes)


def _nice(highest: int) -> int:
    """Give the next number that people read easily on a scale, and halve."""
    size = 1
    while True:
        for step in (2, 4, 10):
            if step * size >= highest:
                return step * size
        size *= 10


def _functions(
    ended: Iterable[Tally], delays: Iterable[Tally], durations: Iterable[Tally]
) -> list[Function]:
    calls: dict[str, int] = defaultdict(int)
    ran: dict[str, int] = defaultdict(int)
    failed: dict[str, int] = defaultdict(int)
    total: dict[str, float] = defaultdict(float)
    for tally in ended:
        calls[tally.function] += tally.count
        total[tally.function] += tally.total
        if tally.label in RAN:
            ran[tally.function] += tally.count
        if tally.label in FAILING:
            failed[tally.function] += tally.count
    delay, duration = _by_label(delays), _by_label(durations)
    found = [
        Function(
            name=name,
            calls=calls[name],
            failed=failed[name],
            mean=total[name] / ran[name] if ran[name] else 0.0,
            delay=Spread.of(delay[name]),
            duration=Spread.of(duration[name]),
        )
        for name in calls
    ]
    return sorted(found, key=lambda f: (-f.calls, f.name))


def _by_label(tallies: Iterable[Tally]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for tally in tallies:
        found[tally.function][tally.label] += tally.count
    return found


def _drops(states: dict[str, int]) -> list[Drop]:
    found = {
        label.partition(":")[2] or "unknown": count
        for label, count in states.items()
        if label.startswith("dropped")
    }
    highest = max(found.values(), default=1)
    return [
        Drop(reason, _REASONS.get(reason, ""), count, 100 * count / highest)
        for reason, count in sorted(found.items(), key=lambda item: -item[1])
    ]


def _savings(ended: Iterable[Tally], units: Iterable[Tally]) -> list[Saving]:
    """Compare how long users waited with how long they would have (a fair guess).

    Only routes: nobody waits for the answer of a block or a command.
    """
    count: dict[str, int] = defaultdict(int)
    own: dict[str, float] = defaultdict(float)
    calls: dict[str, float] = defaultdict(float)
    for tally in units:
        count[tally.route] += tally.count
        own[tally.route] += tally.total
    for tally in ended:
        calls[tally.route] += tally.total
    found = [
        Saving(route, n, own[route] / n, (own[route] + calls[route]) / n)
        for route, n in count.items()
        if n and "/" in route and calls[route] > 0
    ]
    return sorted(found, key=lambda saving: -saving.total)
