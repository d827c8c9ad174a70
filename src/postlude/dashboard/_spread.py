"""Durations, counted in classes; and what can be said of them."""

from __future__ import annotations

from typing import NamedTuple

from postlude.dashboard import _text
from postlude.failures._tallies import BOUNDS, LABELS

_PLACES = {label: place for place, label in enumerate(LABELS)}
UPPER = (*BOUNDS, float("inf"))
FIVE_SECONDS = BOUNDS.index(5.0)
"""The last class that keeps the five-second rule."""


class Spread(NamedTuple):
    """How many of each class of durations."""

    counts: tuple[int, ...]

    @classmethod
    def of(cls, found: dict[str, int]) -> Spread:
        """Take the numbers of labels; those of another version are left out."""
        counts = [0] * len(LABELS)
        for label, count in found.items():
            if (place := _PLACES.get(label)) is not None:
                counts[place] += count
        return cls(tuple(counts))

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(self.counts)

    @property
    def over(self) -> int:
        """How many broke the five-second rule."""
        return sum(self.counts[FIVE_SECONDS + 1 :])

    def below(self, share: float) -> str:
        """Say below which bound that share of them lies: `25 ms`."""
        wanted, seen = share * self.total, 0
        for count, upper in zip(self.counts, UPPER, strict=True):
            seen += count
            if seen and seen >= wanted:
                return _text.bound(upper)
        return "–"

    @property
    def sentence(self) -> str:
        """The whole in words, for whoever does not see the plot."""
        if not self.total:
            return "nothing measured"
        half, most = self.below(0.5), self.below(0.95)
        return f"{self.total:,} measured; half within {half}, 95 % within {most}"

    @property
    def rows(self) -> list[tuple[str, int]]:
        """The classes that are not empty, by their upper bound."""
        return [
            (_text.bound(upper), count)
            for count, upper in zip(self.counts, UPPER, strict=True)
            if count
        ]

    @property
    def bars(self) -> list[tuple[int, float, bool]]:
        """Place, height out of 100, and whether it breaks the rule, of each bar."""
        highest = max(self.counts) or 1
        return [
            (place, max(6.0, 100 * count / highest), place > FIVE_SECONDS)
            for place, count in enumerate(self.counts)
            if count
        ]
