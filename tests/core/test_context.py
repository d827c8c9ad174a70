"""D4: calls see the context variables of the place that deferred them."""

import asyncio
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import partial

from stage import ASGIServer, answering

from postlude import DeferScope, current_scope, defer, defer_all
from postlude.asgi import PostludeMiddleware

who: ContextVar[str] = ContextVar("who", default="nobody")


def test_a_call_sees_the_values_of_its_call_site(unit, form):
    """Each call has the values that held where it was deferred, not later ones (D4)."""
    seen = []

    def note():
        seen.append(who.get())

    def body():
        who.set("first")
        defer(form(note))
        who.set("second")
        defer(form(note))
        who.set("third")

    unit(body)
    assert seen == ["first", "second"]


def test_what_a_call_sets_is_seen_by_nobody_else(unit, form):
    """A call that sets a variable changes it for no other call and no unit (D4)."""
    seen = []

    def change():
        seen.append(who.get())
        who.set("changed")

    def body():
        who.set("unit")
        for _ in range(3):
            defer(form(change))

    unit(body)
    assert seen == ["unit"] * 3


def test_a_block_keeps_its_own_values():
    """After a block the variables have the values that its code gave them (D4)."""
    token = who.set("block")
    with DeferScope():
        defer(who.set, "changed")
    assert who.get() == "block"
    who.reset(token)


def test_members_of_a_group_have_a_context_each(unit, form):
    """The calls of a group do not share a context (D4, D1)."""
    seen = []

    def change(name):
        seen.append(who.get())
        who.set(name)

    def body():
        who.set("unit")
        defer_all(*[form(partial(change, name)) for name in "abc"])

    unit(body)
    assert seen == ["unit"] * 3


def test_a_condition_sees_the_values_of_the_call_site(unit):
    """`.when()` is asked in the context of its call (D4, C1)."""
    seen = []

    def body():
        who.set("site")
        defer(list).when(lambda outcome: seen.append(who.get()))
        who.set("later")

    unit(body)
    assert seen == ["site"]


def test_a_nested_call_sees_the_values_of_the_call_that_defers_it(unit, form):
    """What a running call has set holds for what it defers (D4, A7)."""
    seen = []

    def outer():
        who.set("outer")
        defer(form(lambda: seen.append(who.get())))

    unit(lambda: defer(form(outer)))
    assert seen == ["outer"]


def test_tasks_and_threads_of_a_call_inherit_its_context():
    """Work that a call starts itself sees the values of the call site (D4)."""
    seen = []

    async def note():
        seen.append(who.get())

    async def starts_work():
        await asyncio.create_task(note())
        await asyncio.to_thread(lambda: seen.append(who.get()))

    with DeferScope():
        token = who.set("site")
        defer(starts_work)
        who.reset(token)
    assert seen == ["site", "site"]


def test_a_call_runs_inside_its_unit(unit, form):
    """Inside a call the current unit is the call's own, so nested calls join (A7)."""
    inside = []
    around = []

    def body():
        around.append(current_scope())
        defer(form(lambda: inside.append(current_scope())))

    unit(body)
    assert inside == around
    assert inside[0] is not None


class _Surroundings:
    """What an integration puts around calls; notes what it surrounds."""

    def __init__(self, seen):
        self.seen = seen

    @contextmanager
    def sync(self):
        self.seen.append(("enter", who.get()))
        token = who.set("surrounded")
        yield
        who.reset(token)
        self.seen.append(("leave", who.get()))

    @asynccontextmanager
    async def asynchronous(self):
        with self.sync():
            yield


async def test_surroundings_are_entered_in_the_context_of_each_call(form):
    """What a framework puts around calls is around each, in its own context (D4)."""
    seen = []

    def body():
        for name in "ab":
            who.set(name)
            defer(form(lambda: seen.append(who.get())))

    wrapped = partial(PostludeMiddleware, around=_Surroundings(seen))
    async with ASGIServer(answering(body), wrapped=wrapped) as server:
        await server.begin()
    # An awaitable result is surrounded twice: where it is made and where it is awaited.
    assert [entry for entry in seen if entry == "surrounded"] == ["surrounded"] * 2
    entered = [entry[1] for entry in seen if entry[0] == "enter"]
    assert entered in (["a", "b"], ["a", "a", "b", "b"])
    assert seen[-2:] == ["surrounded", ("leave", "b")]
