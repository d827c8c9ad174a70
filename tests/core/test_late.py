"""A6 and A7: calls that come when their unit is over, or while its calls run."""

import asyncio
import threading
import time
from contextvars import copy_context
from types import SimpleNamespace

import pytest
from stage import ASGIServer, Boom, Gate, answering, replying, settle, visit

from postlude import DeferScope, _scope, _threads, defer, drain, failure_store
from postlude.wsgi import PostludeMiddleware


def ended_unit(*, fails=False):
    """Give the context of a unit that is over, as a task that outlived it has it."""
    contexts = []
    try:
        with DeferScope():
            contexts.append(copy_context())
            if fails:
                raise Boom
    except Boom:
        pass
    return contexts[0]


def test_a_late_call_runs_in_the_background(form):
    """A call deferred after the end of its unit runs, though nobody waits (A6)."""
    done = Gate()
    threads = []

    def note():
        threads.append(threading.current_thread())
        done.open()

    call = ended_unit().run(defer, form(note))
    done.wait()
    drain(20)
    assert call.state == "done"
    assert threads != [threading.current_thread()]


def test_a_late_call_is_judged_by_its_unit(form, monkeypatch):
    """After a failed unit a late plain call is dropped, another asked (A6, C1)."""
    monkeypatch.setattr(_scope, "_LATE", 0.1)  # for machines that are very busy
    seen = []
    context = ended_unit(fails=True)
    plain = context.run(defer, form(seen.append), "plain")
    asked = context.run(lambda: defer(form(seen.append), "asked").when(_has_failed))
    drain(20)
    assert (plain.state, plain.reason) == ("dropped", "outcome")
    assert (seen, asked.state) == (["asked"], "done")
    assert asked.outcome is plain.outcome


def _has_failed(outcome):
    return isinstance(outcome.exception, Boom)


def test_options_of_a_late_call_are_set_before_it_starts(monkeypatch):
    """A late call waits a moment, in which its options are chained (A2, A6)."""
    seen = []
    waiting, chained = Gate(), Gate()

    def pause(_seconds):
        waiting.open()
        chained.wait()

    monkeypatch.setattr(_threads, "time", SimpleNamespace(sleep=pause))
    monkeypatch.setattr(_threads, "_monotonic", float)  # the moment is never over
    call = ended_unit(fails=True).run(defer, seen.append, "audit")
    while call.state == "pending" and not waiting.is_open:
        time.sleep(0.001)
    call.named("audit").always()
    chained.open()
    drain(20)
    assert (seen, call.state) == (["audit"], "done")


def test_late_calls_run_in_order_one_after_another(form):
    """Late calls of one unit keep the order of their defers (A6, D1)."""
    seen = []
    context = ended_unit()
    for number in range(50):
        context.run(defer, form(seen.append), number)
    drain(20)
    assert seen == list(range(50))


def test_a_late_call_defers_more(form):
    """What a late call defers runs too, and is waited for (A6, A7)."""
    seen = []

    def late():
        seen.append("late")
        defer(form(seen.append), "later")

    ended_unit().run(defer, form(late))
    drain(20)
    assert seen == ["late", "later"]


def test_a_late_failure_is_recorded_like_any_other(form):
    """A late call that fails is a record (A6, E1)."""

    def fail():
        raise Boom

    call = ended_unit().run(defer, form(fail))
    drain(20)
    assert [record.id for record in failure_store().list()] == [call.id]


@pytest.mark.parametrize("status", [200, 404])
async def test_a_task_that_outlives_its_request_may_defer(form, status):
    """A sub-task defers after the response: judged by it, run or dropped (A6)."""
    goes_on = asyncio.Event()
    tasks, seen = [], []

    async def outlives():
        await goes_on.wait()
        defer(form(seen.append), "plain")
        defer(form(seen.append), "always").always()

    app = answering(lambda: tasks.append(asyncio.create_task(outlives())), status)
    async with ASGIServer(app) as server:
        await server.begin()
        goes_on.set()
        await tasks[0]
    assert seen == (["plain", "always"] if status == 200 else ["always"])


