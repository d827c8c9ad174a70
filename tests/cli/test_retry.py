"""E2: a call is run again from its record, once, and its record tells how it went."""

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
from contextlib import asynccontextmanager, contextmanager

import pytest
import trio

import postlude
from postlude import DeferScope, defer, failure_store
from postlude.exceptions import ArgumentError, RecordGoneError, StoreError
from postlude.failures import Batch, _retry, aretry, retry
from postlude.failures._attempt import refusal
from postlude.failures._retry import surround
from postlude.failures.memory import MemoryFailureStore
from postlude.failures.sqlite import SQLiteFailureStore
from postlude.testing import capture

pytestmark = pytest.mark.usefixtures("own_process", "_nothing_ran")

broken = True
ran = []
var = contextvars.ContextVar("var", default="nothing")
began = threading.Event()
go_on = threading.Event()


@pytest.fixture
def _nothing_ran(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "broken", True)
    ran.clear()
    began.clear()
    go_on.clear()


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path):
    """A store that is not the process's own."""
    if request.param == "memory":
        yield MemoryFailureStore(3)
        return
    store = SQLiteFailureStore(tmp_path / "postlude.db")
    yield store
    store.close()


def work(number, *, word="word"):
    """Fail while all is broken."""
    ran.append((number, word, threading.current_thread().name, var.get()))
    if broken:
        raise ValueError("broken")


async def awork(number):
    """Fail while all is broken."""
    await asyncio.sleep(0)
    ran.append((number, asyncio.get_running_loop()))
    if broken:
        raise ValueError("broken")


async def trio_work(number):
    """Fail while all is broken, under trio."""
    await trio.lowlevel.checkpoint()
    ran.append(number)
    if broken:
        raise ValueError("broken")


def nesting(number):
    """Defer more, then fail while all is broken."""
    defer(work, number, word="nested")
    work(number)


def waiting(number):
    """Fail while all is broken; else run until it is told to go on."""
    ran.append(number)
    began.set()
    if broken:
        raise ValueError("broken")
    assert go_on.wait(10)


async def awaiting(number):
    """The same, async."""
    ran.append(number)
    began.set()
    if broken:
        raise ValueError("broken")
    assert await asyncio.to_thread(go_on.wait, 10)


def changing(numbers):
    """Change what it was given, and fail."""
    numbers.append(1)
    if broken:
        raise ValueError("broken")


def failed(store, fn, *args, **kwargs):
    """Let a call fail, and put its record into *store*."""
    with DeferScope():
        defer(fn, *args, **kwargs)
    (*_, record) = [
        r for r in failure_store().list() if r.function.endswith(fn.__name__)
    ]
    failure_store().forget([r.id for r in failure_store().list()])
    record = record._replace(unit={"method": "POST", "route": "/orders"})
    store.write(Batch((record,)))
    ran.clear()
    began.clear()
    return record


def heal():
    """Let calls end well from now on."""
    global broken
    broken = False


@pytest.mark.parametrize("fn", [work, awork, nesting])
def test_what_ends_well_is_forgotten(store, fn):
    """A call that ends well, whatever its kind, has no record any more (E2)."""
    record = failed(store, fn, 1)
    heal()
    result = retry(record, store)
    assert (result.record, result.state, result.failure) == (record, "done", None)
    assert result.seconds > 0
    assert [entry[0] for entry in ran] == [1] * (2 if fn is nesting else 1)
    assert list(store.list()) == []
    assert list(failure_store().list()) == []


def test_arguments_are_those_of_the_first_time(store):
    """The function gets the arguments that the call was deferred with (E2)."""
    record = failed(store, work, 7, word="other")
    heal()
    retry(record, store)
    assert ran[0][:2] == (7, "other")


