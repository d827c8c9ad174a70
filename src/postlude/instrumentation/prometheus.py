"""Prometheus: counters by state, histograms of start delay and duration, gauges.

```python
from postlude.instrumentation import prometheus

prometheus.install()
```

Works in the client's multiprocess mode, too.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from postlude.instrumentation import _instruments

if TYPE_CHECKING:
    from collections.abc import Generator

    from postlude._call import DeferredCall
    from postlude.instrumentation._record import CallRecord

__all__ = ["Prometheus", "install"]

_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Seconds; five is the limit between a deferred call and a queue's job."""


class Prometheus:
    """Counts and times calls, by function: names given with `.named()` may be many."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Register the metrics.

        Raises:
            ValueError: the registry has them already.
        """
        self._calls = Counter(
            "postlude_calls",
            "Deferred calls, by how they ended",
            ("function", "state", "reason"),
            registry=registry,
        )
        self._delay = Histogram(
            "postlude_start_delay_seconds",
            "From the last byte to a call's begin",
            ("function",),
            buckets=_BUCKETS,
            registry=registry,
        )
        self._duration = Histogram(
            "postlude_duration_seconds",
            "How long a call ran",
            ("function",),
            buckets=_BUCKETS,
            registry=registry,
        )
        self._gauges = tuple(
            Gauge(
                f"postlude_{what}",
                f"Calls {what} now",
                registry=registry,
                multiprocess_mode="livesum",
            )
            for what in ("pending", "running")
        )

    @contextmanager
    def around(self, _call: DeferredCall) -> Generator[None]:
        """Note that one more call runs."""
        self._look()
        yield

    def ended(self, record: CallRecord) -> None:
        """Count a call, and its times."""
        function = record.function
        self._calls.labels(function, record.state, record.reason or "").inc()
        if record.start_delay is not None:
            self._delay.labels(function).observe(record.start_delay)
        if record.duration is not None:
            self._duration.labels(function).observe(record.duration)
        self._look()

    def _look(self) -> None:
        # Set, not asked for at each scrape: another process answers that one.
        for gauge, value in zip(self._gauges, _instruments.load(), strict=True):
            gauge.set(value)


def install(registry: CollectorRegistry = REGISTRY) -> Prometheus:
    """Have Prometheus watch every call, in *registry*.

    Raises:
        ValueError: the registry has Postlude's metrics already.
    """
    made = Prometheus(registry)
    _instruments.install(made)
    return made
