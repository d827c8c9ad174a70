"""D2: whatever one call raises, nobody else is hurt."""

import asyncio
import logging
import threading

import pytest
from stage import ASGIServer, Boom, answering, replying, visit

from postlude import DeferScope, defer, defer_all, drain, failure_store
from postlude.wsgi import PostludeMiddleware


class OwnBase(BaseException):
    """A BaseException of the application's own."""


class Unspeakable(Exception):  # noqa: N818 - it stands for no error in particular
    """An exception whose texts raise."""

    def __str__(self):
        raise Boom

    __repr__ = __str__


EXCEPTIONS = [
    Boom,
    OwnBase,
    Unspeakable,
    SystemExit,
    KeyboardInterrupt,
    GeneratorExit,
    StopIteration,
    StopAsyncIteration,
    asyncio.CancelledError,
    BaseExceptionGroup("two", [Boom(), SystemExit()]),
]
any_exception = pytest.mark.parametrize(
    "exception", EXCEPTIONS, ids=lambda value: getattr(value, "__name__", "group")
)


@any_exception
def test_the_next_call_runs_whatever_one_raises(unit, form, exception, logged):
    """An exception of one call is its own: recorded, logged; the next runs (D2)."""
    seen = []
    calls = []

    def fail():
        raise exception

    def body():
        calls.append(defer(form(fail)))
        calls.append(defer(form(seen.append), "next"))

    unit(body)
    assert seen == ["next"]
    assert [call.state for call in calls] == ["failed", "done"]
    assert [record.id for record in failure_store().list()] == [calls[0].id]
    assert len(logged.texts(logging.ERROR)) == 1


@any_exception
def test_the_others_of_a_group_run_whatever_one_raises(unit, form, exception):
    """A member of a group that fails stops neither the group nor what follows (D2)."""
    seen = []

    def fail():
        raise exception

    def body():
        defer_all(form(fail), form(lambda: seen.append("member")), form(fail))
        defer(form(seen.append), "after")

    unit(body)
    assert seen == ["member", "after"]
    assert len(failure_store().list()) == 2


def test_many_failures_leave_the_threads_alive(own_threads):
    """A thread that ran a hundred failing calls runs the next one (D2)."""
    workers = set()

    def fail():
        workers.add(threading.get_ident())
        raise SystemExit

    app = PostludeMiddleware(replying(lambda: [defer(fail) for _ in range(100)]))
    for _ in range(3):
        visit(app)
        drain()
    assert len(failure_store().list()) == 300
    assert len(workers) == 1
    assert workers <= {thread.ident for thread in threading.enumerate()}


async def test_a_call_that_cancels_itself_is_its_own_failure():
    """An async call that cancels its own task has failed; the next one runs (D2)."""
    seen = []
    calls = []

    async def suicidal():
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    async with DeferScope():
        calls.append(defer(suicidal))
        defer(seen.append, "next")
    assert seen == ["next"]
    assert calls[0].state == "failed"
    assert isinstance(calls[0].exception, asyncio.CancelledError)


async def test_a_task_that_is_cancelled_from_outside_is_one_failure():
    """Somebody who cancels all tasks of the loop ends one call, not the unit (D2)."""
    seen = []

    async def cancelled():
        me = asyncio.current_task()
        asyncio.get_running_loop().call_soon(me.cancel)
        await asyncio.Event().wait()

    async with DeferScope():
        call = defer(cancelled)
        defer(seen.append, "next")
    assert (seen, call.state) == (["next"], "failed")


@pytest.mark.parametrize("exception", [Boom, SystemExit, KeyboardInterrupt])
async def test_the_response_and_the_server_are_untouched(form, exception):
    """A failing call changes neither its response nor the next request's (D2)."""
    seen = []

    def fail():
        raise exception

    def body():
        defer(form(fail))
        defer(form(seen.append), "next")

    async with ASGIServer(answering(body)) as server:
        answers = [await server.begin() for _ in range(3)]
    assert [(a.status, a.body, a.exception) for a in answers] == 3 * [
        (200, b"hello", None)
    ]
    assert seen == ["next"] * 3


def test_a_result_that_cannot_be_looked_at_hurts_nobody(unit):
    """A result whose attributes raise, as of an unbound proxy, is ignored (D2)."""

    class Proxy:
        def __getattribute__(self, name):
            raise RuntimeError("working outside of something")

    seen = []

    def body():
        defer(Proxy)
        defer(seen.append, "next")

    unit(body)
    assert seen == ["next"]


def test_an_awaitable_that_breaks_is_a_failure(unit_on_asyncio):
    """A result whose `__await__` raises, or gives no iterator, fails its call (D2)."""

    class Broken:
        def __await__(self):
            raise Boom

    class NoIterator:
        def __await__(self):
            return 7

    seen = []

    def body():
        defer(Broken)
        defer(NoIterator)
        defer(seen.append, "next")

    unit_on_asyncio(body)
    assert seen == ["next"]
    assert len(failure_store().list()) == 2


def test_wrong_arguments_fail_when_the_call_runs(unit, form):
    """Arguments that do not fit are a recorded TypeError of that call alone (D2)."""
    seen = []
    calls = []

    async def takes_one(argument):
        seen.append(argument)

    def body():
        calls.append(defer(takes_one, 1, 2, three=3))
        calls.append(defer(lambda one: [seen.append(one)]))
        defer(form(seen.append), "next")

    unit(body)
    assert seen == ["next"]
    assert [type(call.exception) for call in calls] == [TypeError, TypeError]


def test_a_log_handler_that_raises_hurts_nobody(unit, form):
    """A logging handler that fails on our record hurts no call after it (D2, E3)."""

    class Failing(logging.Handler):
        def emit(self, record):
            raise Boom

    def fail():
        raise LookupError

    seen = []

    def body():
        defer(form(fail))
        defer(form(seen.append), "dropped").cancel()
        defer(form(seen.append), "next")

    logger = logging.getLogger("postlude")
    handler = Failing()
    logger.addHandler(handler)
    try:
        unit(body)
    finally:
        logger.removeHandler(handler)
    assert seen == ["next"]


def test_a_block_does_not_raise_what_its_calls_raise(form):
    """What a block's call raises stays in the call; the block goes on (D2, B6)."""

    def fail():
        raise KeyboardInterrupt

    with DeferScope():
        call = defer(form(fail))
    assert isinstance(call.exception, KeyboardInterrupt)
