"""The numbers of a run: what the customer waited for, and when the rest began."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from statistics import median

from shop.journal import EFFECTS, OWN_WORK, Entry
from shop.posting import WAYS, Posted, Way
from shop.settings import Settings

PACKAGES = {
    "fastapi": ("fastapi", "starlette", "uvicorn", "uvloop", "httptools"),
    "flask": ("flask", "werkzeug", "gunicorn"),
    "django": ("django", "gunicorn"),
}
"""What serves the shop, by framework."""
PARTS = ("sqlalchemy", "aiosmtpd", "httpx", "cachetools", "jinja2")


@dataclass(frozen=True, slots=True)
class Waits:
    """How long customers waited for the last byte, in milliseconds."""

    p50: float
    p95: float
    every: list[float]


@dataclass(frozen=True, slots=True)
class Effect:
    """One side effect over all orders; times in milliseconds."""

    name: str
    took: float | None
    """Median; None when it was never seen, here and below."""
    began: dict[Way, float | None]
    """Median, relative to the answer's last byte; negative: the customer waited."""
    earliest: dict[Way, float | None]
    """The minimum of the same."""
    arrived: int
    """Orders for which the service received it, once and right."""


@dataclass(frozen=True, slots=True)
class Span:
    """A step of one order, in milliseconds since the customer sent it."""

    name: str
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Picture:
    """One order as it happened: the one whose wait was the median."""

    order: int
    last_byte: float
    spans: list[Span]

    @property
    def end(self) -> float:
        """When all was over."""
        return max([self.last_byte, *(span.ended for span in self.spans)])


@dataclass(frozen=True, slots=True)
class Results:
    """Everything the table, the report and the JSON file show."""

    settings: Settings
    made_at: str
    versions: dict[str, str]
    waits: dict[Way, Waits]
    effects: list[Effect]
    pictures: dict[Way, Picture]
    problems: list[str]

    @property
    def orders(self) -> int:
        """Measured orders, both ways together."""
        return sum(len(waits.every) for waits in self.waits.values())

    @property
    def speed_up(self) -> dict[str, float]:
        """How many times sooner the customer has the answer."""
        before, after = self.waits["before"], self.waits["after"]
        return {"p50": before.p50 / after.p50, "p95": before.p95 / after.p95}


def results(
    settings: Settings,
    posted: list[Posted],
    steps: dict[int, dict[str, Entry]],
    arrived: dict[str, set[int]],
    problems: list[str],
) -> Results:
    """Compute the numbers from all orders but those that warmed the shop up."""
    counted = [order for order in posted if order.counted]
    by_way = {way: [order for order in counted if order.way == way] for way in WAYS}
    return Results(
        settings=settings,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions_of(settings.framework),
        waits={way: _waits(orders) for way, orders in by_way.items()},
        effects=[_effect(name, by_way, steps, arrived[name]) for name in EFFECTS],
        pictures={way: _picture(orders, steps) for way, orders in by_way.items()},
        problems=problems,
    )


def percentile(values: Iterable[float], share: float) -> float:
    """Return the value below which a share of all values lies, interpolated."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def _waits(orders: list[Posted]) -> Waits:
    """Return how long the customers of one way waited."""
    every = [1000 * order.waited for order in orders]
    return Waits(percentile(every, 0.50), percentile(every, 0.95), every)


def _effect(
    name: str,
    by_way: dict[Way, list[Posted]],
    steps: dict[int, dict[str, Entry]],
    arrived: set[int],
) -> Effect:
    """Return the numbers of one side effect."""
    began: dict[Way, list[float]] = {}
    took: list[float] = []
    for way, orders in by_way.items():
        seen = [
            (order, steps[order.id][name])
            for order in orders
            if name in steps[order.id]
        ]
        began[way] = [1000 * (step.began - order.last_byte) for order, step in seen]
        took += [1000 * (step.ended - step.began) for _, step in seen]
    return Effect(
        name,
        took=median(took) if took else None,
        began={way: median(times) if times else None for way, times in began.items()},
        earliest={way: min(times, default=None) for way, times in began.items()},
        arrived=sum(o.id in arrived for orders in by_way.values() for o in orders),
    )


def _picture(orders: list[Posted], steps: dict[int, dict[str, Entry]]) -> Picture:
    """Return the order with the median wait, as it happened."""
    by_wait = sorted(orders, key=lambda order: order.waited)
    order = by_wait[(len(by_wait) - 1) // 2]
    spans = [
        Span(
            name,
            1000 * (steps[order.id][name].began - order.sent),
            1000 * (steps[order.id][name].ended - order.sent),
        )
        for name in (OWN_WORK, *EFFECTS)
        if name in steps[order.id]
    ]
    return Picture(order.id, 1000 * order.waited, spans)


def versions_of(framework: str, *others: str) -> dict[str, str]:
    """Return the versions of all that took part."""
    versions = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }
    for package in ("postlude", *PACKAGES[framework], *PARTS, *others):
        # uvloop and httptools do not exist everywhere; uvicorn then does without.
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions
