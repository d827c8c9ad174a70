"""B6 and A8: blocks, decorators, and units inside units."""

import asyncio
import inspect
import threading
from contextlib import contextmanager

import pytest
from stage import ASGIServer, Boom, answering, replying, settle, visit

from postlude import DeferScope, ScopeEndedError, current_scope, defer, drain
from postlude.asgi import PostludeMiddleware as ASGIMiddleware
from postlude.wsgi import PostludeMiddleware as WSGIMiddleware


def test_a_blocks_calls_have_run_when_it_is_left(form):
    """The line after a `with` block sees what its calls did (B6)."""
    seen = []
    with DeferScope():
        defer(form(seen.append), "call")
        seen.append("body")
    assert seen == ["body", "call"]


async def test_an_async_blocks_calls_have_run_when_it_is_left(form):
    """The line after an `async with` block sees what its calls did (B6)."""
    seen = []
    async with DeferScope():
        defer(form(seen.append), "call")
        await settle()
        seen.append("body")
    assert seen == ["body", "call"]


def test_the_calls_have_run_when_the_exception_arrives(form):
    """Who catches a block's exception sees what its `.always()` calls did (B6, C1)."""
    seen = []
    try:
        with DeferScope():
            defer(form(seen.append), "plain")
            defer(form(seen.append), "always").always()
            raise Boom
    except Boom:
        seen.append("caught")
    assert seen == ["always", "caught"]


async def test_sync_calls_of_an_async_block_run_in_threads():
    """An async block keeps its loop free: sync calls run elsewhere (B6, D3)."""
    seen = []
    async with DeferScope():
        defer(lambda: seen.append(threading.get_ident()))
    assert seen != [threading.get_ident()]


def test_a_decorated_function_is_a_unit_per_call(form):
    """Each call of a function under `@DeferScope()` is a unit of its own (B6)."""
    seen = []

    @DeferScope()
    def command(number):
        """Do one thing."""
        defer(form(seen.append), f"call {number}")
        seen.append(f"body {number}")
        return number

    assert [command(1), command(number=2)] == [1, 2]
    assert seen == ["body 1", "call 1", "body 2", "call 2"]
    assert (command.__name__, command.__doc__) == ("command", "Do one thing.")


async def test_a_decorated_coroutine_function_is_one_too(form):
    """`@DeferScope()` keeps an async function async, a unit per call (B6)."""
    seen = []

    @DeferScope()
    async def command(number):
        defer(form(seen.append), number)
        await asyncio.sleep(0)
        return number

    assert inspect.iscoroutinefunction(command)
    assert await asyncio.gather(*[command(number) for number in range(5)]) == [
        *range(5)
    ]
    assert sorted(seen) == [*range(5)]


def test_a_decorated_function_may_call_itself():
    """A recursive function opens a unit within its unit (B6, A8)."""
    seen = []

    @DeferScope()
    def countdown(number):
        defer(seen.append, number)
        if number:
            countdown(number - 1)

    countdown(3)
    assert seen == [0, 1, 2, 3]


def test_a_decorated_method_keeps_its_self():
    """`@DeferScope()` works on methods (B6)."""

    class Command:
        def __init__(self):
            self.seen = []

        @DeferScope()
        def handle(self):
            defer(self.seen.append, "call")

    command = Command()
    command.handle()
    assert command.seen == ["call"]


def test_a_decorated_function_passes_exceptions_on():
    """The unit of a decorated function fails with it (B6, C1)."""
    seen = []

    @DeferScope()
    def command():
        defer(seen.append, "plain")
        raise Boom

    with pytest.raises(Boom):
        command()
    assert seen == []


def test_an_inner_block_flushes_only_its_own_calls(form):
    """A block inside a block runs its calls at its end, the outer's later (A8)."""
    seen = []
    with DeferScope() as outer:
        defer(form(seen.append), "outer 1")
        with DeferScope():
            defer(form(seen.append), "inner")
        assert seen == ["inner"]
        assert current_scope() is outer
        defer(form(seen.append), "outer 2")
    assert seen == ["inner", "outer 1", "outer 2"]


