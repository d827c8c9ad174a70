"""D5: a time-out cancels async calls, abandons sync ones, and says so."""

import asyncio
import logging
import threading

import pytest
from stage import Gate, replying, settle, visit

from postlude import (
    DeferScope,
    _atasks,
    configure,
    defer,
    defer_all,
    drain,
    failure_store,
)
from postlude.wsgi import PostludeMiddleware

SHORT = 0.01
"""Seconds; what waits for ever is given up after it."""


def test_an_async_call_is_cancelled(unit_on_asyncio, logged):
    """An async call over its time gets CancelledError and ends as timed out (D5)."""
    seen = []
    calls = []

    async def endless():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    def body():
        calls.append(defer(endless).timeout(SHORT).named("endless"))
        defer(seen.append, "next")

    unit_on_asyncio(body)
    assert seen == ["cancelled", "next"]
    assert (calls[0].state, calls[0].reason) == ("timed_out", None)
    assert [(r.id, r.state) for r in failure_store().list()] == [
        (calls[0].id, "timed_out")
    ]
    (text,) = logged.texts(logging.ERROR)
    assert text.startswith("deferred call endless timed out after 0.01 s")
    assert calls[0].site in text


def test_the_cleanup_of_a_cancelled_call_comes_before_the_next(unit_on_asyncio):
    """What a cancelled call awaits on its way out comes before the next (D5, D1)."""
    seen = []

    async def endless():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            seen.append("cleaned up")

    def body():
        defer(endless).timeout(SHORT)
        defer(seen.append, "next")

    unit_on_asyncio(body)
    assert seen == ["cleaned up", "next"]


def test_an_awaited_result_is_cancelled_too(unit_on_asyncio):
    """`lambda: coro()` has its time like a coroutine function (D5)."""
    seen = []

    async def endless():
        await asyncio.Event().wait()

    def body():
        defer(lambda *args: endless(*args)).timeout(SHORT)  # noqa: PLW0108 - what is tested
        defer(seen.append, "next")

    unit_on_asyncio(body)
    assert seen == ["next"]
    assert [record.state for record in failure_store().list()] == ["timed_out"]


def test_a_call_that_ignores_its_cancellation_is_left_behind(monkeypatch, logged):
    """A call that goes on when cancelled holds the next only for a moment (D5)."""
    monkeypatch.setattr(_atasks, "_CANCEL_GRACE", SHORT)
    seen = []

    async def main():
        go = asyncio.Event()

        async def deaf():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await go.wait()
                seen.append("deaf")

        async with DeferScope():
            defer(deaf).timeout(SHORT).named("deaf")
            defer(seen.append, "next")
        go.set()

    asyncio.run(main())
    assert seen[0] == "next"
    assert any("deaf is still running" in t for t in logged.texts(logging.WARNING))


def test_a_call_that_heeds_its_cancellation_is_not_left_behind(monkeypatch, logged):
    """Once it has ended in time, the next calls keep their order (D5, D1)."""
    monkeypatch.setattr(_atasks, "_CANCEL_GRACE", SHORT)
    seen = []

    async def endless():
        await asyncio.Event().wait()

    async def past_the_grace():
        over = asyncio.Event()
        asyncio.get_running_loop().call_later(2 * SHORT, over.set)
        await over.wait()
        seen.append("past the grace")

    async def main():
        async with DeferScope():
            defer(endless).timeout(SHORT)
            defer(past_the_grace)
            defer(seen.append, "next")

    asyncio.run(main())
    assert seen == ["past the grace", "next"]
    (text,) = logged.texts(logging.INFO)
    assert "timed out after 0.01 s and was cancelled" in text


def test_the_end_of_a_call_that_was_left_behind_begins_nothing(monkeypatch):
    """The next one is in its place then, and those after it wait for that (D5, D1)."""
    monkeypatch.setattr(_atasks, "_CANCEL_GRACE", SHORT)
    seen = []

    async def main():
        go, gone = asyncio.Event(), asyncio.Event()

        async def deaf():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await go.wait()
                gone.set()

        async def second():
            go.set()
            await gone.wait()
            await settle()
            seen.append("second")

        async def third():
            seen.append("third")

        async with DeferScope():
            call = defer(deaf).timeout(SHORT)
            defer(second)
            defer(third)
        return call.state

    assert asyncio.run(main()) == "timed_out"
    assert seen == ["second", "third"]


