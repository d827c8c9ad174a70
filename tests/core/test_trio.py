"""D3, B5: under trio work stays with the request's coroutine, or goes to threads."""

import threading
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar, copy_context

import pytest
import trio
import trio.lowlevel
import trio.testing
from stage import Boom, Gate, answering

from postlude import DeferScope, configure, current_scope, defer, drain, failure_store
from postlude.asgi import PostludeMiddleware

who: ContextVar[str] = ContextVar("who", default="nobody")


async def get(app, **scope):
    """Do one request as hypercorn's trio worker does; give what was sent."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        await trio.lowlevel.checkpoint()
        sent.append(message)

    request = {"type": "http", "method": "GET", "path": "/", "headers": []}
    await app(request | scope, receive, send)
    return sent


def test_async_calls_run_on_trio_itself():
    """Async calls and awaited results of a block use trio as their caller does (D3)."""
    seen = []

    async def uses_trio(value):
        await trio.lowlevel.checkpoint()
        seen.append((value, trio.lowlevel.current_trio_token()))

    async def main():
        async with DeferScope():
            defer(uses_trio, "async")
            defer(lambda: uses_trio("awaited"))
        return trio.lowlevel.current_trio_token()

    token = trio.run(main)
    assert seen == [("async", token), ("awaited", token)]


def test_sync_calls_run_in_threads():
    """Sync calls do not block trio's loop: one that waits for it is answered (D3)."""
    seen = []

    async def main():
        me = threading.get_ident()
        answered = Gate()

        def blocked():
            trio.from_thread.run_sync(answered.open)
            answered.wait()
            seen.append(threading.get_ident() != me)

        async with DeferScope():
            defer(blocked)

    trio.run(main)
    assert seen == [True]


def test_groups_run_together_and_the_next_call_after_them():
    """Groups of async calls wait for each other; the next call waits for all (D1)."""
    seen = []

    async def main():
        one, two = trio.Event(), trio.Event()

        async def first():
            one.set()
            await two.wait()
            seen.append("group")

        async def second():
            await one.wait()
            two.set()
            seen.append("group")

        async with DeferScope():
            defer(first).concurrently()
            defer(second).concurrently()
            defer(seen.append, "after")

    trio.run(main)
    assert seen == ["group", "group", "after"]


def test_calls_see_the_context_of_their_call_site():
    """Under trio, too, a call has the values of the place that deferred it (D4)."""
    seen = []

    async def note():
        seen.append(who.get())
        who.set("changed")

    async def main():
        async with DeferScope():
            for name in "ab":
                who.set(name)
                defer(note)
                defer(lambda: seen.append(who.get()))
            who.set("later")

    trio.run(main)
    assert seen == ["a", "a", "b", "b"]


def test_an_async_call_has_its_time():
    """A time-out cancels an async call under trio, and the next one runs (D5)."""
    seen = []
    calls = []

    async def endless():
        try:
            await trio.sleep_forever()
        finally:
            seen.append("cancelled")

    async def main():
        async with DeferScope():
            calls.append(defer(endless).timeout(0.01))
            defer(seen.append, "next")

    trio.run(main)
    assert seen == ["cancelled", "next"]
    assert calls[0].state == "timed_out"
    assert [record.state for record in failure_store().list()] == ["timed_out"]


def test_a_call_has_its_time_from_its_begin():
    """Waiting for a thread is not part of a call's time under trio either (D5)."""
    configure(threads=1)
    held, calls = Gate(), []

    async def block(fn, seconds=20):
        async with DeferScope():
            calls.append(defer(fn).timeout(seconds))

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(block, held.wait)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(block, list, 0.01)
            await trio.sleep(0.05)  # more than its time
            assert [call.state for call in calls] == ["running", "running"]
            held.open()

    trio.run(main)
    assert [call.state for call in calls] == ["done", "done"]


def test_cancelling_the_block_cancels_no_call():
    """A cancelled coroutine leaves its block when the calls have run (B5)."""
    seen = []

    async def call():
        await trio.lowlevel.checkpoint()
        seen.append("async")

    async def main():
        with trio.CancelScope() as cancelled:
            async with DeferScope():
                defer(call)
                defer(seen.append, "sync")
                cancelled.cancel()

    trio.run(main)
    assert seen == ["async", "sync"]


@pytest.mark.parametrize(
    ("status", "runs"), [(200, ["plain", "always"]), (404, ["always"])]
)
def test_a_request_runs_its_calls_after_its_answer(form, status, runs):
    """Under trio a request's calls run after its last message, by the rules (C1)."""
    seen = []

    def body():
        defer(form(seen.append), "plain")
        defer(form(seen.append), "always").always()
        assert current_scope() is not None

    async def main():
        app = answering(body, status)

        async def whole(scope, receive, send):
            await app(scope, receive, send)
            assert seen == []

        sent = await get(PostludeMiddleware(whole))
        assert [message["type"] for message in sent] == [
            "http.response.start",
            "http.response.body",
        ]

    trio.run(main)
    assert seen == runs