def test_a_thread_that_outlives_its_wsgi_request_may_defer(form):
    """A thread that a handler started defers when the response has left (A6)."""
    goes_on = Gate()
    threads, seen = [], []

    def outlives():
        goes_on.wait()
        defer(form(seen.append), "late")

    def body():
        work = copy_context().run
        threads.append(threading.Thread(target=work, args=(outlives,)))
        threads[0].start()

    visit(PostludeMiddleware(replying(body)))
    goes_on.open()
    threads[0].join()
    drain(20)
    assert seen == ["late"]


async def test_a_call_that_comes_while_others_run_joins_the_line():
    """After the end, but before the last call has run, order is as ever (A6, D1)."""
    held, begun = asyncio.Event(), asyncio.Event()
    contexts, seen = [], []

    async def first():
        begun.set()
        await held.wait()
        seen.append("first")

    def body():
        contexts.append(copy_context())
        defer(first)
        defer(seen.append, "second")

    async with ASGIServer(answering(body)) as server:
        await server.begin()
        await begun.wait()
        contexts[0].run(defer, seen.append, "late")
        await settle()
        assert seen == []
        held.set()
    assert seen == ["first", "second", "late"]


def test_nested_calls_join_the_same_drain_to_any_depth(unit, form):
    """What running calls defer has run when the unit is done, however deep (A7)."""
    seen = []

    def nest(depth):
        seen.append(depth)
        if depth:
            defer(form(nest), depth - 1)

    unit(lambda: defer(form(nest), 100))
    assert seen == list(range(100, -1, -1))


def test_nested_calls_go_to_the_end_of_the_line(unit, form):
    """A nested call runs after all that was deferred before it (A7, D1)."""
    seen = []

    def nest(name):
        seen.append(name)
        defer(form(seen.append), f"{name}'s")

    def body():
        defer(form(nest), "a")
        defer(form(nest), "b")

    unit(body)
    assert seen == ["a", "b", "a's", "b's"]


def test_nested_calls_of_other_forms_join_too(unit_on_asyncio):
    """Sync calls defer async ones and the other way round (A7)."""
    seen = []

    def sync(depth):
        seen.append(depth)
        if depth:
            defer(asynchronous, depth - 1)

    async def asynchronous(depth):
        await asyncio.sleep(0)
        seen.append(depth)
        if depth:
            defer(lambda: asynchronous(depth - 1) if depth % 3 else sync(depth - 1))

    unit_on_asyncio(lambda: defer(sync, 9))
    assert seen == list(range(9, -1, -1))


def test_nested_calls_of_a_group_join_behind_it(unit):
    """What members of a group defer runs once the group has ended (A7, D1)."""
    seen = []
    barrier = threading.Barrier(2)

    def member():
        defer(seen.append, "nested")
        barrier.wait(20)
        seen.append("member")

    def body():
        for _ in range(2):
            defer(member).concurrently()

    unit(body)
    assert seen == ["member", "member", "nested", "nested"]


def test_nested_calls_are_judged_like_the_unit(unit, form):
    """In the drain of a failed unit, what runs may only defer what always runs (A7)."""
    seen = []

    def audit():
        defer(form(seen.append), "plain")
        defer(form(seen.append), "always").always()

    unit(lambda: defer(form(audit)).always(), fails=True)
    assert seen == ["always"]


def test_a_failing_call_keeps_what_it_deferred(unit, form):
    """Calls nested in a call that then fails run: they were deferred (A7, D2)."""
    seen = []

    def fails():
        defer(form(seen.append), "nested")
        raise Boom

    unit(lambda: defer(form(fails)))
    assert seen == ["nested"]


def test_a_block_inside_a_call_is_its_own_unit(unit):
    """A call that opens a block ends that block's calls before it goes on (A7, A8)."""
    seen = []

    def call():
        with DeferScope():
            defer(seen.append, "inner")
            defer(seen.append, "inner too")
        seen.append("call")
        defer(seen.append, "nested")

    def body():
        defer(call)
        defer(seen.append, "next")

    unit(body)
    assert seen == ["inner", "inner too", "call", "next", "nested"]
