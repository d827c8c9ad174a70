"""D8: a forked child begins anew; the parent keeps its calls and runs them once."""

import os

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks are POSIX")

PROGRAM = """
    import asyncio, logging, multiprocessing, os, sys, threading, warnings
    from contextvars import copy_context
    from postlude import DeferScope, current_scope, defer, drain, failure_store
    from postlude import _runner
    from postlude.wsgi import PostludeMiddleware
    logging.basicConfig(format="%(levelname)s %(message)s")
    # Python 3.12 warns of every fork beside threads, which is what is tested here.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    parent = os.getpid()

    def say(*words):
        who = "parent" if os.getpid() == parent else "child"
        os.write(1, (" ".join([who, *map(str, words)]) + "\\n").encode())

    async def asay(*words):
        await asyncio.sleep(0)
        say(*words)

    def in_background(*bodies):
        with DeferScope():
            context = copy_context()
        for body in bodies:
            context.run(body)

    def fork(in_child, leave=os._exit):
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0
        else:
            in_child()
            leave(0)
"""


@pytest.mark.parametrize("form", ["say", "asay"])
def test_pending_calls_run_once_in_the_parent(script, form):
    """A fork with calls running and waiting: each runs once, in the parent (D8, C5)."""
    done = script.run(
        PROGRAM
        + f"""
    begun, held = threading.Event(), threading.Event()

    def first():
        begun.set()
        held.wait()
        say("first")

    in_background(lambda: defer(first), lambda: defer({form}, "second"))
    begun.wait()

    def child():
        drain(20)
        say("drained")

    fork(child)
    held.set()
    """
    )
    assert done.stdout.splitlines() == [
        "child drained",
        "parent first",
        "parent second",
    ]
    assert (done.returncode, done.stderr) == (0, "")


def test_a_child_that_exits_in_good_order_runs_nothing_of_its_parent(script):
    """A child that ends with `sys.exit` drains its own calls only (D8, D7)."""
    done = script.run(
        PROGRAM
        + """
    begun, held = threading.Event(), threading.Event()

    def first():
        begun.set()
        held.wait()
        say("first")

    in_background(lambda: defer(first), lambda: defer(asay, "second"))
    begun.wait()

    def child():
        in_background(lambda: defer(say, "own"), lambda: defer(asay, "own async"))

    fork(child, sys.exit)
    held.set()
    """
    )
    assert done.stdout.splitlines() == [
        "child own",
        "child own async",
        "parent first",
        "parent second",
    ]
    assert (done.returncode, done.stderr) == (0, "")


def test_an_open_unit_stays_with_the_parent(script):
    """In the child no unit is open, and the parent's block runs its calls once (D8)."""
    done = script.run(
        PROGRAM
        + """
    with DeferScope():
        defer(say, "deferred before")
        fork(lambda: say("unit:", current_scope()))
        defer(say, "deferred after")
    """
    )
    assert done.stdout.splitlines() == [
        "child unit: None",
        "parent deferred before",
        "parent deferred after",
    ]
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("leave", ["sys.exit", "lambda code: None"])
def test_a_child_that_leaves_the_block_does_not_run_its_calls(script, leave):
    """A child that leaves the parent's block, by exit or its end, runs nothing (D8)."""
    done = script.run(
        PROGRAM
        + f"""
    with DeferScope():
        defer(say, "once")
        defer(asay, "async once")
        fork(lambda: None, {leave})
    say("after the block")
    """
    )
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("parent")] == [
        "parent once",
        "parent async once",
        "parent after the block",
    ]
    assert [line for line in lines if "once" in line and "child" in line] == []
    assert done.stderr == ""


def test_a_child_that_leaves_a_request_does_not_run_its_calls(script):
    """A child forked by a handler ends the parent's request without its calls (D8)."""
    done = script.run(
        PROGRAM
        + """
    def app(environ, start_response):
        defer(say, "once").always()
        fork(lambda: None, sys.exit)
        start_response("200 OK", [])
        return []

    environ = {"SERVER_SOFTWARE": "in-process"}
    PostludeMiddleware(app)(environ, lambda *_: None).close()
    """
    )
    assert done.stdout.splitlines() == ["parent once"]
    assert done.stderr.count("ERROR") == 0


@pytest.mark.parametrize("form", ["say", "asay"])
def test_a_child_defers_as_a_new_process_does(script, form):
    """In the child blocks, background calls and the drain work from new (D8)."""
    done = script.run(
        PROGRAM
        + f"""
    async def in_a_loop():
        async with DeferScope():
            defer({form}, "async block")

    in_background(lambda: defer({form}, "background"))
    drain()

    def child():
        with DeferScope():
            defer({form}, "block")
        in_background(lambda: defer({form}, "background"))
        drain()
        asyncio.run(in_a_loop())
        say("failures:", failure_store().list())

    fork(child)
    """
    )
    assert done.stdout.splitlines() == [
        "parent background",
        "child block",
        "child background",
        "child async block",
        "child failures: []",
    ]
    assert (done.returncode, done.stderr) == (0, "")


def test_multiprocessing_children_drain_their_own_calls(script):
    """A forked `Process` runs what it deferred itself before it ends (D8, D7)."""
    done = script.run(
        PROGRAM
        + """
    held = threading.Event()
    in_background(lambda: defer(held.wait), lambda: defer(say, "parent's"))

    def work():
        with DeferScope():
            defer(say, "block")
        in_background(lambda: defer(say, "late"), lambda: defer(asay, "late async"))

    process = multiprocessing.get_context("fork").Process(target=work)
    with DeferScope():
        defer(say, "outer")
        process.start()
        process.join()
    held.set()
    """
    )
    assert done.stdout.splitlines() == [
        "child block",
        "child late",
        "child late async",
        "parent outer",
        "parent parent's",
    ]
    assert (done.returncode, done.stderr) == (0, "")


def test_a_fork_while_another_thread_defers_does_not_hang(script):
    """A child forked while locks are held by another thread can still defer (D8)."""
    done = script.run(
        PROGRAM
        + """
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            in_background(*[lambda: defer(list)] * 20)
            drain()

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()

    def child():
        with DeferScope():
            defer(list).named("n")
        in_background(lambda: defer(list), lambda: defer(asyncio.sleep, 0))
        drain()

    for _ in range(20):
        fork(child)
    stop.set()
    for thread in threads:
        thread.join()
    say("ended", failure_store().list())
    """
    )
    assert done.stdout.splitlines() == ["parent ended []"]
    assert (done.returncode, done.stderr) == (0, "")


def test_a_call_may_fork(script):
    """A deferred call that forks, with a child that exits, runs once (D8, C5)."""
    done = script.run(
        PROGRAM
        + """
    def forks():
        fork(lambda: say("forked"))

    in_background(lambda: defer(forks), lambda: defer(say, "next"))
    drain()  # Python 3.12 forks no more once it shuts down
    """
    )
    assert done.stdout.splitlines() == ["child forked", "parent next"]
    assert (done.returncode, done.stderr) == (0, "")
