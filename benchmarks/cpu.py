"""`cpu`: what Postlude adds to the CPU time of a request of the smallest app."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks import load
from benchmarks.figures import Figure, Result
from benchmarks.servers import GUNICORN, UVICORN, Server, stop

if TYPE_CHECKING:
    from benchmarks.bench import Bench, Effort

STARLETTE = "Starlette/uvicorn"
FLASK = "Flask/gunicorn gthread"


@dataclass(frozen=True, slots=True)
class Variant:
    """One app beside the bare one."""

    label: str
    name: str
    way: str = ""
    """How Postlude comes in: `install(app)`, `PostludeMiddleware(app)`, or not."""
    calls: int = 0
    target: float | None = None


Costs = dict[Variant, list[tuple[float, float]]]
"""Per round, µs of CPU for a request: of the variant, and of the first beside it."""

BARE = Variant("bare", "bare")
AGAIN = Variant("bare against itself", "bare")
ON_STARLETTE = (
    BARE,
    AGAIN,
    Variant("installed, unused", "unused", "install", 0, 1.06),
    Variant("one async no-op", "async1", "install", 1, 1.25),
    Variant("one sync no-op", "sync1", "install", 1, 1.30),
    Variant("four sync no-ops", "sync4", "install", 4, 1.35),
    Variant("four async no-ops", "async4", "install", 4),
    Variant("wrapped, unused", "unused", "wrap", 0, 1.06),
    Variant("wrapped, one async no-op", "async1", "wrap", 1, 1.25),
    Variant("wrapped, one sync no-op", "sync1", "wrap", 1, 1.30),
    Variant("wrapped, four sync no-ops", "sync4", "wrap", 4, 1.35),
    Variant("Starlette's task, async", "background-async", "", 1),
    Variant("Starlette's task, sync", "background-sync", "", 1),
)
ON_FLASK = (BARE, AGAIN, Variant("installed, unused", "unused", "install", 0, 1.03))
APPS = (
    (STARLETTE, UVICORN, "smallest_starlette", ON_STARLETTE),
    (FLASK, GUNICORN, "smallest_flask", ON_FLASK),
)


class Cpu:
    """CPU time per request, divided by that of the bare app beside it."""

    name = "cpu"

    def steps(self, effort: Effort) -> int:
        """Count one step per app and round, but none for the bare one."""
        return sum(len(variants) - 1 for *_, variants in APPS) * (effort.rounds + 1)

    def missing(self) -> str | None:
        """Need wrk."""
        return load.missing()

    def run(self, bench: Bench) -> Result:
        """Take the measure, framework by framework."""
        result = Result()
        for name, command, app, variants in APPS:
            costs = compare(bench, name, command, app, variants)
            result.figures += figures(self.name, name, BARE, costs)
            result.details[name] = {
                variant.label: [
                    (round(cost, 2), round(base, 2)) for cost, base in pairs
                ]
                for variant, pairs in costs.items()
            }
        return result


def compare(
    bench: Bench,
    name: str,
    command: tuple[str, ...],
    app: str,
    variants: tuple[Variant, ...],
) -> Costs:
    """Measure each variant of an app beside the first, on one core at the same time.

    What else the machine does, and how fast it is just then, is the same for both.
    """
    servers = {
        variant: Server(
            bench.processes,
            f"{name} {variant.label}",
            command,
            app,
            {"BENCH_VARIANT": variant.name, "BENCH_WAY": variant.way},
        )
        for variant in variants
    }
    for server in servers.values():
        server.wait_until_ready()
    costs = _rounds(bench, *variants, servers=servers)
    stop(bench.processes, list(servers.values()))
    return costs


def _rounds(
    bench: Bench, base: Variant, *others: Variant, servers: dict[Variant, Server]
) -> Costs:
    costs: Costs = {variant: [] for variant in others}
    for number in range(bench.effort.rounds + 1):
        for variant in others:
            bench.step(f"{servers[variant].name}, round {number}")
            pair = {servers[one]: one.calls for one in (variant, base)}
            loads = load.put(bench.processes, pair, bench.effort.cpu_seconds)
            if number:
                own, beside = (one.cpu_per_request for one in loads)
                costs[variant].append((own, beside))
    return costs


def figures(measure: str, server: str, base: Variant, costs: Costs) -> list[Figure]:
    """Give what a request of the first variant costs, and the ratios of the others."""
    found = tuple(beside for pairs in costs.values() for _, beside in pairs)
    return [Figure(measure, base.label, "µs", found, server=server)] + [
        Figure(
            measure,
            variant.label,
            "ratio",
            tuple(own / beside for own, beside in pairs),
            variant.target,
            server,
        )
        for variant, pairs in costs.items()
    ]
