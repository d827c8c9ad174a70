"""D1: first in, first out, one after another; groups run together."""

import asyncio
import threading
from functools import partial

from stage import ASGIServer, Gate, answering, replying, visit

from postlude import DeferScope, configure, defer, defer_all
from postlude._arunner import runner_for
from postlude.asgi import PostludeMiddleware as ASGIMiddleware
from postlude.wsgi import PostludeMiddleware


class Diary:
    """What began and ended, in order, and how much of it ran at once."""

    def __init__(self):
        self.entries = []
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()

    def _enter(self, name, step):
        with self._lock:
            self._now += step
            self.most_at_once = max(self.most_at_once, self._now)
            self.entries.append((name, "begins" if step > 0 else "ends"))

    def sync(self, name):
        """Note the beginning and the end."""
        self._enter(name, 1)
        self._enter(name, -1)

    async def slow(self, name):
        """Note the beginning and, some turns of the loop later, the end."""
        self._enter(name, 1)
        for _ in range(3):
            await asyncio.sleep(0)
        self._enter(name, -1)

    def awaited(self, name):
        """Do the same for who awaits what this returns."""
        return self.slow(name)

    def meeting(self, name, barrier):
        """Run until all of the group have begun."""
        self._enter(name, 1)
        barrier.wait(20)
        self._enter(name, -1)

    def names(self):
        """Give what began, in order."""
        return [name for name, what in self.entries if what == "begins"]


def one_by_one(names):
    """Give the entries of calls that do not overlap."""
    return [(name, what) for name in names for what in ("begins", "ends")]


def test_calls_run_first_in_first_out(unit, form):
    """The calls of a unit run in the order of their defers (D1)."""
    seen = []

    def body():
        for number in range(30):
            defer(form(seen.append), number)

    unit(body)
    assert seen == list(range(30))


def test_calls_of_all_forms_run_one_after_another(unit_on_asyncio):
    """Sync, async and awaited calls of one unit never overlap (D1)."""
    diary = Diary()
    forms = [diary.sync, diary.slow, diary.awaited, diary.slow, diary.sync] * 3

    def body():
        for number, form in enumerate(forms):
            defer(form, number)

    unit_on_asyncio(body)
    assert diary.entries == one_by_one(range(15))


def test_an_incomplete_call_holds_the_next_one(unit_on_asyncio):
    """The next call begins when the one before it has ended, not when it waits (D1)."""
    diary = Diary()
    gate = Gate()

    async def waiting():
        diary.sync("one")
        await gate.passed()
        diary.sync("one again")

    def body():
        defer(waiting)
        defer(diary.sync, "two")
        threading.Timer(0.01, gate.open).start()

    unit_on_asyncio(body)
    assert diary.names() == ["one", "one again", "two"]


def test_a_group_runs_together(unit):
    """All of a `defer_all` are running before one of them ends (D1)."""
    diary = Diary()
    barrier = threading.Barrier(3)

    def body():
        defer(diary.sync, "before")
        defer_all(*[partial(diary.meeting, name, barrier) for name in "abc"])
        defer(diary.sync, "after")

    unit(body)
    assert diary.most_at_once == 3
    assert diary.entries[:2] == one_by_one(["before"])
    assert diary.entries[-2:] == one_by_one(["after"])


def test_an_async_group_runs_together(unit_on_asyncio):
    """Async calls of a group wait for each other on one loop (D1)."""
    diary = Diary()
    together = Diary()
    arrived = []

    async def meeting(name):
        together._enter(name, 1)
        arrived.append(asyncio.Event())
        if len(arrived) == 3:
            for event in arrived:
                event.set()
        await arrived[-1].wait()
        together._enter(name, -1)

    def body():
        defer(diary.slow, "before")
        defer_all(*[partial(meeting, name) for name in "abc"])
        defer(diary.slow, "after")

    unit_on_asyncio(body)
    assert together.most_at_once == 3
    assert diary.entries == one_by_one(["before", "after"])


