"""OpenTelemetry: a span for each call, linked to the request's, and metrics.

```python
from postlude.instrumentation import opentelemetry

opentelemetry.install()
```
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import metrics, trace
from opentelemetry.trace import INVALID_SPAN, Link

from postlude import _names
from postlude.instrumentation import _instruments

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from opentelemetry.metrics import CallbackOptions, Observation
    from opentelemetry.util.types import AttributeValue

    from postlude._call import DeferredCall
    from postlude.instrumentation._record import CallRecord

__all__ = ["OpenTelemetry", "install"]

_NAME = "postlude"


class OpenTelemetry:
    """Makes a span of each call, and counts and times them.

    The span is the root of a trace of its own, since the request's has ended, and
    linked to the span in which the call was deferred. What the call itself does becomes
    its children. Names of spans and metrics are functions, not the names given with
    `.named()`, which may be as many as there are orders.
    """

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        """Use these providers, or the global ones."""
        self._tracer = trace.get_tracer(_NAME, tracer_provider=tracer_provider)
        meter = metrics.get_meter(_NAME, meter_provider=meter_provider)
        self._calls = meter.create_counter(
            "postlude.calls", "{call}", "Deferred calls, by how they ended"
        )
        self._delay = meter.create_histogram(
            "postlude.call.start_delay", "s", "From the last byte to a call's begin"
        )
        self._duration = meter.create_histogram(
            "postlude.call.duration", "s", "How long a call ran"
        )
        for place, what in enumerate(("pending", "running")):
            meter.create_observable_gauge(
                f"postlude.{what}",
                [_gauge(place)],
                "{call}",
                f"Calls {what} in this process",
            )

    @contextmanager
    def around(self, call: DeferredCall) -> Generator[None]:
        """Run the call in a span."""
        deferring = trace.get_current_span()
        links = (
            [Link(deferring.get_span_context())]
            if deferring.get_span_context().is_valid
            else []
        )
        function = _names.qualified(call.fn)
        attributes: dict[str, AttributeValue] = {
            "code.function.name": function.replace(":", "."),
            "postlude.call.id": call.id,
            "postlude.call.name": call.name,
            "postlude.call.site": call.site,
        }
        # The context's other values, baggage above all, stay; only the parent goes.
        with self._tracer.start_as_current_span(
            function,
            trace.set_span_in_context(INVALID_SPAN),
            attributes=attributes,
            links=links,
        ):
            yield

    def ended(self, record: CallRecord) -> None:
        """Count a call, and its times."""
        attributes = {"code.function.name": record.function.replace(":", ".")}
        state = {"postlude.state": record.state}
        if record.reason is not None:
            state["postlude.reason"] = record.reason
        self._calls.add(1, attributes | state)
        if record.start_delay is not None:
            self._delay.record(record.start_delay, attributes)
        if record.duration is not None:
            self._duration.record(record.duration, attributes)


def _gauge(place: int):  # type: ignore[no-untyped-def]  # noqa: ANN202 - see observe
    def observe(_options: CallbackOptions) -> Iterable[Observation]:
        return [metrics.Observation(_instruments.load()[place])]

    return observe


def install(
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
) -> OpenTelemetry:
    """Have OpenTelemetry watch every call; with these providers, or the global ones."""
    made = OpenTelemetry(tracer_provider, meter_provider)
    _instruments.install(made)
    return made
