"""D7: the end of a process or application drains, nested calls included, with grace."""

import asyncio
import logging
import signal
import sys
import threading
import time

import pytest
from stage import ASGIServer, Gate, answering, replying, visit

from postlude import DeferScope, _process, configure, defer, drain, failure_store
from postlude._arunner import runner_for
from postlude.wsgi import PostludeMiddleware

PROGRAM = """
    import asyncio, logging, sys, threading, time
    from contextvars import copy_context
    from postlude import DeferScope, configure, defer, drain, failure_store
    logging.basicConfig(format="%(levelname)s %(message)s")

    def say(*words):
        print(*words, flush=True)

    async def asay(*words):
        await asyncio.sleep(0)
        print(*words, flush=True)

    def in_background(*bodies):
        # What comes after the end of a unit runs in the background.
        with DeferScope():
            context = copy_context()
        for body in bodies:
            context.run(body)

    def on_the_main_stack():
        frame, names = sys._current_frames()[threading.main_thread().ident], []
        while frame:
            names.append(frame.f_code.co_name)
            frame = frame.f_back
        return names
"""


def test_drain_waits_until_nothing_is_left(form):
    """`drain()` returns when no call is left, however deeply nested (D7)."""
    seen = []

    def nested(depth):
        seen.append(depth)
        if depth:
            defer(form(nested), depth - 1)

    visit(PostludeMiddleware(replying(lambda: defer(form(nested), 20))))
    drain(20)
    assert seen == list(range(20, -1, -1))


def test_what_is_left_after_the_grace_is_lost_by_name(logged):
    """After the grace what runs and what waits is logged and recorded as lost (D7)."""
    held, begun = Gate(), Gate()
    calls = []

    def blocked():
        begun.open()
        held.wait()

    def body():
        calls.append(defer(blocked).named("running"))
        calls.append(defer(list).named("waiting"))
        calls.append(defer(list).named("taken back").cancel())

    visit(PostludeMiddleware(replying(body)))
    begun.wait()
    drain(0)
    assert [call.state for call in calls] == ["lost", "lost", "dropped"]
    assert [(r.name, r.state, r.started is None) for r in failure_store().list()] == [
        ("running", "lost", False),
        ("waiting", "lost", True),
    ]
    texts = logged.texts(logging.ERROR)
    why = "was lost: the process ended before it was done"
    assert [text.split(" (")[0] for text in texts] == [
        f"deferred call running {why}, while it ran",
        f"deferred call waiting {why}, before it began",
    ]
    assert calls[0].site in texts[0]
    held.open()
    logged.wait_for("deferred call running, given up as lost, has ended after all")
    assert calls[0].state == "lost"


def test_the_default_grace_is_the_setting(logged):
    """Without an argument `drain()` has the grace of the settings (D7)."""
    configure(grace=0)
    held, begun = Gate(), Gate()

    def blocked():
        begun.open()
        held.wait()

    visit(PostludeMiddleware(replying(lambda: defer(blocked))))
    begun.wait()
    drain()
    held.open()
    logged.wait_for("has ended after all")
    assert [record.state for record in failure_store().list()] == ["lost"]


def test_drain_with_nothing_to_do_is_over():
    """`drain()` without calls returns, however much grace there is (D7)."""
    configure(grace=10**6)
    drain()
    assert failure_store().list() == []


async def test_drain_refuses_to_block_the_loop_that_must_run_the_calls():
    """`drain()` on an event loop with calls pending is an error, no deadlock (D7)."""
    held = Gate()
    async with ASGIServer(answering(lambda: defer(held.passed))) as server:
        await server.begin()
        with pytest.raises(RuntimeError, match="event loop"):
            drain()
        held.open()


async def test_the_lifespan_drains_before_the_app_closes_its_resources(form):
    """Calls have run, nested ones too, when the app hears of its shutdown (D7)."""
    seen = []

    def call():
        seen.append("call")
        defer(form(seen.append), "nested")

    app = answering(lambda: defer(form(call)))
    async with ASGIServer(app, lambda: seen.append("shutdown")) as server:
        await server.begin()
    assert seen == ["call", "nested", "shutdown"]


async def test_an_app_without_a_lifespan_gets_one(logged):
    """For an app that knows no lifespan the middleware answers and drains (D7)."""
    seen = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            raise LookupError("what is a lifespan?")
        await answering(lambda: defer(seen.append, 1))(scope, receive, send)

    server = ASGIServer(app)
    server.app.app = app
    async with server:
        await server.begin()
    assert seen == [1]
    assert logged.texts(logging.WARNING) == []


