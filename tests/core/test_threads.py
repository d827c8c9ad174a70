"""D3, D6: how work comes to Postlude's own threads."""

import threading
from collections import deque

import pytest

from postlude import DeferScope, _threads, configure, defer, defer_all, drain
from postlude._background import background
from postlude._scope import current

pytestmark = pytest.mark.usefixtures("own_threads")


def held_unit(fn):
    """Give an ended unit with one call, which the caller holds."""
    scope = DeferScope()
    token = current.set(scope)
    defer(fn)
    current.reset(token)
    background.take_over(scope)
    assert scope.close()
    return scope


def ours():
    """Count the threads of the pool."""
    names = [thread.name for thread in threading.enumerate()]
    return sum(name.removeprefix("postlude-").isdecimal() for name in names)


def test_a_second_thread_comes_when_the_first_is_held_up():
    """A batch gets one thread, and more as soon as a look finds no progress (D6)."""
    before = ours()
    begun, held, after = threading.Event(), threading.Event(), threading.Event()

    def wait():
        begun.set()
        held.wait(20)

    pool = _threads.threads()
    pool.submit_all([held_unit(wait), held_unit(after.set)])
    assert begun.wait(20)
    assert pool.look()
    assert ours() == before + 1
    assert not pool.look()
    assert after.wait(20)
    assert ours() == before + 2
    held.set()
    drain(20)


def test_a_thread_outlives_work_that_another_was_quicker_to_take():
    """Between a look and the grasp it may be gone; that costs no thread (D3, D6)."""

    class Quicker(deque):
        """Work that is there when looked at, and gone when it is taken."""

        def __bool__(self):
            return True

    pool = _threads.threads()
    pool._ready = Quicker()
    assert pool._next() is None
    assert pool._idle == 1
    pool._idle = 0
    pool._ready = deque()


def test_a_group_goes_on_when_the_only_thread_is_given_up():
    """What waits for the thread of a call that had its time gets another (D1, D5)."""
    configure(threads=1)
    held, after = threading.Event(), threading.Event()
    scope = DeferScope()
    token = current.set(scope)
    first, _ = defer_all(lambda: held.wait(20), after.set)
    first.timeout(0.01)
    current.reset(token)
    background.take_over(scope)
    assert scope.close()
    _threads.threads().submit(scope)
    assert after.wait(10)
    assert first.state == "timed_out"
    held.set()
    drain(20)


def test_a_drain_does_not_wait_for_a_look():
    """At the end of the process nobody looks again; the drain wakes threads (D7)."""
    begun, held = threading.Event(), threading.Event()
    seen = []

    def wait():
        begun.set()
        seen.append(held.wait(20))

    _threads.threads().submit_all([held_unit(wait), held_unit(held.set)])
    assert begun.wait(20)
    drain(30)
    assert seen == [True]


OUT_OF_DESCRIPTORS = """
    import os, resource, threading
    from contextvars import copy_context
    from postlude import DeferScope, _threads, configure, defer, defer_all, drain
    from postlude._background import background

    background.register()
    with DeferScope():
        context = copy_context()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        os.pipe()
    except OSError:
        print("no pipe")
    ran = [threading.Event(), threading.Event()]
    for event in ran:
        context.run(defer, event.set)
        print(event.wait(20))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    drain(20)
"""


def test_calls_run_although_no_pipe_can_be_had(script):
    """Without a free file descriptor threads are woken all the same (D6)."""
    done = script.run(OUT_OF_DESCRIPTORS)
    assert done.stdout.splitlines() == ["no pipe", "True", "True"]


def test_a_child_gives_the_pipe_of_its_parent_back(script):
    """A fork leaves no file descriptor of the parent's threads behind (D8)."""
    done = script.run(
        """
    import os, threading, warnings
    from contextvars import copy_context
    from postlude import DeferScope, defer

    warnings.filterwarnings("ignore", category=DeprecationWarning)
    with DeferScope():
        context = copy_context()

    def use_threads():
        ran = threading.Event()
        context.run(defer, ran.set)
        assert ran.wait(20)

    def free():
        end = os.dup(0)
        os.close(end)
        return end

    before = free()
    use_threads()
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
        print(free() > before)
    else:
        os.write(1, f"{free() == before}\\n".encode())
        os._exit(0)
    """
    )
    assert done.stdout.splitlines() == ["True", "True"]
