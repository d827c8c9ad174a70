"""D8, D3: several event loops, loops that close, and loops that end without a word."""

import asyncio
import threading
from contextvars import copy_context

import pytest
from stage import ASGIServer, Boom, Gate, answering, settle

from postlude import (
    DeferScope,
    NoScopeWarning,
    configure,
    defer,
    defer_all,
    drain,
    failure_store,
)
from postlude._arunner import runner_for
from postlude.asgi import PostludeMiddleware


def test_a_second_loop_has_its_own_units(form):
    """Blocks on loop after loop run their calls, each on its own loop (D8)."""
    seen = []

    async def main(number):
        async with DeferScope():
            defer(form(seen.append), number)

    for number in range(10):
        asyncio.run(main(number))
    assert seen == list(range(10))


def test_one_app_serves_two_loops_one_after_the_other(form):
    """An application object that is used on a second loop works there (D8)."""
    seen = []
    server = ASGIServer(answering(lambda: defer(form(seen.append), "call")))

    async def main():
        async with server:
            await server.begin()

    asyncio.run(main())
    asyncio.run(main())
    assert seen == ["call", "call"]


def test_one_app_serves_two_loops_at_once(form):
    """Two threads with a loop each share an application; nothing is mixed up (D8)."""
    seen = []
    loops = {}
    together = threading.Barrier(2)

    def note():
        seen.append(threading.get_ident())

    async def on_loop():
        loops.setdefault(asyncio.get_running_loop(), set()).add(threading.get_ident())

    def body():
        defer(form(note))
        defer(on_loop)

    app = PostludeMiddleware(answering(body))

    async def main():
        server = ASGIServer(answering(body), wrapped=lambda _: app)
        for _ in range(20):
            await asyncio.to_thread(together.wait, 20)
            await server.begin(client=("127.0.0.1", 123))

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 40
    assert len(loops) == 2
    assert all(len(idents) == 1 for idents in loops.values())


@pytest.fixture
def loop():
    """An event loop that the test runs, stops and closes as it likes."""
    loop = asyncio.new_event_loop()
    yield loop
    for task in asyncio.all_tasks(loop):  # not some time later, by the gc
        task._log_destroy_pending = False
        task.get_coro().close()
    loop.close()


async def _request(app):
    """Do one request on a loop that promised a lifespan and then never ends it."""
    runner_for(asyncio.get_running_loop()).lifespans += 1
    await ASGIServer(app).begin()


def test_a_loop_that_is_closed_with_calls_pending_loses_none(loop, form):
    """Calls whose loop is closed before they begin run in the background (D8, D7)."""
    seen = []

    def body():
        for number in range(3):
            defer(form(seen.append), number)

    loop.run_until_complete(_request(answering(body)))
    loop.close()
    drain(20)
    assert seen == [0, 1, 2]
    assert failure_store().list() == []


def test_a_call_that_its_loop_had_only_lined_up_is_not_lost(loop):
    """A task of which nothing has run yet has not begun; it runs elsewhere (D8, D7)."""
    seen = []

    async def first():
        seen.append("first")

    def body():
        defer(first).when(lambda _outcome: seen.append("asked") or True)
        defer(seen.append, "second")

    loop.run_until_complete(_request(answering(body)))
    runner_for(loop)._flush()  # as its timer does, which may be quicker than the end
    loop.close()
    drain(20)
    assert seen == ["asked", "first", "second"]
    assert failure_store().list() == []


def test_a_call_that_has_a_task_and_has_not_begun_is_not_lost(loop):
    """Nor is one whose task was made, as for calls that have waited before (D8, D7)."""
    seen = []

    async def call():
        seen.append("began")
        await asyncio.sleep(0)

    app = answering(lambda: defer(call))
    runner_for(loop)._pause = 20.0  # its timer must not be quicker
    loop.run_until_complete(_request(app))
    runner_for(loop)._flush()
    loop.run_until_complete(settle())
    assert seen == ["began"]
    loop.run_until_complete(_request(app))
    runner_for(loop)._flush()
    assert len(asyncio.all_tasks(loop)) == 1
    loop.close()
    drain(20)
    assert seen == ["began", "began"]
    assert failure_store().list() == []


def test_a_loop_that_is_stopped_is_run_on_by_the_drain(loop, form):
    """A loop that stands still with calls pending is run until they are done (D7)."""
    seen = []

    def body():
        defer(form(seen.append), 1)
        defer(form(seen.append), 2)

    loop.run_until_complete(_request(answering(body)))
    drain(20)
    assert seen == [1, 2]


def test_a_call_cut_off_by_its_loop_is_lost_with_a_record(loop):
    """What was running on a loop that is closed is lost by name; the rest runs (D7)."""
    seen = []
    begun = asyncio.Event()

    async def endless():
        begun.set()
        await asyncio.Event().wait()

    def body():
        defer(endless).named("cut off")
        defer(seen.append, "next")

    async def main():
        await _request(answering(body))
        await begun.wait()

    loop.run_until_complete(main())
    loop.close()
    drain(20)
    assert seen == ["next"]
    assert [(r.name, r.state) for r in failure_store().list()] == [("cut off", "lost")]