async def test_the_lifespans_grace_ends_what_does_not_end(logged):
    """At shutdown calls over the grace are cancelled and recorded as lost (D7)."""
    configure(grace=0)
    cancelled = asyncio.Event()
    begun = asyncio.Event()
    calls = []

    async def endless():
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    def body():
        calls.append(defer(endless).named("endless"))
        calls.append(defer(list).named("waiting"))

    async with ASGIServer(answering(body)) as server:
        await server.begin()
        await begun.wait()
    await cancelled.wait()
    assert [call.state for call in calls] == ["lost", "lost"]
    assert [record.name for record in failure_store().list()] == ["endless", "waiting"]
    assert len(logged.texts(logging.ERROR)) == 2


async def test_a_second_signal_ends_a_loops_drain(monkeypatch):
    """Whatever grace is left, what runs is lost; the queue is still told (D7)."""
    configure(grace=0)
    begun = asyncio.Event()
    calls, told = [], []
    monkeypatch.setattr(_process, "closers", [told.append])

    async def endless():
        begun.set()
        await asyncio.Event().wait()

    async with ASGIServer(answering(lambda: calls.append(defer(endless)))) as server:
        await server.begin()
        await begun.wait()
        runner = runner_for(asyncio.get_running_loop())
        async with asyncio.timeout(20):
            await runner.adrain(60, lambda: True)
        assert [call.state for call in calls] == ["lost"]
        assert len(told) == 1


def _names_on(thread):
    """Give the names of the functions that a thread is in."""
    frame, names = sys._current_frames()[thread], []
    while frame:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names


def _wait_until_in(function, thread):
    """Block until a thread is inside a function."""
    while function not in _names_on(thread):
        time.sleep(0.001)


def test_a_block_that_is_interrupted_leaves_nothing_undone():
    """Ctrl-C while a block waits ends the block; its calls go on (D7, C5)."""
    seen = []
    held = Gate()
    main = threading.main_thread().ident

    async def slow():
        await asyncio.to_thread(_wait_until_in, "_run_elsewhere", main)
        # A signal right before the thread waits does not wake it: the next one does.
        while not held.is_open:
            signal.pthread_kill(main, signal.SIGINT)
            await asyncio.sleep(0.01)
        seen.append("slow")

    def interrupt(*_):
        if not held.is_open:
            held.open()
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt), DeferScope():  # noqa: PT012 - the block is what is tested
            defer(slow)
            defer(seen.append, "next")
        drain(20)
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == ["slow", "next"]


def test_the_interpreter_waits_for_calls_of_every_form(script):
    """A program that ends runs what is pending: sync, async and nested calls (D7)."""
    done = script.run(
        PROGRAM
        + """
    def nesting(depth):
        say("nested", depth)
        if depth:
            defer(nesting if depth % 2 else anesting, depth - 1)

    async def anesting(depth):
        await asyncio.sleep(0)
        nesting(depth)

    started = threading.Event()

    def slow():
        started.set()
        threading.Event().wait(0.05)
        say("slow")

    in_background(
        lambda: defer(slow),
        lambda: defer(say, "sync"),
        lambda: defer(asay, "async"),
        lambda: defer(nesting, 3),
    )
    started.wait()
    say("end of the program")
    """
    )
    assert done.stdout.splitlines() == [
        "end of the program",
        "slow",
        "sync",
        "async",
        "nested 3",
        "nested 2",
        "nested 1",
        "nested 0",
    ]
    assert (done.returncode, done.stderr) == (0, "")


def test_calls_at_exit_may_use_thread_pools(script):
    """What a call hands to an executor while the program ends still runs (D7)."""
    done = script.run(
        PROGRAM
        + """
    from concurrent.futures import ThreadPoolExecutor
    from postlude import drain
    # Python 3.12 starts no thread once it shuts down: those of the pools are there.
    pool = ThreadPoolExecutor()
    pool.submit(list).result()
    in_background(lambda: defer(asyncio.to_thread, list))
    drain()

    def at_end():
        while "drain" not in on_the_main_stack():
            time.sleep(0.001)
        say("pool", pool.submit(lambda: 1).result())

    async def async_at_end():
        say("thread", await asyncio.to_thread(lambda: 2))

    in_background(lambda: defer(at_end), lambda: defer(async_at_end))
    """
    )
    assert done.stdout.splitlines() == ["pool 1", "thread 2"]
    assert (done.returncode, done.stderr) == (0, "")


def test_calls_that_are_deferred_while_the_program_ends_run(script):
    """A block or call in an exit handler works like any other (D7, B6)."""
    done = script.run(
        PROGRAM
        + """
    import atexit

    def last():
        with DeferScope():
            defer(say, "block")
            defer(asay, "async block")
        in_background(lambda: defer(say, "late"), lambda: defer(asay, "async late"))

    atexit.register(last)
    in_background(lambda: defer(say, "first"))
    """
    )
    assert done.stdout.splitlines() == [
        "first",
        "block",
        "async block",
        "late",
        "async late",
    ]
    assert (done.returncode, done.stderr) == (0, "")