@pytest.mark.parametrize("fn", [work, awork])
def test_what_fails_again_is_replaced(store, fn):
    """One record stays: same id, unit and place, one attempt more, new error (E2)."""
    record = failed(store, fn, 1)
    result = retry(record, store)
    (kept,) = store.list()
    assert result.failure == kept
    assert result.state == kept.state == "failed"
    assert (kept.id, kept.attempt) == (record.id, 2)
    assert (kept.unit, kept.site, kept.name) == (record.unit, record.site, record.name)
    assert (kept.payload, kept.refusal) == (record.payload, None)
    assert kept.ended > record.ended
    assert list(failure_store().list()) == []  # the process's own
    assert retry(kept, store).failure.attempt == 3


def test_failures_of_nested_calls_are_kept_in_the_same_store(store):
    """What the call defers, and fails, gets a record of its own beside it (E2)."""
    record = failed(store, nesting, 1)
    result = retry(record, store)
    (other,) = result.others
    assert other.name == f"{__name__}:work"
    assert other.unit == record.unit
    assert {r.id for r in store.list()} == {record.id, other.id}
    assert list(failure_store().list()) == []


def test_changed_arguments_are_not_kept(store):
    """A call that changes what it is given has its old arguments next time (E2)."""
    record = failed(store, changing, [0])
    record = record._replace(payload="[[[0]],{}]", arguments={"numbers": "[0]"})
    store.write(Batch((record,)))
    retry(record, store)
    (kept,) = store.list()
    assert kept.payload == record.payload
    assert kept.arguments == record.arguments


def test_the_processs_own_store_is_the_default(store):
    """Without a store, it is that of this process (E2)."""
    with DeferScope():
        defer(work, 1)
    (record,) = failure_store().list()
    assert retry(record).failure.attempt == 2
    (kept,) = failure_store().list()
    assert kept.attempt == 2
    heal()
    retry(kept)
    assert list(failure_store().list()) == []


def test_it_runs_in_a_thread_and_a_context_of_its_own(store):
    """Whoever asks, the call sees nothing of their context (D4)."""
    record = failed(store, work, 1)
    heal()
    var.set("of whoever asks")
    with DeferScope() as outer:
        retry(record, store)
        assert outer.pending == 0
    assert ran == [(1, "word", "postlude-retry", "nothing")]


def test_only_one_of_two_runs_it(store):
    """Two who retry the same record at once run it once; the other is told (E2)."""
    record = failed(store, waiting, 1)
    heal()
    results = []
    first = threading.Thread(target=lambda: results.append(retry(record, store)))
    first.start()
    assert began.wait(10)
    with pytest.raises(RecordGoneError, match=r"somebody else has run it again"):
        retry(record, store)
    go_on.set()
    first.join()
    assert results[0].state == "done"
    assert ran == [1]
    assert list(store.list()) == []


def test_many_at_once_run_it_once(tmp_path):
    """Of many threads that retry one record, one runs it and nothing is left (E2)."""
    store = SQLiteFailureStore(tmp_path / "postlude.db")
    record = failed(store, work, 1)
    heal()
    barrier = threading.Barrier(8)
    gone = []

    def person():
        barrier.wait()
        try:
            retry(record, store)
        except RecordGoneError as exc:
            gone.append(exc)

    threads = [threading.Thread(target=person) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ran) == 1
    assert len(gone) == 7
    assert list(store.list()) == []
    store.close()


def test_while_it_runs_a_copy_is_there_that_cannot_be_run(tmp_path):
    """A record is never out of the store; while it runs it says who runs it (E2)."""
    store = SQLiteFailureStore(tmp_path / "postlude.db")
    record = failed(store, waiting, 1)
    heal()
    thread = threading.Thread(target=retry, args=(record, store))
    thread.start()
    assert began.wait(10)
    (copy,) = store.list()
    assert copy.id != record.id
    assert (copy.id[:8], len(copy.id)) == (record.id[:8], len(record.id))
    assert (copy.attempt, copy.pid) == (2, os.getpid())
    with pytest.raises(ArgumentError, match="is running it again now"):
        retry(copy, store)
    go_on.set()
    thread.join()
    assert list(store.list()) == []
    store.close()


