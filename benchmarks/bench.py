"""What every measure is given: how much effort, where to start processes, a voice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from benchmarks.figures import Result
    from benchmarks.processes import Processes


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured."""

    rounds: int = 9
    """Rounds that count; one more goes before them to warm up."""
    cpu_seconds: int = 2
    """Seconds of load for each app in one round of `cpu`; whole ones, for wrk."""
    orders: int = 150
    """Requests to each app in one round of `last-byte`."""
    instructed: int = 400
    """Requests whose instructions are counted."""

    @classmethod
    def quick(cls) -> Effort:
        """Just enough to see that everything works; the figures say little."""
        return cls(rounds=2, cpu_seconds=1, orders=40, instructed=160)


@dataclass(frozen=True, slots=True)
class Bench:
    """What a measure works with."""

    effort: Effort
    processes: Processes
    step: Callable[[str], None]
    """Tells that one more step of `Measure.steps` begins, and which."""


class Measure(Protocol):
    """One kind of figures."""

    name: str

    def steps(self, effort: Effort) -> int:
        """Count the steps that a run will tell of."""
        ...

    def missing(self) -> str | None:
        """Say why this measure cannot be taken here, or None."""
        ...

    def run(self, bench: Bench) -> Result:
        """Take the measure."""
        ...