FIRST_USES = {
    "block": """
        with DeferScope():
            defer(say, "sync").timeout(20)
            defer_all(lambda: say("group"), lambda: None)
            defer(asay, "async").timeout(20)
        """,
    "async block": """
        async def block():
            async with DeferScope():
                defer(say, "sync").timeout(20)
                defer_all(lambda: say("group"), lambda: None)
                defer(asay, "async").timeout(20)
        asyncio.run(block())
        """,
    "late": """
        def late():
            defer(say, "sync")
            defer_all(lambda: say("group"), lambda: None)
            defer(asay, "async")
        in_background(late)
        """,
}


@pytest.mark.parametrize("use", FIRST_USES)
def test_nothing_needs_a_thread_that_the_end_does_not_give(script, use):
    """From Python 3.12 on no thread starts in an exit handler; calls do (D7)."""
    done = script.run(
        PROGRAM
        + f"""
    import atexit
    from postlude import defer_all

    @atexit.register
    def last():
        {FIRST_USES[use].strip()}
    """
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["sync", "group", "async"]


def test_a_program_that_fails_drains_all_the_same(script):
    """An unhandled exception of the program loses no call (D7)."""
    done = script.run(
        PROGRAM
        + """
    in_background(lambda: defer(asay, "ran"), lambda: defer(say, "too"))
    raise SystemExit("failed")
    """
    )
    assert done.stdout.splitlines() == ["ran", "too"]
    assert (done.returncode, done.stderr) == (1, "failed\n")


def test_after_the_grace_the_program_ends_and_says_what_it_lost(script):
    """Over the grace the process ends; each lost call is logged and recorded (D7)."""
    done = script.run(
        PROGRAM
        + """
    import atexit
    begun = threading.Event()

    def stuck():
        begun.set()
        threading.Event().wait()

    in_background(
        lambda: defer(stuck).named("stuck"),
        lambda: defer(say, "never").named("waiting"),
    )
    begun.wait()
    atexit.register(
        lambda: say([(r.name, r.state) for r in failure_store().list()])
    )
    """,
        POSTLUDE_GRACE="0.05",
    )
    assert done.stdout == "[('stuck', 'lost'), ('waiting', 'lost')]\n"
    first, second = done.stderr.splitlines()
    assert first.startswith("ERROR deferred call stuck was lost: the process ended")
    assert second.startswith("ERROR deferred call waiting was lost: the process ended")
    assert done.returncode == 0


def test_a_second_interrupt_ends_the_program_at_once(script):
    """Ctrl-C drains; Ctrl-C again ends the process, and the loss is logged (D7)."""
    process = script.start(
        PROGRAM
        + """
    def waits_for_the_drain():
        say("begun")
        while "drain" not in on_the_main_stack():
            time.sleep(0.001)
        say("draining")
        threading.Event().wait()

    try:
        in_background(lambda: defer(waits_for_the_drain).named("stuck"))
        threading.Event().wait()
    except KeyboardInterrupt:
        say("interrupted")
    """,
        POSTLUDE_GRACE="100000",
    )
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    assert {process.stdout.readline() for _ in "ab"} == {"interrupted\n", "draining\n"}
    process.send_signal(signal.SIGINT)
    done = script.finish(process)
    assert "ERROR deferred call stuck was lost" in done.stderr


@pytest.mark.parametrize("store", [False, True], ids=["memory", "file"])
def test_a_stopped_loop_is_drained_at_exit(script, store, tmp_path):
    """A server that stops its loop without a lifespan loses no call (D7)."""
    environment = {"POSTLUDE_FAILURES": f"sqlite:///{tmp_path}/failures.db"}
    done = script.run(
        PROGRAM
        + """
    import atexit
    from postlude.asgi import PostludeMiddleware

    async def app(scope, receive, send):
        defer(asay, "async")
        defer(say, "sync")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})
        loop.call_soon(loop.stop)

    async def receive():
        return {"type": "http.request"}

    async def send(message):
        pass

    loop = asyncio.new_event_loop()
    atexit.register(loop.close)
    logging.getLogger("postlude").setLevel("ERROR")
    request = {"type": "http", "headers": [], "client": ("192.0.2.1", 1)}
    task = loop.create_task(PostludeMiddleware(app)(request, receive, send))
    loop.run_forever()
    say("stopped")
    """,
        **(environment if store else {}),
    )
    assert done.stdout.splitlines() == ["stopped", "async", "sync"]
    assert (done.returncode, done.stderr) == (0, "")


def test_time_spent_is_in_the_record_of_a_lost_call(logged):
    """A record has Unix times: when the call began and when it was given up (E1)."""
    held, begun = Gate(), Gate()

    def blocked():
        begun.open()
        held.wait()

    before = time.time()
    visit(PostludeMiddleware(replying(lambda: defer(blocked))))
    begun.wait()
    drain(0)
    held.open()
    logged.wait_for("has ended after all")
    (record,) = failure_store().list()
    assert before - 1 <= record.started <= record.ended <= time.time() + 1