def test_an_exception_reaches_the_server_before_the_calls_run(form):
    """An unhandled exception passes on; then what always runs does (C1, D2)."""
    seen = []
    done = Gate()

    async def app(scope, receive, send):
        defer(form(seen.append), "plain")
        defer(form(seen.append), "always").always()
        defer(form(done.open)).always()
        raise Boom

    with pytest.raises(Boom):
        trio.run(get, PostludeMiddleware(app))
    done.wait()
    assert seen == ["always"]


def test_a_request_that_lost_its_client_says_so():
    """A disconnect that the app has heard of is in the outcome (B5)."""
    calls = []

    async def app(scope, receive, send):
        await receive()
        calls.append(defer(list))
        await answering(lambda: None)(scope, receive, send)

    async def main():
        async def receive():
            return {"type": "http.disconnect"}

        async def send(message):
            pass

        request = {"type": "http", "headers": []}
        await PostludeMiddleware(app)(request, receive, send)

    trio.run(main)
    assert calls[0].state == "done"
    assert (calls[0].outcome.ok, calls[0].outcome.delivered) == (True, False)
    assert calls[0].outcome.reason == "client disconnected"


def test_a_second_middleware_joins_under_trio(form):
    """An app that is wrapped twice has one unit per request under trio too (A8)."""
    seen = []
    inner = PostludeMiddleware(answering(lambda: defer(form(seen.append), "inner")))

    async def between(scope, receive, send):
        defer(form(seen.append), "first")
        await inner(scope, receive, send)
        assert seen == []
        defer(form(seen.append), "last")

    trio.run(get, PostludeMiddleware(between))
    assert seen == ["first", "inner", "last"]


def test_a_late_call_runs_in_the_background(form):
    """What outlives a trio unit may still defer (A6)."""
    seen = []
    contexts = []
    done = Gate()

    async def main():
        async with DeferScope():
            contexts.append(copy_context())

    trio.run(main)
    contexts[0].run(defer, form(seen.append), "late")
    contexts[0].run(defer, done.open)
    done.wait()
    drain(20)
    assert seen == ["late"]


def test_the_lifespan_is_passed_on():
    """A trio server's lifespan reaches the application (D7)."""
    seen = []

    async def app(scope, receive, send):
        assert scope["type"] == "lifespan"
        seen.append((await receive())["type"])
        await send({"type": "lifespan.startup.complete"})
        seen.append((await receive())["type"])
        await send({"type": "lifespan.shutdown.complete"})

    async def main():
        messages = iter(["lifespan.startup", "lifespan.shutdown"])
        sent = []

        async def receive():
            return {"type": next(messages)}

        async def send(message):
            sent.append(message["type"])

        await PostludeMiddleware(app)({"type": "lifespan"}, receive, send)
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]

    trio.run(main)
    assert seen == ["lifespan.startup", "lifespan.shutdown"]


class Surroundings:
    """What an integration puts around calls."""

    @contextmanager
    def sync(self):
        """Surround a call in a thread."""
        with self._around():
            yield

    @asynccontextmanager
    async def asynchronous(self):
        """Surround a call on trio."""
        with self._around():
            yield

    @contextmanager
    def _around(self):
        token = who.set("surrounded")
        yield
        who.reset(token)


def test_calls_have_their_surroundings(form):
    """What a framework puts around calls is around each under trio too (D4)."""
    seen = []
    app = answering(lambda: defer(form(lambda: seen.append(who.get()))))
    trio.run(get, PostludeMiddleware(app, around=Surroundings()))
    assert seen == ["surrounded"]


def test_sync_calls_are_bounded():
    """Under trio as well no more threads work than are set (D6)."""
    configure(threads=2)
    barrier = threading.Barrier(2)
    lock = threading.Lock()
    now, most = [], []

    def meet():
        with lock:
            now.append(1)
            most.append(len(now))
        barrier.wait(20)
        with lock:
            now.pop()

    async def main():
        async with DeferScope():
            for _ in range(40):
                defer(meet).concurrently()

    trio.run(main)
    assert len(most) == 40
    assert max(most) == 2


def test_a_sync_block_works_on_trio(form, logged):
    """`with DeferScope()` in trio code runs its calls before it is left (B6)."""
    seen = []

    async def main():
        with DeferScope():
            defer(form(seen.append), "call")
        seen.append("after")

    trio.run(main)
    assert seen == ["call", "after"]
