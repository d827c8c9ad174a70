"""`cpu`: what Postlude adds to the CPU time of a request of the smallest app."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks import load
from benchmarks.figures import Figure, Result, paired
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
    """CPU time per request, divided by that of the bare app in the same round."""

    name = "cpu"

    def steps(self, effort: Effort) -> int:
        """Count one step per app and round."""
        return sum(len(variants) for *_, variants in APPS) * (effort.rounds + 1)

    def missing(self) -> str | None:
        """Need wrk."""
        return load.missing()

    def run(self, bench: Bench) -> Result:
        """Take the measure, framework by framework."""
        result = Result()
        for name, command, app, variants in APPS:
            costs = compare(bench, name, command, app, variants)
            result.figures += _figures(name, costs)
            result.details[name] = {
                variant.label: [round(cost, 2) for cost in rounds]
                for variant, rounds in costs.items()
            }
        return result


def compare(
    bench: Bench,
    name: str,
    command: tuple[str, ...],
    app: str,
    variants: tuple[Variant, ...],
) -> dict[Variant, list[float]]:
    """Measure the variants of an app side by side: µs of CPU per request and round."""
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
    costs = _rounds(bench, servers)
    stop(bench.processes, list(servers.values()))
    return costs


def _rounds(bench: Bench, servers: dict[Variant, Server]) -> dict[Variant, list[float]]:
    costs: dict[Variant, list[float]] = {variant: [] for variant in servers}
    for number in range(bench.effort.rounds + 1):
        variants = list(servers)
        first = number % len(variants)
        for variant in variants[first:] + variants[:first]:
            server = servers[variant]
            bench.step(f"{server.name}, round {number}")
            seconds = bench.effort.cpu_seconds
            window = load.put(bench.processes, server, seconds, variant.calls)
            if number:
                costs[variant].append(window.cpu_per_request)
    return costs


def _figures(name: str, costs: dict[Variant, list[float]]) -> list[Figure]:
    bare = costs[BARE]
    cost = Figure("cpu", "bare", "µs", tuple(bare), server=name)
    return [cost] + [
        Figure(
            "cpu",
            variant.label,
            "ratio",
            paired(rounds, bare),
            variant.target,
            name,
        )
        for variant, rounds in costs.items()
        if variant is not BARE
    ]