def test_a_group_of_sync_and_async_calls_runs_together(unit_on_asyncio):
    """A group may mix forms: threads and loop work at the same time (D1)."""
    diary = Diary()
    ready = Gate()
    answered = Gate()

    def in_thread():
        ready.open()
        answered.wait()
        diary.sync("thread")

    async def on_loop():
        await ready.passed()
        answered.open()

    def body():
        defer_all(in_thread, on_loop)
        defer(diary.sync, "after")

    unit_on_asyncio(body)
    assert diary.names() == ["thread", "after"]


def test_neighbours_that_say_so_run_together(unit):
    """`.concurrently()` calls side by side make a group; another call ends it (D1)."""
    diary = Diary()
    first, second = threading.Barrier(2), threading.Barrier(2)

    def body():
        for barrier in (first, second):
            for name in "ab":
                defer(diary.meeting, name, barrier).concurrently()
            defer(diary.sync, "between")

    unit(body)
    assert diary.most_at_once == 2
    assert sorted(diary.names()[:2]) == sorted(diary.names()[3:5]) == ["a", "b"]
    assert diary.names()[2] == diary.names()[5] == "between"


def test_two_groups_in_a_row_stay_two(unit):
    """A `defer_all` begins when the one before it has ended (D1)."""
    diary = Diary()

    def body():
        for group in ("ab", "cd"):
            barrier = threading.Barrier(2)
            defer_all(*[partial(diary.meeting, name, barrier) for name in group])

    unit(body)
    assert diary.most_at_once == 2
    assert sorted(diary.names()[:2]) == ["a", "b"]
    assert sorted(diary.names()[2:]) == ["c", "d"]


def test_a_dropped_call_does_not_split_its_group():
    """The members around a cancelled one still run together (D1, C4)."""
    diary = Diary()
    barrier = threading.Barrier(2)
    with DeferScope():
        meetings = [partial(diary.meeting, name, barrier) for name in "abc"]
        _, dropped, _ = defer_all(*meetings)
        dropped.cancel()
    assert sorted(diary.names()) == ["a", "c"]


def test_a_group_is_ended_by_its_last_member(unit_on_asyncio):
    """The call after a group waits for all members, failing ones included (D1)."""
    diary = Diary()

    def fails():
        raise LookupError

    def body():
        defer_all(fails, partial(diary.slow, "slow"), fails)
        defer(diary.sync, "after")

    unit_on_asyncio(body)
    assert diary.entries == one_by_one(["slow", "after"])


def test_a_group_larger_than_the_pool_is_worked_off(own_threads, unit):
    """More members than threads run as threads come free; none is left out (D1, D6)."""
    configure(threads=2)
    seen = []
    unit(lambda: defer_all(*[partial(seen.append, number) for number in range(50)]))
    assert sorted(seen) == list(range(50))


async def test_a_unit_that_waits_does_not_hold_another(form):
    """One after another is a rule within a unit: other units go on (D1)."""
    held, done = Gate(), Gate()
    waits = iter([held.wait, form(done.open)])

    async with ASGIServer(answering(lambda: defer(next(waits)))) as server:
        await server.begin()
        await server.begin()
        await done.passed()
        held.open()


def test_a_wsgi_unit_that_waits_does_not_hold_another(form):
    """Under WSGI too one unit's slow call does not hold another unit's (D1)."""
    gate, done = Gate(), Gate()
    visit(PostludeMiddleware(replying(lambda: defer(gate.wait))))
    visit(PostludeMiddleware(replying(lambda: defer(form(done.open)))))
    done.wait()
    gate.open()


async def test_a_server_may_write_after_send_has_returned(form):
    """Servers may write a turn or two of the loop later; the calls wait (B1).

    With a longer pause than the real one: uvloop counts whole milliseconds, and mixes
    up timers of half of one and of one.
    """
    seen = []
    loop = asyncio.get_running_loop()
    runner_for(loop)._pause = 0.2

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        if message["type"] == "http.response.body":
            loop.call_later(0.01, seen.append, "last byte")

    app = ASGIMiddleware(answering(lambda: defer(form(seen.append), "call")))
    # No lifespan was seen here, so the app returns when its calls have run.
    await app({"type": "http", "path": "/", "headers": []}, receive, send)
    assert seen == ["last byte", "call"]
