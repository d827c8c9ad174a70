import _thread
import asyncio
import sys
import threading
import time
from contextlib import contextmanager
from contextvars import copy_context
from functools import lru_cache, partial, wraps
from unittest.mock import AsyncMock, MagicMock, Mock

import pytest
from stage import ASGIServer, Gate, answering, replying, visit

from postlude import DeferredCall, DeferScope, current_scope, defer, defer_all
from postlude.wsgi import PostludeMiddleware


class _Callables:
    """One of each callable that there is; all note the argument they get."""

    def __init__(self, seen):
        self.seen = seen

    def method(self, value):
        self.seen.append(value)

    async def async_method(self, value):
        self.seen.append(value)

    def __call__(self, value):
        self.seen.append(value)


class _AsyncCallable(_Callables):
    async def __call__(self, value):
        self.seen.append(value)


class _Awaited:
    """What is awaitable without being a coroutine."""

    def __init__(self, act):
        self._act = act

    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        self._act()


def _wrapped(fn):
    @wraps(fn)
    def wrapper(*args):
        return fn(*args)

    return wrapper


def _made_by(seen):
    class Noting:
        def __init__(self, value):
            seen.append(value)

        @classmethod
        def on_class(cls, value):
            seen.append(value)

        @staticmethod
        def on_nothing(value):
            seen.append(value)

        @staticmethod
        async def async_on_nothing(value):
            seen.append(value)

    return Noting


CALLABLES = {
    "function": lambda seen: _wrapped(seen.append),
    "lambda": lambda seen: lambda *values: seen.extend(values),
    "builtin": lambda seen: seen.append,
    "class": _made_by,
    "class method": lambda seen: _made_by(seen).on_class,
    "static method": lambda seen: _made_by(seen).on_nothing,
    "async static method": lambda seen: _made_by(seen).async_on_nothing,
    "bound method": lambda seen: _Callables(seen).method,
    "async bound method": lambda seen: _Callables(seen).async_method,
    "object": _Callables,
    "async object": _AsyncCallable,
    "partial": lambda seen: partial(list.append, seen),
    "partial of async": lambda seen: partial(_Callables(seen).async_method),
    "partial of partial": lambda seen: partial(partial(_AsyncCallable(seen))),
    "lambda of coroutine": lambda seen: lambda *args: _AsyncCallable(seen)(*args),  # noqa: PLW0108 - what is tested
    "decorated coroutine": lambda seen: _wrapped(_Callables(seen).async_method),
    "cached coroutine": lambda seen: lru_cache(_Callables(seen).async_method),
    "mock": lambda seen: Mock(side_effect=seen.append),
    "magic mock": lambda seen: MagicMock(side_effect=seen.append),
    "async mock": lambda seen: AsyncMock(side_effect=seen.append),
}


@pytest.mark.parametrize("make", CALLABLES.values(), ids=CALLABLES)
def test_any_callable_can_be_deferred(unit, make):
    """Functions, methods, partials, objects, sync or async: each is called (A1)."""
    seen = []
    calls = []
    unit(lambda: calls.append(defer(make(seen), "value")))
    assert (seen, calls[0].state) == (["value"], "done")


def test_any_awaitable_result_is_awaited():
    """What a function returns is awaited if it is awaitable, coroutine or not (A1)."""
    seen = []

    async def main():
        async with DeferScope():
            defer(lambda: _Awaited(lambda: seen.append("awaited")))

    asyncio.run(main())
    assert seen == ["awaited"]


class _Hiding(partial):
    """Looks async, and gives something else when it is called."""

    def __call__(self, *args):
        """Call it, and give what is no coroutine."""
        given = super().__call__(*args)
        given.close()
        return self.keywords["instead"](self.args[0])


async def _hidden(seen, *, instead):
    """Stand under a `_Hiding`."""


def _in_vain(seen):
    seen.append(1)


class _LikeAFuture:
    """Can be awaited, and is no coroutine."""

    def __init__(self, seen):
        self._seen = seen

    def __await__(self):
        self._seen.append(1)
        return iter(())