def test_the_copy_of_a_dead_process_can_be_run(tmp_path):
    """What a killed process was running is a record like any other (E2)."""
    store = SQLiteFailureStore(tmp_path / "postlude.db")
    record = failed(store, work, 1)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) as other:
        copy = record._replace(id=f"{record.id[:24]}~1234567", pid=other.pid)
        assert "is running it again now" in refusal(copy)
        other.kill()
    assert refusal(copy) is None
    store.write(Batch((copy,)))
    store.forget([record.id])
    heal()
    assert retry(copy, store).state == "done"
    assert list(store.list()) == []
    store.close()


def test_a_full_ring_loses_nothing():
    """In memory, the copy of a record does not push out another one (E2)."""
    store = MemoryFailureStore(2)
    first = failed(store, work, 1)
    second = failed(store, work, 2)
    retry(first, store)
    assert [(r.id, r.attempt) for r in store.list()] == [(second.id, 1), (first.id, 2)]


async def test_on_a_loop(store):
    """`aretry` runs sync calls in threads and async ones on this loop (D3)."""
    record = await asyncio.to_thread(failed, store, work, 1)
    other = await asyncio.to_thread(failed, store, awork, 2)
    with pytest.raises(RuntimeError, match="await aretry"):
        retry(record, store)
    assert (await aretry(record, store)).failure.attempt == 2
    heal()
    ran.clear()
    assert (await aretry(record, store)).state == "done"
    assert ran[0][2] != threading.current_thread().name
    ran.clear()
    assert (await aretry(other, store)).state == "done"
    assert ran == [(2, asyncio.get_running_loop())]
    assert await asyncio.to_thread(lambda: list(store.list())) == []


async def test_cancelled_while_it_runs(store):
    """Whoever waits may be cancelled: the call ends, and its record is settled (B5)."""
    record = await asyncio.to_thread(failed, store, awaiting, 1)
    heal()
    task = asyncio.create_task(aretry(record, store))
    assert await asyncio.to_thread(began.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    (left,) = _retry._tasks
    await left
    assert await asyncio.to_thread(lambda: list(store.list())) == []
    assert ran == [1]


def test_under_trio(store):
    """`aretry` works under trio too (D3)."""
    record = failed(store, work, 1)
    other = failed(store, trio_work, 2)
    heal()

    async def main():
        outer = postlude.current_scope()
        assert (await aretry(record, store)).state == "done"
        assert (await aretry(other, store)).state == "done"
        assert postlude.current_scope() is outer

    trio.run(main)
    assert [entry if isinstance(entry, int) else entry[0] for entry in ran] == [1, 2]
    assert list(store.list()) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"refusal": "it is a lambda"}, "cannot be run again: it is a lambda. Usually"),
        ({"payload": None}, "its arguments were not kept"),
        ({"function": f"{__name__}:gone"}, "cannot be found"),
        ({"function": "os:system"}, "belongs to Python"),
        ({"function": f"{__name__}:test_on_a_loop.nothing"}, "cannot be found"),
        ({"payload": "[[1, 2, 3], {}]"}, "do not fit .*too many positional arguments"),
        ({"payload": '[[],{"number":1,"lost":2}]'}, "unexpected keyword argument"),
        ({"payload": "[["}, "The stored arguments cannot be read"),
        ({"payload": "null"}, "The stored arguments cannot be read"),
    ],
)
def test_what_cannot_be_run_says_why(store, change, text):
    """No function, no arguments, or no fit: an error, and nothing runs (E2)."""
    record = failed(store, work, 1)._replace(**change)
    store.write(Batch((record._replace(attempt=2),)))
    with pytest.raises(ArgumentError, match=text):
        retry(record, store)
    assert ran == []
    assert [r.id for r in store.list()] == [record.id]


