"""D2, D4, D6: async calls that wait for nothing share a task; nobody notices."""

import asyncio
import contextlib
import threading
from contextvars import Context, ContextVar

import pytest
from stage import ASGIServer, answering, settle

from postlude import (
    DeferScope,
    _acall,
    current_call,
    defer,
    defer_all,
    failure_store,
)
from postlude._arunner import runner_for

who: ContextVar[str] = ContextVar("who", default="nobody")


async def turn(times=1):
    """Give the loop a turn, or several: what it awaits is no future."""
    for _ in range(times):
        await asyncio.sleep(0)


async def each(fns):
    """Defer functions in a unit, from one place; give the calls, once they have run."""
    async with DeferScope():
        return [defer(fn) for fn in fns]


@pytest.fixture(params=["a new place", "where calls have waited"])
def run(request):
    """Runs functions as the calls of a unit, and gives the calls."""

    def run(*fns):
        async def main():
            if request.param != "a new place":
                await each([turn])
            return await each(fns)

        return asyncio.run(main())

    return run


def test_a_call_that_waits_has_its_task_to_itself(run):
    """`asyncio.current_task()` is the same for all of a call, and no other's (D2)."""
    tasks = []

    async def note():
        tasks.append(asyncio.current_task())
        await turn()
        tasks.append(asyncio.current_task())

    run(note, note)
    assert None not in tasks
    assert tasks[0] is tasks[1]
    assert tasks[2] is tasks[3]
    assert tasks[0] is not tasks[2], "a task whose call waited served another one"


def test_context_variables_last_over_every_wait():
    """What a call sets is there after each wait, and nowhere else (D4)."""
    seen = []
    together = asyncio.Barrier(3)

    async def call(name):
        who.set(name)
        await together.wait()
        seen.append((name, who.get(), current_call() is not None))
        await turn(3)
        seen.append((name, who.get(), current_call() is not None))

    async def main():
        who.set("unit")
        async with DeferScope():
            defer_all(lambda: call("a"), lambda: call("b"), lambda: call("c"))
        assert who.get() == "unit"

    asyncio.run(main())
    assert sorted(seen) == sorted([(n, n, True) for n in "abc" for _ in range(2)])


def test_a_call_that_is_thrown_away_ends_in_its_own_context():
    """As with its loop, while it waits: its cleanup sees its variables (D4)."""
    seen = []

    async def call():
        who.set("call")
        try:
            await turn()
        finally:
            seen.append(who.get())

    async def drive():
        await _acall.rest(context.run, step, waits_for)
        seen.append("went on")

    context, step = Context(), call()
    waits_for = context.run(step.send, None)
    driver = drive()
    driver.send(None)
    driver.close()
    assert seen == ["call"]


def test_a_callback_of_a_call_has_its_context(run):
    """What a call has the loop call back sees the call's variables (D4)."""
    seen = []

    async def call(name):
        who.set(name)
        await turn()
        asyncio.get_running_loop().call_soon(lambda: seen.append(who.get()))
        seen.append(await asyncio.create_task(child()))

    async def child():
        return who.get()

    run(lambda: call("a"), lambda: call("b"))
    assert sorted(seen) == ["a", "a", "b", "b"]


def test_units_that_wait_hold_up_no_other():
    """Of many requests' calls each begins although those before it wait (D3)."""
    begun = []

    async def main():
        free = asyncio.Event()

        async def wait():
            begun.append("waits")
            await free.wait()

        async def note():
            begun.append("does not")
            if len(begun) == 20:
                free.set()

        both = [wait, note]
        server = ASGIServer(answering(lambda: defer(both[len(sent) % 2])))
        sent = []
        async with server:
            while len(sent) < 20:
                sent.append(await server.begin())
            await free.wait()

    asyncio.run(main())
    assert sorted(begun) == ["does not"] * 10 + ["waits"] * 10


def test_calls_that_never_wait_let_the_loop_have_its_turns():
    """A long line of calls of no length does not stop the loop until its end (D3)."""
    ran = []
    turns = []

    async def spin():
        ran.append(threading.get_ident())
        for _ in range(10_000):
            pass

    async def main():
        loop = asyncio.get_running_loop()

        def note():
            turns.append(len(ran))
            if len(ran) < 1_000:
                loop.call_soon(note)

        async with DeferScope():
            for _ in range(1_000):
                defer(spin)
            loop.call_soon(note)

    asyncio.run(main())
    assert len(ran) == 1_000
    assert len({count for count in turns if 0 < count < 1_000}) >= 3


async def cancel_own_task():
    """Cancel what it takes for its own task, and end before that is felt."""
    asyncio.current_task().cancel()


async def cancel_and_take_back():
    """The same, taken back; before Python 3.13 the next wait feels it all the same."""
    task = asyncio.current_task()
    task.cancel()
    task.uncancel()


async def cancel_and_wait():
    """Be cancelled in a wait."""
    asyncio.current_task().cancel()
    await turn()


async def swallow():
    """Be cancelled, and go on."""
    asyncio.current_task().cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await turn()


@pytest.mark.parametrize(
    "cancel", [cancel_own_task, cancel_and_take_back, cancel_and_wait, swallow]
)
def test_a_cancellation_by_one_call_is_not_felt_by_the_next(run, cancel):
    """Whatever a call does to its task, the next call's waits are its own (D2)."""
    seen = []

    async def after():
        await turn()
        async with asyncio.timeout(20):
            await turn()
        seen.append(asyncio.current_task().cancelling())

    calls = run(cancel, after)
    assert seen == [0]
    assert calls[1].state == "done"


def test_whoever_cancels_all_tasks_loses_no_call():
    """A task that is cancelled before its first step takes no call with it (D7)."""
    seen = []

    async def call():
        seen.append("ran")

    async def main():
        runner = runner_for(asyncio.get_running_loop())
        runner._pause = 3600.0  # nothing begins before the test says so
        async with ASGIServer(answering(lambda: defer(call))) as server:
            others = asyncio.all_tasks()
            for _ in range(3):
                await server.begin()
            runner._flush()  # as its timer does
            (begins,) = asyncio.all_tasks() - others
            begins.cancel()
            await settle()
            assert seen == ["ran"] * 3

    asyncio.run(main())
    assert failure_store().list() == []


def test_a_sync_call_behind_a_dropped_async_one_stays_off_the_loop():
    """What comes next is judged when it is taken: sync is for a thread (D3)."""
    where = []

    async def never():
        where.append("never")

    async def main():
        async with DeferScope():
            defer(never).when(lambda outcome: False)
            defer(lambda: where.append(threading.get_ident()))
        return threading.get_ident()

    on_loop = asyncio.run(main())
    assert len(where) == 1
    assert where[0] != on_loop
