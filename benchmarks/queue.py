"""`queue`: what `.retry()` and `.durable()` add to a request, on SQLite."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks import load
from benchmarks.cpu import Variant, compare, figures
from benchmarks.figures import Figure, Result, paired, percentile
from benchmarks.servers import UVICORN, Server, stop
from benchmarks.wire import Connection, request_for

if TYPE_CHECKING:
    from benchmarks.bench import Bench, Effort

SERVER = "Starlette/uvicorn, queue in a SQLite file"
PLAIN = Variant("one call in memory", "plain", calls=1)
AGAIN = Variant("in memory against itself", "plain", calls=1)
RETRY = Variant("with .retry(3)", "retry", calls=1, target=1.02)
DURABLE = Variant("with .durable()", "durable", calls=1)
VARIANTS = (PLAIN, AGAIN, RETRY, DURABLE)
USING = tuple(replace(one, label=f"{one.label}, CPU", target=None) for one in VARIANTS)
"""The same, of whose CPU time nothing is asked."""
SHARES = ((50, 2.0), (95, None))
"""Percentiles, and the milliseconds that `.durable()` may add there."""
THINKING = 0.002, 0.006
"""Seconds between an answer and the next request."""

Samples = dict[Variant, list[list[float]]]


class Queue:
    """Time to the last byte, and CPU time, of a request with one backed call."""

    name = "queue"

    def steps(self, effort: Effort) -> int:
        """Count two steps per app and round, and one for the plainest."""
        return (2 * len(VARIANTS) - 1) * (effort.rounds + 1)

    def missing(self) -> str | None:
        """Need wrk."""
        return load.missing()

    def run(self, bench: Bench) -> Result:
        """Take the measure."""
        samples = _waits(bench)
        costs = compare(bench, SERVER, UVICORN, "queued", USING)
        used = figures("queue", SERVER, USING[0], costs)
        return Result(figures=[*_added(samples), *used])


def _waits(bench: Bench) -> Samples:
    servers = {
        variant: Server(
            bench.processes,
            f"{SERVER} {variant.label}",
            UVICORN,
            "queued",
            {"BENCH_VARIANT": variant.name},
        )
        for variant in VARIANTS
    }
    for server in servers.values():
        server.wait_until_ready()
    samples: Samples = {variant: [] for variant in VARIANTS}
    for number in range(bench.effort.rounds + 1):
        first = number % len(VARIANTS)
        for variant in VARIANTS[first:] + VARIANTS[:first]:
            bench.step(f"{servers[variant].name}, round {number}")
            seconds = _customer(servers[variant], bench.effort.orders, seed=number)
            if number:
                samples[variant].append(seconds)
    stop(bench.processes, list(servers.values()))
    return samples


def _customer(server: Server, requests: int, seed: int) -> list[float]:
    """Ask again and again over one connection, with a pause to think; time each."""
    pauses = random.Random(seed)  # noqa: S311 - pauses, no secrets
    request = request_for(server.port, "/")
    before = server.ran()
    connection = Connection(server.port)
    seconds: list[float] = []
    try:
        for _ in range(requests):
            seconds.append(connection.exchange(request).seconds)
            time.sleep(pauses.uniform(*THINKING))
    finally:
        connection.close()
    server.expect_ran(before, requests, requests)
    return seconds


def _added(samples: Samples) -> list[Figure]:
    figures: list[Figure] = []
    for share, most in SHARES:
        at = {
            variant: [percentile(each, share / 100) for each in rounds]
            for variant, rounds in samples.items()
        }
        for variant in (AGAIN, RETRY):
            label = f"{variant.label}, p{share}"
            ratios = paired(at[variant], at[PLAIN])
            target = variant.target if share == SHARES[0][0] else None
            figures.append(Figure("queue", label, "ratio", ratios, target, SERVER))
        added = tuple(
            (one - other) * 1e6
            for one, other in zip(at[DURABLE], at[PLAIN], strict=True)
        )
        label = f".durable() adds, p{share}"
        target = None if most is None else most * 1e3
        figures.append(Figure("queue", label, "µs", added, target, SERVER))
    return figures
