"""What was measured: one figure per line of the table."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantity with its value in every round, and the most it should be."""

    measure: str
    name: str
    unit: str
    rounds: tuple[float, ...]
    target: float | None = None
    server: str = ""
    """Framework and server, where the figure is of one."""

    @property
    def median(self) -> float:
        """The figure."""
        return median(self.rounds)

    @property
    def met(self) -> bool | None:
        """Whether the figure is at most the target; None where there is none."""
        return None if self.target is None else self.median <= self.target

    def shown(self, value: float) -> str:
        """Write a value of this figure for people."""
        if self.unit == "ratio":
            return f"{value:.3f}"
        short = f" {self.unit}" if self.unit in {"µs", "B"} else ""
        return f"{value:,.0f}{short}"

    def as_json(self) -> dict[str, Any]:
        """Give what the report file says of it."""
        return {
            "measure": self.measure,
            "server": self.server or None,
            "name": self.name,
            "unit": self.unit,
            "target": self.target,
            "median": round(self.median, 6),
            "min": round(min(self.rounds), 6),
            "max": round(max(self.rounds), 6),
            "met": self.met,
            "rounds": [round(value, 6) for value in self.rounds],
        }


@dataclass(slots=True)
class Result:
    """What one measure found, or why it was left out."""

    figures: list[Figure] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    """What the plot and the curious need besides."""
    left_out: str | None = None


def paired(ours: list[float], bare: list[float]) -> tuple[float, ...]:
    """Divide what was measured with by what was measured without, round by round."""
    return tuple(one / other for one, other in zip(ours, bare, strict=True))


def percentile(values: list[float], share: float) -> float:
    """Give the value that *share* (0 to 1) of the values do not exceed.

    Between two values it is interpolated, as the default of numpy's percentile is.
    """
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
