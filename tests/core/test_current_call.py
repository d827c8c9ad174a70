"""F2: a call knows which one it is, wherever and however it runs."""

import asyncio

from postlude import current_call, defer


def test_a_call_knows_itself(unit, form):
    """`current_call()` gives the call that runs, with its id and attempt (F2)."""
    seen = []

    def look():
        call = current_call()
        seen.append((call.id, call.attempt, call.state))

    calls = []
    unit(lambda: calls.append(defer(form(look))))
    assert seen == [(calls[0].id, 1, "running")]


def test_each_call_of_a_unit_is_another(unit, form):
    """A nested call is itself, not the one that deferred it (A7, F2)."""
    seen = []

    def inner():
        seen.append(("inner", current_call()))

    def outer():
        seen.append(("outer", current_call()))
        seen.append(("nested", defer(form(inner))))
        seen.append(("outer", current_call()))

    unit(lambda: seen.append(("first", defer(form(outer)))))
    found = dict(seen)
    assert found["outer"] is found["first"]
    assert found["inner"] is found["nested"]
    assert found["inner"] is not found["outer"]


def test_outside_of_calls_there_is_none(unit, form):
    """In the handler, and after a call that failed, nothing runs deferred (F2)."""
    seen = []

    def fail():
        raise RuntimeError

    def handle():
        seen.append(current_call())
        defer(form(fail))

    unit(handle)
    assert seen == [None]
    assert current_call() is None


def test_tasks_of_a_call_know_it_too(unit_on_asyncio):
    """What an async call starts with its context sees the same call (D4, F2)."""
    seen = []

    async def look():
        seen.append(current_call())

    async def outer():
        seen.append(current_call())
        await asyncio.gather(
            look(), asyncio.to_thread(lambda: seen.append(current_call()))
        )

    unit_on_asyncio(lambda: defer(outer))
    assert len(seen) == 3
    assert len(set(seen)) == 1
