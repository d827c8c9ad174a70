"""E4: OpenTelemetry's own exporters see spans and metrics of calls."""

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from postlude import DeferScope, defer
from postlude.instrumentation import opentelemetry


class Telemetry:
    """An SDK with exporters in memory."""

    def __init__(self):
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.tracers.get_tracer("app")
        self._reader = InMemoryMetricReader()
        self._meters = MeterProvider([self._reader], shutdown_on_exit=False)
        opentelemetry.install(self.tracers, self._meters)

    def span(self, end):
        """Give the one finished span whose name ends so."""
        (found,) = [
            s for s in self.exporter.get_finished_spans() if s.name.endswith(end)
        ]
        return found

    def points(self, name):
        """Give the data points of a metric."""
        data = self._reader.get_metrics_data()
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


@pytest.fixture
def telemetry():
    """An SDK that watches."""
    return Telemetry()


def test_a_span_of_its_own_is_linked_to_the_requests(telemetry):
    """A root span, with a link to where the call was deferred (E4)."""
    inner = []

    def work():
        with telemetry.tracer.start_as_current_span("child"):
            inner.append(baggage.get_baggage("tenant"))

    with DeferScope():
        token = context.attach(baggage.set_baggage("tenant", "acme"))
        with telemetry.tracer.start_as_current_span("request") as request:
            defer(work)
        context.detach(token)
    span, child = telemetry.span("work"), telemetry.span("child")
    assert span.parent is None
    assert span.context.trace_id != request.get_span_context().trace_id
    assert [link.context for link in span.links] == [request.get_span_context()]
    assert child.parent.span_id == span.context.span_id
    assert inner == ["acme"]
    assert __file__ in span.attributes["postlude.call.site"]
    assert span.status.status_code is StatusCode.UNSET


async def test_an_async_call_has_its_span_too(telemetry):
    """The span is current while the coroutine is awaited (E4)."""
    seen = []

    async def work():
        seen.append(trace.get_current_span().get_span_context().span_id)

    async with DeferScope():
        defer(work)
    assert [telemetry.span("work").context.span_id] == seen
    assert telemetry.span("work").links == ()


def test_a_failure_is_on_the_span(telemetry):
    """Status and exception are those of the call (E4)."""

    def bad():
        raise ValueError("no")

    with DeferScope():
        defer(bad)
    span = telemetry.span("bad")
    assert span.status.status_code is StatusCode.ERROR
    (event,) = span.events
    assert event.attributes["exception.type"] == "ValueError"


def test_a_call_of_a_call_is_linked_to_it(telemetry):
    """A nested call is linked to the span of the call that deferred it (A7, E4)."""

    def inner():
        pass

    def outer():
        defer(inner)

    with DeferScope():
        defer(outer)
    (link,) = telemetry.span("inner").links
    assert link.context == telemetry.span("outer").context


def test_calls_are_counted_and_timed(telemetry):
    """By function and state, whatever their names (E4)."""

    def work():
        pass

    with DeferScope():
        defer(work).named("order-1")
        defer(work).named("order-2")
        defer(work).named("order-3").cancel()
    counts = {
        point.attributes["postlude.state"]: point.value
        for point in telemetry.points("postlude.calls")
    }
    assert counts == {"done": 2, "dropped": 1}
    (duration,) = telemetry.points("postlude.call.duration")
    (delay,) = telemetry.points("postlude.call.start_delay")
    assert (duration.count, delay.count) == (2, 2)
    assert [p.value for p in telemetry.points("postlude.pending")] == [0]
    assert [p.value for p in telemetry.points("postlude.running")] == [0]
