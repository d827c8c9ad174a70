"""E3 and E4: instruments see every call's end, and hurt none."""

import threading
from contextlib import contextmanager

import pytest
from stage import visit

from postlude import DeferScope, configure, defer, drain, instrumentation
from postlude.transactions import begin
from postlude.wsgi import PostludeMiddleware


class Watcher:
    """Notes what it is told."""

    def __init__(self):
        self.records = []
        self.around_calls = []

    @contextmanager
    def around(self, call):
        """Note what ran, and with which exception it was left."""
        try:
            yield
        except BaseException as exc:
            self.around_calls.append((call.name, type(exc).__name__))
            raise
        else:
            self.around_calls.append((call.name, None))

    def ended(self, record):
        """Note a record."""
        self.records.append(record)


@pytest.fixture
def watcher():
    """An instrument, installed for one test."""
    made = Watcher()
    instrumentation.install(made)
    yield made
    instrumentation.uninstall(made)


def boom():
    """Fail."""
    raise ValueError("no")


def test_a_call_that_is_done_has_a_record(watcher, unit, form):
    """Names, places, times and states are all there, in every kind of unit (E4)."""
    unit(lambda: defer(form(list)).named("x"))
    (record,) = watcher.records
    assert (record.name, record.state, record.exception) == ("x", "done", None)
    assert __file__ in record.site
    assert record.last_byte <= record.started <= record.ended
    assert record.start_delay >= 0
    assert record.duration >= 0
    assert record.delivered
    assert record.committed is None


def test_instruments_stand_around_the_call(watcher, unit, form):
    """They are entered where the call runs, and left with its exception (E4)."""

    def body():
        defer(form(list)).named("good")
        defer(form(boom)).named("bad")

    unit(body)
    assert watcher.around_calls == [("good", None), ("bad", "ValueError")]
    good, bad = watcher.records
    assert (good.state, bad.state) == ("done", "failed")
    assert isinstance(bad.exception, ValueError)


def test_a_request_is_in_the_record(watcher):
    """Its head, its last byte, and the unit in words (E4)."""

    def app(environ, start_response):
        defer(list)
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    visit(PostludeMiddleware(app))
    drain()
    (record,) = watcher.records
    assert record.unit["status"] == 200
    assert record.head_sent <= record.last_byte <= record.started


@pytest.mark.parametrize("how", ["outcome", "cancelled", "replaced", "rollback"])
def test_a_dropped_call_has_a_record(watcher, how):
    """What did not run is told as well, with the reason (E4)."""
    with pytest.raises(ZeroDivisionError), DeferScope():  # noqa: PT012 - one unit
        gate = begin("db")
        call = defer(list).named("x")
        if how == "rollback":
            gate.drop()
        else:
            gate.open()
        if how == "cancelled":
            call.cancel()
        if how == "replaced":
            defer(list).named("x").cancel()
        raise ZeroDivisionError
    record = watcher.records[0]
    assert (record.state, record.reason) == ("dropped", how)
    assert record.started is None
    assert record.duration is None
    assert record.start_delay is None


def test_a_lost_and_a_timed_out_call_have_a_record(watcher, own_threads):
    """However a call ends, it is told once (C5, E4)."""
    over = threading.Event()
    with DeferScope():
        defer(over.wait, 20).timeout(0.01).named("slow")
        begin("db")
        defer(list).named("stuck")
    drain(0)
    over.set()
    assert {record.name: record.state for record in watcher.records} == {
        "slow": "timed_out",
        "stuck": "lost",
    }


class Broken:
    """Raises wherever it can."""

    def __init__(self, where):
        self.where = where

    @contextmanager
    def around(self, _call):
        """Raise before or after the call."""
        if self.where == "before":
            raise RuntimeError("instrument")
        yield
        if self.where == "after":
            raise RuntimeError("instrument")

    def ended(self, _record):
        """Raise at the end."""
        if self.where == "end":
            raise RuntimeError("instrument")


@pytest.mark.parametrize("where", ["before", "after", "end"])
def test_a_broken_instrument_hurts_nobody(watcher, where, logged, unit, form):
    """It is told once in the log; the calls and the other instruments go on (E3)."""
    broken = Broken(where)
    instrumentation.install(broken)
    try:
        unit(lambda: [defer(form(list)), defer(form(list))])
    finally:
        instrumentation.uninstall(broken)
    assert [record.state for record in watcher.records] == ["done", "done"]
    assert len([t for t in logged.texts() if "instrument" in t]) == 1


def test_without_an_instrument_nothing_is_gathered():
    """No clock is read for those who are not there (E4)."""
    configure(threads=1)
    with DeferScope() as scope:
        defer(list)
    assert scope.last_byte is None
