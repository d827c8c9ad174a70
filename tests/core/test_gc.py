"""D6: what a call held is free once it has run, without the garbage collector."""

import gc
import logging
import threading
import time
import weakref

import pytest
from stage import Boom, Gate, replying, visit

from postlude import defer, defer_all, drain
from postlude._arunner import LoopRunner
from postlude.asgi import PostludeMiddleware as ASGIMiddleware
from postlude.wsgi import PostludeMiddleware as WSGIMiddleware


class Heavy:
    """What a call's arguments are in these tests."""


def take(*args, **kwargs):
    """Stand for a call that uses its arguments and keeps none."""


@pytest.fixture
def no_collector():
    """Leave all freeing to reference counts; garbage of before does not count."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def silent():
    """Log nothing: pytest keeps what is logged, and with it the failed call."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def watched(references):
    """Make an object that *references* knows of, and nobody else."""
    heavy = Heavy()
    references.append(weakref.ref(heavy))
    return heavy


def alive(references):
    """Give what is not free, once other threads have had time to leave their frames."""
    attempts = 10_000
    while (left := [ref for ref in references if ref() is not None]) and attempts:
        attempts -= 1
        time.sleep(0.002)
    return left


def test_arguments_are_free_after_the_call(unit, form, no_collector):
    """No reference is left to what a call was given, by position or keyword (D6)."""
    references = []

    def body():
        for _ in range(3):
            defer(form(take), watched(references), key=watched(references))

    unit(body)
    assert len(references) == 6
    assert alive(references) == []


def test_the_function_is_free_after_the_call(unit, form, no_collector):
    """No reference is left to the function itself or its closure (D6)."""
    references = []

    def body():
        heavy = watched(references)
        defer(form(lambda: isinstance(heavy, Heavy)))
        defer_all(form(lambda: heavy), form(lambda: heavy))

    unit(body)
    assert alive(references) == []


def test_dropped_calls_are_free(unit, form, no_collector):
    """Cancelled, replaced and refused calls leave nothing behind (D6, C5)."""
    references = []

    def body():
        defer(form(take), watched(references)).cancel()
        defer(form(take), watched(references)).named("n")
        defer(form(take), watched(references)).named("n")
        defer(form(take), watched(references)).when(lambda outcome: False)

    unit(body)
    assert len(references) == 4
    assert alive(references) == []


def test_an_earlier_calls_arguments_are_free_while_the_next_runs(no_collector):
    """What a call held is free when it has ended, not when its unit has (D6)."""
    references, found = [], []

    def body():
        defer(take, watched(references))
        defer(list)
        defer(lambda: found.append(alive(references)))

    visit(WSGIMiddleware(replying(body)))
    drain(20)
    assert found == [[]]


def test_a_failed_call_is_free_too(unit, form, no_collector, silent):
    """The record of a failed call keeps texts, not what the call held (D6, E1)."""
    references = []

    def fail(heavy):
        raise Boom

    unit(lambda: defer(form(fail), watched(references)))
    assert len(references) == 1
    assert alive(references) == []


def test_idle_threads_keep_nothing_alive(own_threads, no_collector):
    """A thread that waits for work has let go of what it ran last (D6)."""
    references = []
    gates = [Gate() for _ in range(4)]

    def body():
        for gate in gates:
            defer(lambda heavy, gate=gate: gate.wait(), watched(references))

    visit(WSGIMiddleware(replying(body)))
    for gate in gates:
        gate.open()
    drain(20)
    assert alive(references) == []


def test_units_are_no_garbage(unit, form, no_collector):
    """Nothing of Postlude's is left for the collector: there are no cycles (D6)."""
    unit(lambda: defer(form(list)))  # what is made once per process
    gc.collect()
    for _ in range(5):
        unit(lambda: [defer(form(list)).named("n"), defer_all(form(list), form(list))])
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        ours = [thing for thing in gc.garbage if _is_ours(thing)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert ours == []


def _is_ours(thing):
    # What belongs to an event loop or an application goes with it.
    if isinstance(thing, (LoopRunner, ASGIMiddleware, WSGIMiddleware)):
        return False
    return type(thing).__module__.partition(".")[0] == "postlude"


def test_the_threads_do_not_grow_with_the_calls(own_threads):
    """A thousand short units use a bounded set of threads (D6)."""
    used = set()

    def note():
        used.add(threading.get_ident())

    app = WSGIMiddleware(replying(lambda: defer(note)))
    for _ in range(1000):
        visit(app)
    drain(20)
    assert 1 <= len(used) <= 16
