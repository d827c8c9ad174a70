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
    ("empty", "one unit, empty context", 1024),
    ("variables", "one unit, 10 variables each", None),
    ("units", "a request each, unit included", None),
)


class Memory:
    """Bytes that tracemalloc counts for each of 10,000 pending calls."""

    name = "memory"

    def steps(self, effort: Effort) -> int:
        """Count one process per kind and round."""
        return len(KINDS) * effort.rounds

    def missing(self) -> str | None:
        """Need nothing but what is installed."""
        return None

    def run(self, bench: Bench) -> Result:
        """Take the measure, each round in a process of its own.

        Contexts are trees, and the hashes of the variables, other ones in every
        process, decide how many branches they need.
        """
        result = Result()
        for kind, label, target in KINDS:
            sizes = tuple(
                _bytes_per_call(bench, kind, f"memory, {label}, round {number + 1}")
                for number in range(bench.effort.rounds)
            )
            result.figures.append(Figure("memory", label, "B", sizes, target))
        return result


def _bytes_per_call(bench: Bench, kind: str, step: str) -> float:
    bench.step(step)
    command = [sys.executable, "-m", "benchmarks.pending", kind]
    said = bench.processes.run(f"memory {kind}", command, machine.cores()[1])
    return float(json.loads(said))
