"""The command that shows the numbers: how often, how long, how much time was saved."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from postlude.cli._output import STATES, Output, duration, plural, shown
from postlude.cli._places import App, Json, Place, Where, moment, opened
from postlude.failures._attempt import lives
from postlude.failures._tallies import LABELS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postlude.failures import ProcessRecord, Tally

_LIVES = 150.0
"""Seconds after its last look in which a process counts as alive: they look once a
minute at least."""


class _Histogram:
    """Calls by upper bound."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def quantile(self, part: float) -> str | None:
        """Give the label of the bucket in which that part of the calls has ended."""
        wanted = part * self.counts.total()
        passed = 0
        for label in LABELS:
            passed += self.counts[label]
            if passed and passed >= wanted:
                return label
        return None

    def as_json(self) -> dict[str, float | None] | None:
        """Give upper bounds in seconds; None for what is beyond the last."""
        if not self.counts:
            return None
        return {
            f"{name}_at_most": None if label in {None, "inf"} else float(label or 0)
            for name, label in (
                ("p50", self.quantile(0.5)),
                ("p95", self.quantile(0.95)),
            )
        }


class _Function:
    """What is known of one function."""

    def __init__(self) -> None:
        self.states: Counter[str] = Counter()
        self.duration = _Histogram()
        self.delay = _Histogram()


class _Route(NamedTuple):
    """What the users of one route wait, and what they would without Postlude."""

    units: int
    waits: float
    """Seconds, on average; so is the next."""
    deferred: float


class Numbers:
    """Tallies, put together for people."""

    def __init__(self, tallies: Iterable[Tally], since: float, now: float) -> None:
        self.functions: defaultdict[str, _Function] = defaultdict(_Function)
        units: dict[str, tuple[int, float]] = {}
        ran: Counter[str] = Counter()
        seconds: defaultdict[str, float] = defaultdict(float)
        first = now
        for tally in tallies:
            first = min(first, tally.minute * 60.0)
            function = tally.function
            match tally.kind:
                case "ended":
                    self.functions[function].states[tally.label] += tally.count
                    ran[tally.route] += tally.count
                    seconds[tally.route] += tally.total
                case "duration":
                    counts = self.functions[function].duration.counts
                    counts[tally.label] += tally.count
                case "delay":
                    counts = self.functions[function].delay.counts
                    counts[tally.label] += tally.count
                case "unit":
                    count, total = units.get(tally.route, (0, 0.0))
                    units[tally.route] = count + tally.count, total + tally.total
                case _:
                    pass
        self.minutes = max(1.0, (now - max(first, since)) / 60)
        """Of how long there are numbers."""
        self.routes = {
            route: _Route(count, total / count, seconds[route] / count)
            for route, (count, total) in units.items()
            if count and ran[route] and route
        }

    def rate(self, function: str) -> float:
        """Give the calls per minute."""
        return self.functions[function].states.total() / self.minutes

    def as_json(self) -> dict[str, object]:
        """Give all of it for machines."""
        functions = [
            {
                "function": name,
                "calls": one.states.total(),
                "per_minute": self.rate(name),
                "states": dict(one.states),
                "duration": one.duration.as_json(),
                "start_delay": one.delay.as_json(),
            }
            for name, one in self.by_calls()
        ]
        routes = [
            {
                "route": name,
                "units": one.units,
                "waits": one.waits,
                "instead_of": one.waits + one.deferred,
                "saved": one.deferred * one.units,
            }
            for name, one in self.by_saved()
        ]
        return {"minutes": self.minutes, "functions": functions, "routes": routes}

    def by_calls(self) -> list[tuple[str, _Function]]:
        """Give the functions, the most called first."""
        return sorted(
            self.functions.items(), key=lambda item: (-item[1].states.total(), item[0])
        )

    def by_saved(self) -> list[tuple[str, _Route]]:
        """Give the routes, that with the most time saved first."""
        return sorted(
            self.routes.items(),
            key=lambda item: (-item[1].deferred * item[1].units, item[0]),
        )


def stats(
    ctx: typer.Context,
    place: Place = None,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="From then on: 2h, 1d, 2w.")
    ] = "1d",
    where: Where = None,
    app: App = None,
    json: Json = False,
) -> None:
    """Show numbers by function and by route: how often, how long, time saved."""
    output = ctx.find_object(Output) or Output()
    store = opened(output, place or where, app)
    begin, now = moment(since) or 0.0, time.time()
    numbers = Numbers(store.tallies(begin), begin, now)
    processes = [
        process
        for process in store.processes(now - _LIVES)
        if lives(process.host, process.pid, unknown=True)
    ]
    if json:
        alive = {
            "processes": len(processes),
            "running": sum(len(one.running) for one in processes),
            "pending": sum(one.pending for one in processes),
        }
        output.json({"since": begin, "now": alive, **numbers.as_json()})
        return
    output.print(_now(processes))
    if not numbers.functions:
        output.print(shown(f"No calls were counted since {since}.", "dim"))
        return
    parts: list[RenderableType] = [Text(), _functions(numbers, output)]
    if numbers.routes:
        parts += [Text(), _routes(numbers, output)]
    output.print(Group(*parts))


def _now(processes: list[ProcessRecord]) -> str:
    running = sum(len(one.running) for one in processes)
    pending = sum(one.pending for one in processes)
    return (
        f"Now: {plural(len(processes), 'process', 'processes')}, "
        f"{plural(running, 'call')} running, {pending:,} pending."
    )


def _table(output: Output, first: str, *titles: str) -> Table:
    """Make a table whose first column gives way on a narrow terminal."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(first, overflow="fold", ratio=1 if not output.is_wide else None)
    for title in titles:
        table.add_column(title, justify="right", no_wrap=output.is_wide)
    return table


def _functions(numbers: Numbers, output: Output) -> Table:
    titles = ["Calls", "Ended as", "Ran p50", "p95"]
    if output.is_wide:
        titles += ["Began after p50", "p95", "Per min"]
    table = _table(output, "Function", *titles)
    for name, one in numbers.by_calls():
        cells: list[str | Text] = [
            f"{one.states.total():,}",
            _states(one.states),
            _bound(one.duration.quantile(0.5)),
            _bound(one.duration.quantile(0.95)),
        ]
        if output.is_wide:
            cells += [
                _bound(one.delay.quantile(0.5)),
                _bound(one.delay.quantile(0.95)),
                f"{numbers.rate(name):.3g}",
            ]
        table.add_row(shown(name), *cells)
    return table


def _states(states: Counter[str]) -> Text:
    parts = [
        Text(f"{count:,} ").append_text(shown(state, STATES.get(state, "")))
        for state, count in states.most_common()
    ]
    return Text("\n").join(parts)


def _bound(label: str | None) -> str:
    if label is None:
        return "-"
    if label == "inf":
        return f"> {duration(float(LABELS[-2]))}"
    return f"≤ {duration(float(label))}"


def _routes(numbers: Numbers, output: Output) -> Table:
    titles = ("Units", "User waits", "Instead of", "Saved in all")
    table = _table(output, "Route", *titles)
    for name, one in numbers.by_saved():
        table.add_row(
            shown(name),
            f"{one.units:,}",
            duration(one.waits),
            duration(one.waits + one.deferred),
            duration(one.deferred * one.units),
        )
    return table