@pytest.mark.parametrize("instead", [_in_vain, _LikeAFuture])
def test_what_looks_async_may_give_anything(unit, instead):
    """Only a call tells what a callable gives: it is awaited if it can be (A1)."""
    seen = []
    calls = []
    unit(lambda: calls.append(defer(_Hiding(_hidden, seen, instead=instead))))
    assert seen == [1]
    assert calls[0].state == "done"


def test_arguments_reach_the_function_as_they_are(unit, form):
    """Positional and keyword arguments arrive, and `fn` may be one of them (A1)."""
    seen = []

    def note(*args, **kwargs):
        seen.append((args, kwargs))

    def body():
        defer(form(note), 1, [2], fn="three", self="four")
        defer(form(note), 1)
        defer(form(note), fn="three")
        defer(form(note))

    unit(body)
    assert seen == [
        ((1, [2]), {"fn": "three", "self": "four"}),
        ((1,), {}),
        ((), {"fn": "three"}),
        ((), {}),
    ]


def _deep(levels, act):
    if levels:
        _deep(levels - 1, act)
    else:
        act()


@contextmanager
def _hook(act):
    yield
    act()


def test_it_works_at_any_depth_without_an_object(unit, form):
    """A function far below, or a hook on the way out, defers into the unit (A1)."""
    seen = []

    def body():
        with _hook(lambda: defer(form(seen.append), "hook")):
            _deep(50, lambda: defer(form(seen.append), "deep"))

    unit(body)
    assert seen == ["deep", "hook"]


def test_it_works_in_threads_that_carry_the_context(form):
    """What a request's worker thread defers belongs to the request's unit (A1)."""
    seen = []
    states = []

    async def main():
        async with DeferScope() as scope:
            call = await asyncio.to_thread(defer, form(seen.append), "thread")
            states.append((call.state, scope.pending))

    asyncio.run(main())
    assert states == [("pending", 1)]
    assert seen == ["thread"]


def test_it_works_in_a_thread_started_with_a_copied_context():
    """A thread that was started in a copy of the context defers into the unit (A1)."""
    seen = []
    with DeferScope():
        work = partial(copy_context().run, defer, seen.append, "thread")
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert seen == []
    assert seen == ["thread"]


def test_it_works_in_sub_tasks(form):
    """What a sub-task of the unit defers is collected by the unit (A1)."""
    seen = []

    async def sub():
        defer(form(seen.append), "task")
        assert seen == []

    async def main():
        async with DeferScope(), asyncio.TaskGroup() as group:
            group.create_task(sub())

    asyncio.run(main())
    assert seen == ["task"]


async def test_middleware_defers_before_and_after_the_handler(form):
    """A middleware may defer before and after its handler, under ASGI (A1)."""
    seen = []

    def middleware(app):
        async def log_activity(scope, receive, send):
            if scope["type"] == "http":
                defer(form(seen.append), "before")
            await app(scope, receive, send)
            if scope["type"] == "http":
                defer(form(seen.append), "after")
                assert seen == []

        return log_activity

    app = middleware(answering(lambda: defer(form(seen.append), "handler")))
    async with ASGIServer(app) as server:
        answer = await server.begin()
    assert answer.exception is None
    assert seen == ["before", "handler", "after"]


def test_wsgi_middleware_defers_before_and_after_the_handler(form):
    """A middleware may defer before and after its handler, under WSGI (A1)."""
    seen = []
    handler = replying(lambda: defer(form(seen.append), "handler"))

    def log_activity(environ, start_response):
        defer(form(seen.append), "before")
        body = handler(environ, start_response)
        defer(form(seen.append), "after")
        return body

    done = Gate()

    def app(environ, start_response):
        body = log_activity(environ, start_response)
        defer(done.open)
        return body

    visit(PostludeMiddleware(app))
    done.wait()
    assert seen == ["before", "handler", "after"]


