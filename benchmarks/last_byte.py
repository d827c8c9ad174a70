"""`last-byte`: what four deferred side effects add to the time the customer waits."""

from __future__ import annotations

import json
import random
import sys
import time
from typing import TYPE_CHECKING

from benchmarks import machine
from benchmarks.figures import Figure, Result, paired, percentile
from benchmarks.processes import BenchmarkError
from benchmarks.servers import (
    GUNICORN,
    UVICORN,
    Server,
    free_port,
    stop,
    wait_until_ready,
)
from benchmarks.wire import Connection, request_for

if TYPE_CHECKING:
    from benchmarks.bench import Bench, Effort

APPS = (
    ("FastAPI/uvicorn", UVICORN, "fastapi_order"),
    ("Flask/gunicorn gthread", GUNICORN, "flask_order"),
    ("Django/gunicorn gthread", GUNICORN, "django_order"),
)
VARIANTS = ("bare", "again", "deferred")
"""`again` is a second process of the bare app: it shows the noise of the measure."""
EFFECTS = 4
SHARES = ((50, 1.02), (95, 1.10))
THINKING = 0.006, 0.018
"""Seconds between an answer and the next request. On average 12 ms: with the order's
5 ms and 80 ms of side effects, those of four or five orders are under way at any time,
and every request meets them."""
ORDER = json.dumps({"sku": "tea", "quantity": 3}).encode()

Samples = dict[str, list[list[float]]]


class LastByte:
    """Time to the last byte of an order, with side effects deferred and without any."""

    name = "last-byte"

    def steps(self, effort: Effort) -> int:
        """Count one step per app and round."""
        return len(APPS) * len(VARIANTS) * (effort.rounds + 1)

    def missing(self) -> str | None:
        """Need nothing but what is installed."""
        return None

    def run(self, bench: Bench) -> Result:
        """Take the measure, framework by framework."""
        result = Result()
        database = _database(bench)
        for name, command, app in APPS:
            servers = {
                variant: Server(
                    bench.processes,
                    f"{name} {variant}",
                    command,
                    app,
                    {"BENCH_VARIANT": variant, "BENCH_DATABASE": database},
                )
                for variant in VARIANTS
            }
            for server in servers.values():
                server.wait_until_ready()
            samples = _rounds(bench, servers)
            stop(bench.processes, list(servers.values()))
            result.figures += _figures(name, samples)
            result.details[name] = {
                variant: _distribution(rounds) for variant, rounds in samples.items()
            }
        return result


def _database(bench: Bench) -> str:
    """Start what the orders are written to; it shares the core of the customers."""
    port, core = free_port(), machine.cores()[1]
    command = [sys.executable, "-m", "benchmarks.database", str(port)]
    process = bench.processes.start("database", command, core)
    wait_until_ready(
        bench.processes, "database", process, lambda: Connection(port).close()
    )
    return str(port)


def _rounds(bench: Bench, servers: dict[str, Server]) -> Samples:
    samples: Samples = {variant: [] for variant in servers}
    for number in range(bench.effort.rounds + 1):
        variants = list(servers)
        # Whoever comes first in a round is another one each time.
        for variant in variants[number % 3 :] + variants[: number % 3]:
            server = servers[variant]
            bench.step(f"{server.name}, round {number}")
            seconds = _customers(server, bench.effort.orders, seed=number)
            if number:
                samples[variant].append(seconds)
    return samples


def _customers(server: Server, orders: int, seed: int) -> list[float]:
    """Order again and again over one connection, with a pause to think; time each.

    The same seed makes the same pauses for every variant. Nobody else asks meanwhile,
    and the side effects have all run when this returns.
    """
    pauses = random.Random(seed)  # noqa: S311 - pauses, no secrets
    request = request_for(server.port, "/orders", ORDER)
    before = server.ran()
    connection = Connection(server.port)
    seconds = []
    try:
        for _ in range(orders):
            answer = connection.exchange(request)
            if answer.status != 201:
                raise BenchmarkError(
                    f"An order to {server.name!r} was answered with status "
                    f"{answer.status}. Usually its app failed. See its log in "
                    "build/bench/logs."
                )
            seconds.append(answer.seconds)
            time.sleep(pauses.uniform(*THINKING))
    finally:
        connection.close()
    deferred = orders * EFFECTS if server.name.endswith("deferred") else 0
    server.expect_ran(before, deferred, deferred)
    return seconds


def _figures(name: str, samples: Samples) -> list[Figure]:
    at = {
        (variant, share): [percentile(each, share / 100) for each in rounds]
        for variant, rounds in samples.items()
        for share, _ in SHARES
    }
    figures = [
        Figure(
            "last-byte",
            f"four deferred, p{share}",
            "ratio",
            paired(at["deferred", share], at["bare", share]),
            target,
            name,
        )
        for share, target in SHARES
    ]
    figures += [
        Figure(
            "last-byte",
            f"bare against itself, p{share}",
            "ratio",
            paired(at["again", share], at["bare", share]),
            server=name,
        )
        for share, _ in SHARES
    ]
    return figures


def _distribution(rounds: list[list[float]]) -> list[float]:
    """Give the percentiles 0, 0.5, 1 ... 100 of all rounds, in milliseconds."""
    pooled = [seconds for each in rounds for seconds in each]
    return [round(percentile(pooled, half / 200) * 1e3, 4) for half in range(201)]