async def test_async_blocks_nest_like_sync_ones(form):
    """An async block inside another runs its calls at its own end (A8)."""
    seen = []
    async with DeferScope() as outer:
        defer(form(seen.append), "outer")
        async with DeferScope():
            defer(form(seen.append), "inner")
        assert seen == ["inner"]
        assert current_scope() is outer
    assert seen == ["inner", "outer"]


def test_an_inner_failure_is_not_the_outer_units(form):
    """An inner block that fails drops its own calls and judges no others (A8, C1)."""
    seen = []
    with DeferScope() as outer:
        defer(form(seen.append), "outer")
        with pytest.raises(Boom), DeferScope():  # noqa: PT012 - the block is what is tested
            defer(form(seen.append), "inner")
            raise Boom
    assert seen == ["outer"]
    assert outer.outcome.ok


def test_an_outer_failure_does_not_undo_the_inner_unit(form):
    """What an inner block ran, it ran; the outer one drops its own calls (A8, C1)."""
    seen = []
    with pytest.raises(Boom), DeferScope():  # noqa: PT012 - the block is what is tested
        defer(form(seen.append), "outer")
        with DeferScope():
            defer(form(seen.append), "inner")
        raise Boom
    assert seen == ["inner"]


@pytest.mark.parametrize("form_of_block", ["sync", "async"])
async def test_a_block_in_a_request_is_a_smaller_unit(form_of_block, blockbuster):
    """A block in a handler runs its calls before the handler goes on (A8, B6)."""
    blockbuster.deactivate()  # the sync form blocks the loop; another test says so
    seen = []

    async def app(scope, receive, send):
        defer(seen.append, "request")
        if form_of_block == "async":
            async with DeferScope():
                defer(seen.append, "block")
        else:
            with DeferScope():
                defer(seen.append, "block")
        seen.append("handler")
        await answering(lambda: None)(scope, receive, send)

    async with ASGIServer(app) as server:
        await server.begin()
    assert seen == ["block", "handler", "request"]


async def test_a_second_middleware_joins_the_first(form):
    """An ASGI app that is wrapped twice has one unit per request (A8)."""
    seen = []
    units = []

    def body():
        units.append(current_scope())
        defer(form(seen.append), "inner").named("n")

    inner = ASGIMiddleware(answering(body))

    async def between(scope, receive, send):
        if scope["type"] == "http":
            units.append(current_scope())
            defer(form(seen.append), "first").named("n")
        await inner(scope, receive, send)
        if scope["type"] == "http":
            assert seen == []
            defer(form(seen.append), "last")

    async with ASGIServer(between) as server:
        await server.begin()
    assert units[0] is units[1]
    assert seen == ["inner", "last"]


async def test_a_second_middleware_judges_nothing(form):
    """What an inner app answered is judged only as the whole's answer (A8, C1)."""
    seen = []
    inner = ASGIMiddleware(answering(lambda: defer(form(seen.append), "inner"), 404))

    async def forgiving(scope, receive, send):
        async def ignore(message):
            pass

        if scope["type"] == "http":
            await inner(scope, receive, ignore)
            await answering(lambda: None, 200)(scope, receive, send)

    async with ASGIServer(forgiving) as server:
        answer = await server.begin()
    assert answer.status == 200
    assert seen == ["inner"]


def test_a_second_wsgi_middleware_joins_the_first(form):
    """A WSGI app that is wrapped twice has one unit per request (A8)."""
    seen = []
    units = []

    def body():
        units.append(current_scope())
        defer(form(seen.append), "inner")

    inner = WSGIMiddleware(replying(body))

    def between(environ, start_response):
        units.append(current_scope())
        defer(form(seen.append), "first")
        answer = inner(environ, start_response)
        defer(form(seen.append), "last")
        return answer

    visit(WSGIMiddleware(between))
    drain(20)
    assert units[0] is units[1]
    assert seen == ["first", "inner", "last"]


async def test_a_wsgi_app_inside_an_asgi_one_joins_its_unit(form):
    """An application mounted through a WSGI bridge is in the same unit (A8)."""
    seen = []
    inner = WSGIMiddleware(replying(lambda: defer(form(seen.append), "wsgi")))

    async def bridge(scope, receive, send):
        defer(form(seen.append), "asgi")
        answer = visit(inner, **{"asgi.scope": scope})
        await answering(lambda: None, answer.status)(scope, receive, send)

    async with ASGIServer(bridge) as server:
        await server.begin()
    assert seen == ["asgi", "wsgi"]