def test_a_function_that_became_a_generator(store, monkeypatch):
    """What cannot be deferred any more cannot be run again (A4)."""
    record = failed(store, work, 1)

    def work_now(number):
        yield number

    work_now.__module__, work_now.__qualname__ = __name__, "work"
    monkeypatch.setattr(sys.modules[__name__], "work", work_now)
    with pytest.raises(ArgumentError, match="generator"):
        retry(record, store)
    assert [r.id for r in store.list()] == [record.id]


def test_a_module_that_cannot_be_imported(store, tmp_path, monkeypatch):
    """What its module raises when it is imported is said in words (E2)."""
    (tmp_path / "needs_settings.py").write_text("import os\nos.environ['NOT_THERE']\n")
    (tmp_path / "exits.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    for module, text in (("needs_settings", "KeyError"), ("exits", "SystemExit")):
        record = failed(store, work, 1)._replace(function=f"{module}:work")
        with pytest.raises(ArgumentError, match=text):
            retry(record, store)


class _Around:
    """Surroundings that write down when they were there."""

    def __init__(self, name, again=None):
        self.name = name
        if again is not None:
            self.for_retry = lambda: again

    @contextmanager
    def sync(self):
        ran.append(f"+{self.name}")
        yield
        ran.append(f"-{self.name}")

    @asynccontextmanager
    async def asynchronous(self):
        with self.sync():
            yield


def test_surroundings(store):
    """Calls run in the process's surroundings, and in those of the unit that asks.

    Of these only in what they offer for that; the rest is its request's (D4).
    """
    record = failed(store, work, 1)
    heal()
    surround(_Around("process"))
    with DeferScope() as outer:
        outer.surround(_Around("request"))
        outer.surround(_Around("app", again=_Around("app again")))
        retry(record, store)
    at = [i for i, entry in enumerate(ran) if isinstance(entry, tuple)]
    assert ran[at[0] - 2 : at[0]] == ["+process", "+app again"]
    assert ran[at[0] + 1 : at[0] + 3] == ["-app again", "-process"]
    assert "+request" not in ran
    assert "+app" not in ran


def test_the_testing_kit_may_keep_the_call(store):
    """Under `capture()` nothing runs, and the record stays as it was (G2)."""
    record = failed(store, work, 1)
    with capture():
        result = retry(record, store)
    assert result.state == "pending"
    assert ran == []
    assert list(store.list()) == [record]


class _Stubborn(SQLiteFailureStore):
    """Fails when it is told to."""

    broken = False

    def forget(self, ids):
        if self.broken:
            raise StoreError("the disk is gone")
        return super().forget(ids)


def test_a_store_that_fails_after_the_call(tmp_path):
    """If the record cannot be settled, the error says that the call has run (E3)."""
    store = _Stubborn(tmp_path / "postlude.db")
    record = failed(store, waiting, 1)
    heal()
    errors = []

    def person():
        try:
            retry(record, store)
        except StoreError as exc:
            errors.append(str(exc))

    thread = threading.Thread(target=person)
    thread.start()
    assert began.wait(10)
    store.broken = True
    go_on.set()
    thread.join()
    (text,) = errors
    assert text.startswith(f"The call {record.name} ended as done, but its record")
    (left,) = store.list()
    assert refusal(left) is None  # it does not run any more
    store.close()


def test_late_failures_go_to_the_processs_own_store(store):
    """What a thread defers after the attempt is over is not lost (A6)."""
    record = failed(store, late, 1)
    heal()
    result = retry(record, store)
    go_on.set()
    (thread,) = _threads
    thread.join()
    assert result.state == "done"
    assert list(store.list()) == []
    assert [r.name for r in failure_store().list()] == [f"{__name__}:fail_late"]


_threads = []


def late(number):
    """Start a thread that defers when all is over."""
    if broken:
        raise ValueError("broken")
    context = contextvars.copy_context()

    def run():
        assert go_on.wait(10)
        defer(fail_late)
        postlude.drain(5)

    _threads[:] = [threading.Thread(target=context.run, args=(run,))]
    _threads[0].start()


def fail_late():
    """Fail."""
    raise ValueError("late")