def test_a_member_of_a_group_that_its_loop_never_began_runs_elsewhere(loop):
    """A loop closed at the bound loses the call that waited, not one behind it (D8)."""
    seen = []
    begun = asyncio.Event()

    async def endless():
        begun.set()
        await asyncio.Event().wait()

    async def last():
        seen.append("last")

    async def main():
        runner_for(loop).lifespans += 1
        await ASGIServer(answering(lambda: defer_all(endless, last))).begin()
        await begun.wait()

    configure(concurrency=1)
    loop.run_until_complete(main())
    loop.close()
    drain(20)
    assert seen == ["last"]
    (lost,) = failure_store().list()
    assert "endless" in lost.name
    assert lost.state == "lost"


def test_what_a_sync_call_returned_is_lost_with_the_loop_it_was_for(loop):
    """An awaitable that a closed loop did not come to is lost by name (D8, D7)."""
    begun = asyncio.Event()
    runner = runner_for(loop)

    async def endless():
        begun.set()
        await asyncio.Event().wait()

    never = loop.create_future()

    def returning():
        return never

    async def main():
        runner.lifespans += 1
        await ASGIServer(answering(lambda: defer(endless))).begin()
        await begun.wait()
        await ASGIServer(answering(lambda: defer(returning))).begin()
        while not runner._ready:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.001)

    configure(concurrency=1)
    loop.run_until_complete(main())
    loop.close()
    drain(20)
    lost = failure_store().list()
    assert sorted(r.name.rpartition(".")[2] for r in lost) == ["endless", "returning"]
    assert {record.state for record in lost} == {"lost"}


def test_a_thread_goes_on_when_its_unit_has_lost_the_loop(loop, form):
    """A sync call that ends after its loop was closed is followed by the next (D8)."""
    seen = []
    held, begun = Gate(), Gate()

    def blocked():
        begun.open()
        held.wait()
        seen.append("blocked")

    def body():
        defer(blocked)
        defer(form(seen.append), "next")

    async def main():
        await _request(answering(body))
        await begun.passed()

    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    held.open()
    drain(20)
    assert seen == ["blocked", "next"]


def test_another_loop_takes_care_of_what_a_closed_one_left(loop, form):
    """The next loop in the process sees to it that nothing stays behind (D8)."""
    seen = []
    done = Gate()

    def body():
        defer(form(seen.append), "call")
        defer(done.open)

    async def other():
        async with DeferScope():
            defer(list)

    loop.run_until_complete(_request(answering(body)))
    loop.close()
    asyncio.run(other())
    done.wait()
    assert seen == ["call"]


async def _ended():
    async with DeferScope():
        return copy_context()


def test_asyncio_run_waits_for_a_late_call(form):
    """`asyncio.run` that ends right after a late `defer` returns when it ran (A6)."""
    seen = []

    async def main():
        context = await _ended()
        context.run(defer, form(seen.append), 1)
        context.run(defer, form(seen.append), 2)

    asyncio.run(main())
    assert seen == [1, 2]
    assert failure_store().list() == []


def test_asyncio_run_waits_for_a_call_that_is_running():
    """The end of `asyncio.run` cancels its tasks, but not a late call (A6, B5)."""
    seen = []

    async def main():
        begun = asyncio.Event()

        async def call():
            begun.set()
            await settle()
            seen.append("ended")

        (await _ended()).run(defer, call)
        await begun.wait()

    asyncio.run(main())
    assert seen == ["ended"]
    assert failure_store().list() == []


def test_asyncio_run_waits_for_a_call_that_is_running_without_a_unit():
    """An async call without a unit is tracked until it is done (A5)."""
    seen = []

    async def main():
        begun = asyncio.Event()

        async def call():
            begun.set()
            await settle()
            seen.append("ended")

        with pytest.warns(NoScopeWarning):
            defer(call)
        await begun.wait()

    asyncio.run(main())
    assert seen == ["ended"]


def test_asyncio_run_waits_for_calls_of_a_server_without_a_lifespan(form):
    """Where no lifespan will drain, the request stays until its calls have run (D7)."""
    seen = []

    def body():
        defer(form(seen.append), "one")
        defer(form(lambda: defer(form(seen.append), "nested")))

    async def main():
        await ASGIServer(answering(body)).begin()
        assert seen == ["one", "nested"]

    asyncio.run(main())


def test_a_cancelled_request_cancels_no_call():
    """Whoever cancels the request's task while it waits for calls stops none (B5)."""
    seen = []

    async def main():
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def call():
            begun.set()
            await go_on.wait()
            seen.append("ended")

        request = ASGIServer(answering(lambda: defer(call))).begin()
        await begun.wait()
        request.cancel()
        await settle()
        go_on.set()
        await asyncio.wait([request])

    asyncio.run(main())
    assert seen == ["ended"]
    assert failure_store().list() == []


def test_a_cancelled_block_cancels_no_call():
    """`async with` that is cancelled while it waits leaves its calls to run (B5)."""
    seen = []

    async def main():
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def call():
            begun.set()
            await go_on.wait()
            seen.append("ended")

        async def block():
            async with DeferScope():
                defer(call)
                defer(seen.append, "next")

        task = asyncio.create_task(block())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()

    asyncio.run(main())
    assert seen == ["ended", "next"]
    assert failure_store().list() == []


def test_a_failing_main_loses_no_call(form):
    """`asyncio.run` whose coroutine raises still runs what was deferred late (A6)."""
    seen = []

    async def main():
        (await _ended()).run(defer, form(seen.append), "late")
        raise Boom

    with pytest.raises(Boom):
        asyncio.run(main())
    assert seen == ["late"]
