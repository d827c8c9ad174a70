"""`memory`: what a pending call occupies."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from benchmarks import machine
from benchmarks.figures import Figure, Result

if TYPE_CHECKING:
    from benchmarks.bench import Bench, Effort

KINDS = (
    ("empty", "in one unit, empty context", 1024),
    ("variables", "in one unit, context of 10 variables", None),
    ("units", "one ASGI request each, with its unit", None),
)


class Memory:
    """Bytes that tracemalloc counts for each of 10,000 pending calls."""

    name = "memory"

    def steps(self, _effort: Effort) -> int:
        """Count one process per kind."""
        return len(KINDS)

    def missing(self) -> str | None:
        """Need nothing but what is installed."""
        return None

    def run(self, bench: Bench) -> Result:
        """Take the measure, each kind once in a process of its own."""
        result = Result()
        for kind, label, target in KINDS:
            bench.step(label)
            said = bench.processes.run(
                f"memory {kind}",
                [sys.executable, "-m", "benchmarks.pending", kind],
                machine.cores()[1],
            )
            size = json.loads(said)
            result.figures.append(Figure("memory", label, "B", (size,), target))
        return result
