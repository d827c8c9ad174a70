"""`gates`: what waiting for a transaction adds to `defer()` and to a whole request."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from benchmarks import load, machine
from benchmarks.cpu import Variant, compare, figures
from benchmarks.figures import Figure, Result
from benchmarks.servers import UVICORN

if TYPE_CHECKING:
    from benchmarks.bench import Bench, Effort

SERVER = "FastAPI, SQLAlchemy/uvicorn"
WITHOUT = Variant("one transaction, one call", "plain", calls=1)
AGAIN = Variant("without gates against itself", "plain", calls=1)
WITH = Variant("with gates", "gates", calls=1, target=1.02)
VARIANTS = (WITHOUT, AGAIN, WITH)
# The best of many short runs: what is added to it by others is not ours.
PROBE = """
import json, timeit
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from postlude import DeferScope, defer
from postlude.transactions import sqlalchemy
sqlalchemy.install()

def nothing(): pass

def best(scope):
    def some():
        for _ in range(500):
            defer(nothing)
        for call in scope.abandon():
            pass
    return min(timeit.repeat(some, number=1, repeat=60)) / 500 * 1e6

with DeferScope() as scope:
    outside = best(scope)
    with Session(create_engine("sqlite://")) as session:
        session.execute(text("SELECT 1"))
        inside = best(scope)
print(json.dumps(inside - outside))
"""


class Gates:
    """Microseconds at `defer()`, and CPU time per request, with and without gates."""

    name = "gates"

    def steps(self, effort: Effort) -> int:
        """Count one step per app and round, and one per probe."""
        return (len(VARIANTS) - 1) * (effort.rounds + 1) + effort.rounds

    def missing(self) -> str | None:
        """Need wrk."""
        return load.missing()

    def run(self, bench: Bench) -> Result:
        """Take the measure."""
        added = tuple(_added(bench) for _ in range(bench.effort.rounds))
        costs = compare(bench, SERVER, UVICORN, "one_transaction", VARIANTS)
        own = Figure("gates", "defer() in one transaction", "µs", added, 5.0)
        return Result(figures=[own, *figures("gates", SERVER, WITHOUT, costs)])


def _added(bench: Bench) -> float:
    bench.step("defer() inside and outside a transaction")
    command = [sys.executable, "-c", PROBE]
    said = bench.processes.run("gates", command, machine.cores()[1])
    return float(json.loads(said))
