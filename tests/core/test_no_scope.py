"""A5: `defer` where nothing collects calls."""

import asyncio
import threading
import warnings

import pytest
from stage import Boom, Gate

from postlude import (
    DeferScope,
    NoScopeError,
    NoScopeWarning,
    PostludeError,
    configure,
    current_scope,
    defer,
    defer_all,
    drain,
    failure_store,
    forget,
)

once = pytest.mark.filterwarnings("ignore::postlude.NoScopeWarning")


def test_a_sync_call_runs_in_place_with_one_warning():
    """With no unit a sync call runs at once, here, and a warning says so (A5)."""
    seen = []
    with pytest.warns(NoScopeWarning) as caught:
        call = defer(lambda: seen.append(threading.get_ident()))
    assert seen == [threading.get_ident()]
    assert call.state == "done"
    (warning,) = caught
    text = str(warning.message)
    assert warning.filename == __file__
    assert f"so {call.name} ran at once" in text
    assert "Usually the Postlude middleware is not installed" in text
    assert "Install the middleware, or wrap the code in `with DeferScope():`" in text


def test_each_call_site_warns_once():
    """A place that defers often warns once, another place once more (A5)."""
    seen = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(3):
            defer(seen.append, number)
            defer(seen.append, number)
    assert seen == [0, 0, 1, 1, 2, 2]
    assert len(caught) == 2
    assert len({warning.lineno for warning in caught}) == 2


@once
def test_without_a_loop_an_async_call_runs_to_its_end(form):
    """Async calls and awaited results have run when `defer` returns (A5)."""
    seen = []
    call = defer(form(seen.append), 1)
    assert (seen, call.state) == ([1], "done")


@once
async def test_on_a_loop_an_async_call_runs_on_it():
    """On a running loop an async call is a task of it; `defer` does not wait (A5)."""
    seen = []
    ran = asyncio.Event()

    async def note():
        seen.append(asyncio.get_running_loop())
        ran.set()

    call = defer(note)
    assert seen == []
    await ran.wait()
    assert call.state in {"running", "done"}
    assert seen == [asyncio.get_running_loop()]


@once
async def test_on_a_loop_a_sync_call_runs_in_place():
    """On a running loop a sync call runs at once, in place (A5)."""
    seen = []
    defer(lambda: seen.append(threading.get_ident()))
    assert seen == [threading.get_ident()]


@once
def test_an_async_call_is_tracked_until_it_is_done(form):
    """`asyncio.run` that ends right after the `defer` has run the call (A5)."""
    seen = []

    async def main():
        defer(form(seen.append), 1)

    asyncio.run(main())
    assert seen == [1]


@once
def test_what_such_a_call_defers_joins_it(form):
    """A call without a unit is a unit of its own for what it defers itself (A5, A7)."""
    seen = []

    def outer():
        defer(form(seen.append), "nested")
        seen.append("outer")

    defer(form(outer))
    assert seen == ["outer", "nested"]
    assert current_scope() is None


@once
def test_such_a_call_fails_like_any_other(form):
    """What a call without a unit raises is logged and recorded, not raised (A5, D2)."""

    def fail():
        raise Boom

    call = defer(form(fail))
    assert call.state == "failed"
    assert [record.id for record in failure_store().list()] == [call.id]


@once
def test_options_of_a_call_that_has_run_have_nothing_to_change(form):
    """The same code works inside a unit and outside: options raise nothing (A5)."""
    seen = []
    call = defer(form(seen.append), 1)
    options = call.always().named("n").timeout(1).when(bool).concurrently()
    assert options.after_commit(False).cancel() is call
    assert (seen, call.state, call.outcome) == ([1], "done", None)


@once
async def test_a_tracked_call_can_still_be_cancelled():
    """On a loop an async call has not started yet, and may be taken back (A5, C4)."""
    seen = []

    async def never():
        seen.append("never")

    call = defer(never).cancel()
    await asyncio.to_thread(drain, 20)
    assert (call.state, call.reason, seen) == ("dropped", "cancelled", [])


@once
def test_a_group_without_a_unit_runs_together():
    """Without a unit too the functions of `defer_all` run at the same time (A5, D1)."""
    barrier = threading.Barrier(2)
    calls = defer_all(lambda: barrier.wait(5), lambda: barrier.wait(5))
    assert [call.state for call in calls] == ["done", "done"]


@once
def test_a_thread_started_by_hand_has_no_unit():
    """A thread without the context is outside: its call runs there, at once (A5)."""
    seen = []

    def work():
        defer(lambda: seen.append(threading.current_thread()))

    with DeferScope() as scope:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert scope.pending == 0
    assert seen == [thread]


def test_strict_mode_raises_and_registers_nothing(form):
    """In strict mode `defer` without a unit is an error in three beats (A5)."""
    configure(strict=True)
    seen = []
    with pytest.raises(NoScopeError) as caught:
        defer(form(seen.append), 1)
    text = str(caught.value)
    assert "was not registered" in text
    assert "Usually the Postlude middleware is not installed" in text
    assert "wrap the code in `with DeferScope():`" in text
    assert isinstance(caught.value, PostludeError)
    assert isinstance(caught.value, LookupError)
    assert seen == []


def test_strict_mode_refuses_groups_whole():
    """In strict mode nothing of a group runs (A5)."""
    configure(strict=True)
    seen = []
    with pytest.raises(NoScopeError):
        defer_all(lambda: seen.append(1), lambda: seen.append(2))
    assert seen == []


def test_strict_mode_changes_nothing_inside_a_unit(unit):
    """In strict mode units work as ever, nested calls too (A5)."""
    configure(strict=True)
    seen = []
    unit(lambda: defer(lambda: defer(seen.append, "nested")))
    assert seen == ["nested"]


@once
def test_forget_outside_does_nothing():
    """`forget` finds nothing where no unit is open (A5, C4)."""
    defer(list).named("n")
    assert not forget("n")


@once
async def test_a_call_without_a_unit_does_not_wait_for_another_ones_drain():
    """Calls without a unit are units of their own: one does not hold the next (A5)."""
    held, done = Gate(), Gate()

    async def waits():
        await held.passed()

    async def goes():
        done.open()

    defer(waits)
    defer(goes)
    await done.passed()
    held.open()