def test_a_body_that_is_made_while_it_is_sent_defers_too():
    """What a WSGI body defers while the server iterates it is collected (A1)."""
    seen = []
    done = Gate()

    def app(environ, start_response):
        start_response("200 OK", [])
        for part in (b"a", b"b"):
            defer(seen.append, part)
            yield part
        defer(done.open)

    answer = visit(PostludeMiddleware(app))
    done.wait()
    assert answer.body == b"ab"
    assert seen == [b"a", b"b"]


def test_it_returns_the_call_at_once():
    """`defer` returns a pending DeferredCall and has not run anything (A2)."""
    seen = []
    with DeferScope():
        call = defer(seen.append, 1)
        assert isinstance(call, DeferredCall)
        assert (call.state, call.reason, seen) == ("pending", None, [])
    assert (call.state, seen) == ("done", [1])


OPTIONS = {
    "named": lambda call: call.named("n"),
    "always": lambda call: call.always(),
    "when": lambda call: call.when(lambda outcome: outcome.ok),
    "timeout": lambda call: call.timeout(2.5),
    "after_commit": lambda call: call.after_commit(False),
    "concurrently": lambda call: call.concurrently(),
    "cancel": lambda call: call.cancel(),
}
option = pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)


@option
def test_options_chain(option):
    """Each option gives back the call that it was set on (A2)."""
    with DeferScope():
        call = defer(list)
        assert option(call) is call


def test_options_may_be_set_until_the_call_starts(unit):
    """An earlier call of the same drain may still set a later one's options (A2)."""
    seen = []

    def body():
        defer(lambda: later.append(calls[0].when(lambda outcome: False)))
        calls.append(defer(seen.append, "never"))

    calls, later = [], []
    unit(body)
    assert later == calls
    assert (seen, calls[0].state, calls[0].reason) == ([], "dropped", "outcome")


def test_every_call_has_an_id_a_name_and_a_place():
    """A call says who it is: id, function's name, place of the defer (A2, E1)."""
    with DeferScope():
        one, two = defer(test_options_chain.__call__), defer(list)
        one.cancel()
    assert one.id != two.id
    assert one.id == one.id
    assert two.name == "builtins:list"
    assert two.site.startswith(f"{__file__}:")
    assert two.site.endswith("in test_every_call_has_an_id_a_name_and_a_place")
    assert "builtins:list done" in repr(two)


def test_the_decorator_form_defers_a_local_function(unit):
    """`@defer` above a local function defers it, closure and all (A3)."""
    seen = []

    def body():
        order = {"id": 7}

        @defer
        def mail():
            seen.append(order["id"])

        @defer
        async def audit():
            seen.append(order["id"] + 1)

        assert isinstance(mail, DeferredCall)
        audit.always()

    unit(body)
    assert seen == [7, 8]


def test_a_group_is_given_back_as_its_calls():
    """`defer_all` gives one call per function, in order, each with options (A2, D1)."""
    seen = []
    with DeferScope():
        one, two = defer_all(partial(seen.append, 1), partial(seen.append, 2))
        one.cancel()
    assert (one.state, two.state, seen) == ("dropped", "done", [2])


def test_the_current_unit_can_be_asked_for():
    """`current_scope()` is the unit that collects here, None outside (A1)."""
    assert current_scope() is None
    with DeferScope() as scope:
        assert current_scope() is scope
        assert (scope.pending, scope.ended, scope.outcome) == (0, False, None)
        defer(list)
        assert scope.pending == 1
        assert "open, 1 calls" in repr(scope)
    assert current_scope() is None
    assert scope.ended


def test_it_works_where_no_python_code_calls_it(monkeypatch):
    """`defer` may be the first Python function of a thread, as in C extensions (A1)."""
    seen, errors = [], []
    monkeypatch.setattr(sys, "unraisablehook", errors.append)
    with DeferScope() as scope:
        _thread.start_new_thread(copy_context().run, (defer, seen.append, "thread"))
        while not scope.pending and not errors:
            time.sleep(0.001)
    assert (seen, errors) == (["thread"], [])
