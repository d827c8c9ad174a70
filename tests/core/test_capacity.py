"""D6: threads, concurrent async calls and pending calls are bounded."""

import asyncio
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from stage import ASGIServer, Gate, answering, replying, settle, visit

from postlude import DeferScope, configure, defer, defer_all, drain
from postlude.wsgi import PostludeMiddleware

pytestmark = pytest.mark.usefixtures("own_threads")


class Pairs:
    """Calls that can only end two by two, and how many of them ran at once."""

    def __init__(self, size=2):
        self.size = size
        self.now = 0
        self.most = 0
        self.ended = 0
        self._lock = threading.Lock()
        self._barrier = threading.Barrier(size)
        self._turnstile = asyncio.Condition()
        self._arrived = 0

    def _enter(self, step):
        with self._lock:
            self.now += step
            self.most = max(self.most, self.now)
            self.ended += step < 0

    def awaited(self):
        """Do the same for who awaits what this returns."""
        return self.asynchronous()

    def sync(self):
        """Wait in a thread for the others."""
        self._enter(1)
        self._barrier.wait(20)
        self._enter(-1)

    async def asynchronous(self):
        """Wait on the loop for the others."""
        self._enter(1)
        async with self._turnstile:
            self._arrived += 1
            arrived = self._arrived
            whole = -(-arrived // self.size) * self.size
            self._turnstile.notify_all()
            await self._turnstile.wait_for(lambda: self._arrived >= whole)
        self._enter(-1)


def wait_for_state(call, state):
    """Block until a call has come to a state."""
    while call.state != state:
        time.sleep(0.001)


def test_no_more_threads_than_set():
    """Sync calls of many units use as many threads as are set, all, no more (D6)."""
    configure(threads=2)
    pairs = Pairs()
    app = PostludeMiddleware(replying(lambda: defer(pairs.sync)))
    for _ in range(60):
        visit(app)
    drain(20)
    assert (pairs.ended, pairs.most) == (60, 2)


async def test_no_more_threads_than_set_under_asgi():
    """Units of an event loop share the same bounded threads (D3, D6)."""
    configure(threads=2)
    pairs = Pairs()
    async with ASGIServer(answering(lambda: defer(pairs.sync))) as server:
        await asyncio.gather(*[server.begin() for _ in range(60)])
    assert (pairs.ended, pairs.most) == (60, 2)


async def test_no_more_async_calls_at_once_than_set():
    """Async calls of many units run up to the bound together, no more (D6)."""
    configure(concurrency=3)
    pairs = Pairs(3)
    async with ASGIServer(answering(lambda: defer(pairs.asynchronous))) as server:
        await asyncio.gather(*[server.begin() for _ in range(60)])
    assert (pairs.ended, pairs.most) == (60, 3)


async def test_async_calls_that_wait_fill_the_bound():
    """At the bound none begins until one has ended (D6)."""
    configure(concurrency=3)
    begun = []
    full, free = asyncio.Event(), asyncio.Event()

    async def waits():
        begun.append(free.is_set())
        if len(begun) == 3:
            full.set()
        await free.wait()

    async def look():
        await full.wait()
        await settle()
        free.set()

    looks = asyncio.create_task(look())
    async with DeferScope():
        defer_all(*[waits] * 9)
    await looks
    assert begun == [False] * 3 + [True] * 6


async def test_a_group_is_bounded_too():
    """The members of a group, of all forms, keep within the bounds (D1, D6)."""
    configure(concurrency=3, threads=2)
    asynchronous, sync = Pairs(3), Pairs(2)
    async with DeferScope():
        for _ in range(30):
            defer(asynchronous.asynchronous).concurrently()
            defer(asynchronous.awaited).concurrently()
            defer(sync.sync).concurrently()
    assert (asynchronous.ended, asynchronous.most) == (60, 3)
    assert (sync.ended, sync.most) == (30, 2)


def test_async_calls_of_wsgi_units_are_bounded_too():
    """Postlude's own loop keeps the bound (D3, D6)."""
    configure(concurrency=3)
    pairs = Pairs(3)
    app = PostludeMiddleware(replying(lambda: defer(pairs.asynchronous)))
    for _ in range(30):
        visit(app)
    drain(20)
    assert (pairs.ended, pairs.most) == (30, 3)


def test_threads_start_when_they_are_needed():
    """A short call after another does not start a second thread (D6)."""
    idents = set()
    app = PostludeMiddleware(
        replying(lambda: defer(lambda: idents.add(threading.get_ident())))
    )
    for _ in range(20):
        visit(app)
        drain(20)
    assert len(idents) == 1


async def test_at_the_bound_the_request_waits_after_its_response():
    """With `wait` a request over the bound stays until its calls have run (D6)."""
    configure(max_pending=2, overflow="wait")
    held = Gate()
    begun = Gate()

    def body():
        defer(begun.open)
        defer(held.wait)
        defer(list)

    async with ASGIServer(answering(body)) as server:
        request = server.begin()
        await begun.passed()
        await settle()
        assert not request.done()
        held.open()
        answer = await request
        assert answer.body == b"hello"


async def test_below_the_bound_the_request_does_not_wait():
    """A request whose calls fit is over while they run (D6, B2)."""
    configure(max_pending=3, overflow="wait")
    held = Gate()

    def body():
        for _ in range(3):
            defer(held.wait)

    async with ASGIServer(answering(body)) as server:
        answer = await server.begin()
        assert answer.body == b"hello"
        held.open()


async def test_what_other_requests_left_counts():
    """The bound is one for the process: full of others' calls, it is full (D6)."""
    configure(max_pending=3, overflow="drop")
    held = Gate()
    calls = []

    def body():
        calls.append([defer(held.wait), defer(list)])

    async with ASGIServer(answering(body)) as server:
        for _ in range(2):
            await server.begin()
        held.open()
    first, second = calls
    assert [call.state for call in first] == ["done", "done"]
    assert [call.reason for call in second] == ["overflow", "overflow"]


async def test_once_the_calls_have_run_there_is_room_again():
    """Finished calls do not count any more (D6)."""
    configure(max_pending=2, overflow="drop")
    calls = []
    ended = []

    def body():
        calls.append(defer(list))
        calls.append(defer(ended[-1].open))

    async with ASGIServer(answering(body)) as server:
        for _ in range(5):
            ended.append(Gate())
            await server.begin()
            await ended[-1].passed()
            await asyncio.to_thread(wait_for_state, calls[-1], "done")
            await settle()
    assert {call.state for call in calls} == {"done"}


def test_a_wsgi_request_over_the_bound_waits():
    """With `wait` a WSGI server's `close()` returns when the calls have run (D6)."""
    configure(max_pending=1, overflow="wait")
    seen = []

    async def last():
        seen.append("last")

    def body():
        defer(seen.append, "first")
        defer(last)

    visit(PostludeMiddleware(replying(body)))
    assert seen == ["first", "last"]


def test_a_wsgi_request_below_the_bound_does_not_wait():
    """A WSGI request whose calls fit is over while they run (D6, B2)."""
    configure(max_pending=1, overflow="wait")
    held = Gate()
    answer = visit(PostludeMiddleware(replying(lambda: defer(held.wait))))
    assert answer.body == b"hello"
    held.open()


@pytest.mark.parametrize("server", ["asgi", "wsgi"])
def test_at_the_bound_calls_are_dropped_if_set_so(server, logged):
    """With `drop` a request over the bound loses its calls, each by name (D6, C5)."""
    configure(max_pending=2, overflow="drop")
    calls = []

    def body():
        calls.extend(defer(list).named(name).always() for name in "abc")

    async def serve():
        async with ASGIServer(answering(body)) as asgi:
            return await asgi.begin()

    if server == "asgi":
        answer = asyncio.run(serve())
    else:
        answer = visit(PostludeMiddleware(replying(body)))
    drain(20)
    assert answer.body == b"hello"
    assert [(call.state, call.reason) for call in calls] == [
        ("dropped", "overflow")
    ] * 3
    texts = logged.texts(logging.WARNING)
    assert [text.split(" (")[0] for text in texts] == [
        f"deferred call {name} dropped: overflow" for name in "abc"
    ]


async def test_sync_calls_never_block_the_loop(form):
    """A sync call that waits for the loop gets its answer: it is elsewhere (D3)."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    answered = Gate()
    seen = []

    def blocked():
        loop.call_soon_threadsafe(asked.set)
        answered.wait()
        seen.append("answered")

    async def answer():
        await asked.wait()
        answered.open()

    task = asyncio.create_task(answer())
    async with DeferScope():
        defer(blocked)
        defer(form(seen.append), "next")
    await task
    assert seen == ["answered", "next"]


async def test_sync_calls_do_not_use_the_loops_own_threads():
    """Calls run while all threads of the loop's own pool are busy with the app (D3)."""
    pool = ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(pool)
    done, idle = Gate(), Gate()
    busy = pool.submit(done.wait)

    def body():
        defer(done.open)
        defer(idle.wait)

    async with ASGIServer(answering(body)) as server:
        await server.begin()
        await asyncio.wrap_future(busy)
        assert await asyncio.to_thread(lambda: "the app's thread is free")
        idle.open()
    pool.shutdown()


async def test_async_calls_run_on_the_apps_loop():
    """Under ASGI async calls and awaited results share the app's loop (D3)."""
    loops = []

    async def note():
        loops.append(asyncio.get_running_loop())

    def body():
        defer(note)
        defer(lambda: note())  # noqa: PLW0108 - a call that returns an awaitable

    async with ASGIServer(answering(body)) as server:
        await server.begin()
    assert loops == [asyncio.get_running_loop()] * 2


def test_async_calls_of_wsgi_units_share_one_loop():
    """Under WSGI async calls run on one loop of Postlude's own (D3)."""
    loops = []

    async def note():
        loops.append(asyncio.get_running_loop())

    def body():
        defer(note)
        defer(lambda: note())  # noqa: PLW0108 - a call that returns an awaitable

    app = PostludeMiddleware(replying(body))
    for _ in range(2):
        visit(app)
        drain(20)
    assert len(loops) == 4
    assert len(set(loops)) == 1