def test_a_scope_cannot_be_entered_twice():
    """A DeferScope is one unit: entering it again is an error in three beats (B6)."""
    scope = DeferScope()
    with scope, pytest.raises(ScopeEndedError, match="has been entered before"):
        scope.__enter__()
    with pytest.raises(ScopeEndedError, match="Create a new one: `with DeferScope"):
        scope.__enter__()
    assert current_scope() is None


async def test_an_async_scope_cannot_be_entered_twice():
    """An async block refuses to be entered again too (B6)."""
    scope = DeferScope()
    async with scope:
        pass
    with pytest.raises(ScopeEndedError, match="cannot be used again"):
        async with scope:
            pass


def test_a_block_may_stand_in_a_generator():
    """A block whose halves run in two contexts ends its unit all the same (B6)."""
    seen = []

    @contextmanager
    def transaction():
        with DeferScope():
            defer(seen.append, "call")
            yield

    with transaction():
        assert seen == []
    assert seen == ["call"]
    assert current_scope() is None


def test_a_block_may_be_left_in_another_context():
    """A block entered in one context and left in another restores its own (B6)."""
    import contextvars  # noqa: PLC0415 - the one test that needs copies by hand

    seen = []
    scope = DeferScope()

    def enter():
        scope.__enter__()
        defer(seen.append, "call")

    contextvars.copy_context().run(enter)
    contextvars.copy_context().run(scope.__exit__, None, None, None)
    assert seen == ["call"]
    assert current_scope() is None


def test_a_generator_that_is_thrown_away_drops_plain_calls():
    """A block that its generator's end cuts off has not succeeded (B6, C1)."""
    seen = []

    def steps():
        with DeferScope():
            defer(seen.append, "plain")
            defer(seen.append, "always").always()
            yield 1

    generator = steps()
    assert next(generator) == 1
    generator.close()
    assert seen == ["always"]


async def test_a_sync_block_in_async_code_says_so_once_per_place(logged, blockbuster):
    """`with` on a loop works, and a warning names the place and the fix (B6, D3)."""
    blockbuster.deactivate()  # what the block's calls do here blocks the loop
    seen = []
    for number in range(3):
        with DeferScope():
            defer(seen.append, number)
        assert seen[-1] == number
    (text,) = logged.texts()
    assert "`with DeferScope():`" in text
    assert __file__ in text
    assert "Use `async with DeferScope():`" in text


async def test_async_calls_of_a_sync_block_go_on_on_its_loop(logged):
    """A `with` on a loop cannot wait for async calls; they run in order (B6, D1)."""
    seen = []
    done = asyncio.Event()

    async def note(value):
        seen.append((value, asyncio.get_running_loop()))

    async def last():
        done.set()

    loop = asyncio.get_running_loop()
    with DeferScope():
        defer(seen.append, "sync")
        defer(note, "async")
        defer(lambda: seen.append("sync again"))
        defer(lambda: note("awaited"))
        defer(last)
    assert seen == ["sync"]
    await done.wait()
    assert seen == ["sync", ("async", loop), "sync again", ("awaited", loop)]
    assert len(logged.texts()) == 1


def test_blocks_in_threads_are_separate():
    """Each thread has blocks of its own; none sees another's calls (B6)."""
    together = threading.Barrier(4)
    seen = {number: [] for number in range(4)}

    def work(number):
        with DeferScope():
            together.wait(20)
            for value in range(10):
                defer(seen[number].append, (threading.get_ident(), value))
            together.wait(20)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, thread in enumerate(threads):
        assert seen[number] == [(thread.ident, value) for value in range(10)]


def test_blocks_in_tasks_are_separate():
    """Tasks that run at once have blocks of their own (B6)."""
    seen = []

    async def work(number):
        async with DeferScope():
            defer(seen.append, number)
            await settle()
            defer(seen.append, number)
        assert seen.count(number) == 2

    async def main():
        await asyncio.gather(*[work(number) for number in range(10)])

    asyncio.run(main())
    assert len(seen) == 20