def test_a_sync_call_is_abandoned_and_reported_while_it_runs(unit, logged):
    """A sync call over its time is named in the log and the next one runs (D5)."""
    held, over = Gate(), Gate()
    seen = []
    calls = []

    def blocked():
        held.wait()
        seen.append("blocked")
        over.open()

    def body():
        calls.append(defer(blocked).timeout(SHORT).named("blocked"))
        defer(lambda: seen.append(calls[0].state))

    unit(body)
    assert seen == ["timed_out"]
    (text,) = logged.texts(logging.ERROR)
    assert text.startswith(
        "deferred call blocked timed out after 0.01 s and is still running in its "
    )
    held.open()
    over.wait()
    logged.wait_for("deferred call blocked, given up as timed_out, has ended after all")
    assert calls[0].state == "timed_out"
    assert [record.state for record in failure_store().list()] == ["timed_out"]


def test_an_abandoned_call_that_fails_later_changes_nothing(logged):
    """What a given-up call raises in the end is no second failure of it (D5, C5)."""
    held = Gate()

    def blocked():
        held.wait()
        raise LookupError

    with DeferScope():
        call = defer(blocked).timeout(SHORT)
    assert call.state == "timed_out"
    held.open()
    logged.wait_for("has ended after all")
    assert call.state == "timed_out"
    assert len(failure_store().list()) == 1


def test_a_call_within_its_time_is_not_touched(unit, form):
    """A call that ends in time is done, and its time-out is forgotten (D5)."""
    seen = []
    calls = []
    unit(lambda: calls.append(defer(form(seen.append), 1).timeout(15)))
    assert (seen, calls[0].state) == ([1], "done")
    assert failure_store().list() == []


def test_members_of_a_group_have_their_own_time(unit_on_asyncio, logged):
    """One member that is given up leaves the others to end (D5, D1)."""
    held = Gate()
    seen = []

    async def endless():
        await asyncio.Event().wait()

    def body():
        slow, blocked, _ = defer_all(endless, held.wait, lambda: seen.append("member"))
        slow.timeout(SHORT)
        blocked.timeout(SHORT)
        defer(seen.append, "next")

    unit_on_asyncio(body)
    held.open()
    logged.wait_for("has ended after all")
    assert seen == ["member", "next"]
    assert [record.state for record in failure_store().list()] == ["timed_out"] * 2


def test_stuck_threads_are_replaced(own_threads, logged):
    """Calls that were given up do not use up the threads of the next ones (D5, D6)."""
    configure(threads=1)
    held, done = Gate(), Gate()
    app = PostludeMiddleware(replying(lambda: defer(held.wait).timeout(SHORT)))
    visit(app)
    visit(PostludeMiddleware(replying(lambda: defer(done.open))))
    done.wait()
    held.open()
    logged.wait_for("has ended after all")


def test_a_replaced_thread_ends_with_its_call(own_threads, logged):
    """Once given-up calls have ended there are no more threads than the bound (D6)."""
    configure(threads=1)
    held = Gate()
    stuck = []

    def blocked():
        stuck.append(threading.current_thread())
        held.wait()

    visit(PostludeMiddleware(replying(lambda: defer(blocked).timeout(SHORT))))
    logged.wait_for("timed out")
    done = Gate()
    visit(PostludeMiddleware(replying(lambda: defer(done.open))))
    done.wait()
    held.open()
    for thread in stuck:
        thread.join(20)
        assert not thread.is_alive()


def test_a_call_over_the_soft_limit_is_reported_while_it_runs(logged):
    """A call that belongs on a queue is named once, before it ends (D5)."""
    configure(soft_limit=SHORT)
    heard = []

    def long():
        heard.append(logged.wait_for("belongs on a queue"))

    with DeferScope():
        call = defer(long).named("long")
    assert heard[0].startswith("deferred call long is still running after")
    assert call.site in heard[0]
    assert call.state == "done"
    assert len([t for t in logged.texts() if "belongs on a queue" in t]) == 1


async def test_a_long_async_call_is_reported_too(logged):
    """The soft limit holds for async calls (D5)."""
    configure(soft_limit=SHORT)

    async def long():
        await asyncio.to_thread(logged.wait_for, "deferred call long is still running")

    async with DeferScope():
        call = defer(long).named("long")
    assert call.state == "done"


@pytest.mark.parametrize("seconds", [0.5, 3, 10**6])
def test_a_time_out_is_any_positive_number(seconds):
    """Whole and broken seconds are accepted (D5)."""
    with DeferScope():
        call = defer(list).timeout(seconds)
    assert call.state == "done"


def test_a_timed_out_call_is_not_waited_for_at_the_end(own_threads, logged):
    """`drain` does not wait for what has been given up (D5, D7)."""
    held = Gate()
    visit(PostludeMiddleware(replying(lambda: defer(held.wait).timeout(SHORT))))
    drain(15)
    assert [record.state for record in failure_store().list()] == ["timed_out"]
    held.open()
    logged.wait_for("has ended after all")
