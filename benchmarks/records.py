"""`records`: what a failure store adds to a request, and to whoever runs its calls."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from benchmarks import machine
from benchmarks.figures import Figure, Result

if TYPE_CHECKING:
    from benchmarks.bench import Bench, Effort

# Only the first three are on a request's path. What is under `failed` happens once per
# failure, where the traceback is at hand.
NAMES = {
    "defer": ("defer(), p99 added", 20.0),
    "request": ("request, sync call, p99 added", 20.0),
    "request_async": ("request, async call, p99 added", 20.0),
    "counted": ("around a call, after the response, p99", None),
    "counted_p50": ("around a call, after the response, p50", None),
    "failed": ("at a failure, p99", None),
    "failed_p50": ("at a failure, p50", None),
}


class Records:
    """Microseconds per call with a SQLite file, at a thousand calls a second."""

    name = "records"

    def steps(self, effort: Effort) -> int:
        """Count one step per round."""
        return effort.rounds

    def missing(self) -> str | None:
        """Need nothing."""
        return None

    def run(self, bench: Bench) -> Result:
        """Take the measure, in a process of its own each time."""
        told: list[dict[str, float]] = []
        for _ in range(bench.effort.rounds):
            bench.step("calls with a failure store")
            command = [sys.executable, "-m", "benchmarks.recorded"]
            said = bench.processes.run("records", command, machine.cores()[1])
            told.append(json.loads(said))
        return Result(
            figures=[
                Figure("records", name, "µs", tuple(one[key] for one in told), target)
                for key, (name, target) in NAMES.items()
            ]
        )
