"""E2, E3, D7, D8: records are written in batches by a thread that nobody waits for."""

import asyncio
import os
import signal
import threading
import time
from contextlib import contextmanager

import pytest
from stage.waiting import PATIENCE, Gate

import postlude
from postlude import DeferScope, _reporting, defer, drain
from postlude.failures import _writer
from postlude.failures._writer import Writer
from postlude.failures.memory import MemoryFailureStore
from postlude.failures.sqlite import SQLiteFailureStore
from postlude.instrumentation import CallRecord, _instruments

NOW = time.time() // 60 * 60.0


class Keeper(MemoryFailureStore):
    """A store that takes its time, and knows how it was used."""

    immediate = False

    def __init__(self):
        """Begin with nothing."""
        super().__init__(1_000_000)
        self.batches = []
        self.error = None
        self.threads = set()
        self.closed = threading.Event()
        self.wrote = threading.Semaphore(0)
        self.gate = None
        self.inside = threading.Event()

    def write(self, batch):
        """Keep a batch, if it may be."""
        self.threads.add(threading.current_thread().name)
        self.inside.set()
        if self.gate is not None:
            self.gate.wait()
        if self.error is not None:
            raise self.error
        self.batches.append(batch)
        super().write(batch)
        self.wrote.release()

    def close(self):
        """Be closed."""
        self.closed.set()


def at_rest():
    """Tell of a process in which nothing happens."""
    return 0, (), ()


@pytest.fixture
def keeper():
    """A store that takes its time."""
    return Keeper()


@pytest.fixture
def writer(keeper, monkeypatch):
    """The one who writes to it, and tries again soon."""
    monkeypatch.setattr(_writer, "_PAUSE", 0.01)
    monkeypatch.setattr(_writer, "_LONGEST", 0.02)
    monkeypatch.setattr(_writer, "_SETTLED", 0.0)
    made = Writer(keeper, at_rest)
    yield made
    keeper.error = None
    if keeper.gate is not None:
        keeper.gate.open()
    made.close()
    assert made.join(PATIENCE)
    assert keeper.closed.wait(PATIENCE)


def fail(*args):
    """Raise what these tests look for."""
    raise ValueError


def ended(**fields):
    """Make the record of a call that has ended."""
    values = dict.fromkeys(CallRecord._fields) | {
        "id": "1",
        "function": "shop:mail",
        "unit": {"method": "GET", "route": "/"},
        "state": "done",
        "started": NOW,
        "ended": NOW + 1.0,
        "is_async": False,
        "delivered": True,
    }
    return CallRecord(**{**values, **fields})


# -- batches -------------------------------------------------------------------


def test_records_are_written_in_batches(writer, keeper, record):
    """What comes while one batch is written goes into the next, by a thread (E2)."""
    keeper.gate = Gate()
    writer.failed(record())
    assert keeper.inside.wait(PATIENCE)
    for _ in range(2_500):
        writer.failed(record())
    keeper.gate.open()
    assert writer.flush(PATIENCE)
    sizes = [len(batch.failures) for batch in keeper.batches]
    assert sizes == [1, 1_000, 1_000, 500]
    assert [r.id for r in keeper.list()] == [f"{n:032x}" for n in range(1, 2_502)]
    assert keeper.threads == {"postlude-records"}


def test_a_batch_is_bounded_in_size_too(writer, keeper, record):
    """Large records make batches of few (E2)."""
    keeper.gate = Gate()
    writer.failed(record())
    assert keeper.inside.wait(PATIENCE)
    for _ in range(6):
        writer.failed(record(traceback="x" * 4_000_000))
    keeper.gate.open()
    assert writer.flush(PATIENCE)
    assert max(len(batch.failures) for batch in keeper.batches) == 3


def test_flush_waits_for_what_is_under_way(writer, keeper, record):
    """A batch that the store is just writing is not written yet (D7)."""
    keeper.gate = Gate()
    writer.failed(record())
    assert keeper.inside.wait(PATIENCE)
    assert not writer.flush(0.05)
    keeper.gate.open()
    assert writer.flush(PATIENCE)
    assert keeper.count() == 1


def test_flush_does_not_wait_for_what_comes_later(writer, keeper, record):
    """What comes after `flush` was called is for the next one (D7)."""
    for _ in range(3_000):
        writer.failed(record())
    stop = threading.Event()

    def go_on():
        while not stop.is_set():
            writer.ended(ended())

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        assert writer.flush(PATIENCE)
        assert keeper.count() == 3_000
    finally:
        stop.set()
        thread.join()


def test_flush_with_nothing_to_write_starts_nothing(writer, keeper):
    """Without a record there is no thread (E4)."""
    assert writer.flush(PATIENCE)
    assert writer._thread is None
    assert keeper.batches == []


def test_flush_does_not_wait_for_a_store_that_refuses(writer, keeper, record, logged):
    """With a store that is down, an ending process does not wait in vain (D7)."""
    keeper.error = OSError("down")
    writer.failed(record())
    logged.wait_for("cannot be written to")
    before = time.monotonic()
    assert not writer.flush(60.0)
    assert time.monotonic() - before < PATIENCE


def test_numbers_are_added_up_before_they_are_written(writer, keeper):
    """A thousand calls of one kind are some rows (E2)."""
    for _ in range(1_000):
        writer.ended(ended())
    assert writer.flush(PATIENCE)
    counts = {(t.kind, t.label): t.count for t in keeper.tallies(0)}
    assert counts["ended", "done"] == counts["busy", "thread"] == 1_000
    assert sum(len(batch.tallies) for batch in keeper.batches) < 50


def test_a_process_at_rest_is_left_alone(keeper, monkeypatch, record):
    """Where nothing happens, nothing is written but a sign of life (E4)."""
    monkeypatch.setattr(_writer, "_PAUSE", 0.001)
    monkeypatch.setattr(_writer, "_PULSE", 0.005)
    monkeypatch.setattr(_writer, "_REST", 3_600.0)
    writer = Writer(keeper, at_rest)
    writer.failed(record())
    assert writer.flush(PATIENCE)
    keeper.wrote.acquire()
    later = 0
    while keeper.wrote.acquire(timeout=0.2):  # forty pulses without a write
        later += 1
    assert later <= 2  # what the last look added, and no more
    writer.close()
    assert writer.join(PATIENCE)


def test_what_runs_is_looked_at_while_it_runs(keeper, monkeypatch):
    """A call that takes long is seen in the store before it has ended (E4)."""
    monkeypatch.setattr(_writer, "_PULSE", 0.01)
    running = [(("mail", "shop.py:7 in order", 5.0),)]
    writer = Writer(keeper, lambda: (3, running[0], ("threads",)))
    writer.around(None)
    for _ in range(3):
        assert keeper.wrote.acquire(timeout=PATIENCE)
    (process,) = keeper.processes(0)
    assert (process.pid, process.pending) == (os.getpid(), 3)
    assert process.running == running[0]
    assert process.limits["threads"] == 16.0
    beats = {t.label: t.count for t in keeper.tallies(0) if t.kind == "beat"}
    assert beats["threads"] == beats["all"] >= 2
    writer.close()
    assert writer.join(PATIENCE)


def test_the_last_word_of_a_process_is_that_nothing_runs(keeper):
    """What was seen running is seen to have ended by whoever flushes (E4, D7)."""
    busy = [3, (("mail", "shop.py:7 in order", 5.0),)]
    writer = Writer(keeper, lambda: (busy[0], busy[1], ()))
    writer.around(None)
    assert keeper.wrote.acquire(timeout=PATIENCE)
    assert [process.pending for process in keeper.processes(0)] == [3]
    busy[:] = [0, ()]
    assert writer.flush(PATIENCE)
    assert [(p.pending, p.running) for p in keeper.processes(0)] == [(0, ())]
    writer.close()
    assert writer.join(PATIENCE)


def test_the_writer_prunes_once_an_hour(writer, keeper, record, monkeypatch):
    """Retention is the settings', by age and by number (E2)."""
    pruned = []
    monkeypatch.setattr(keeper, "prune", lambda **bounds: pruned.append(bounds))
    postlude.configure(failures_kept=5, failures_days=2.0)
    for _ in range(3):
        writer.failed(record())
        assert writer.flush(PATIENCE)
    (bounds,) = pruned
    assert bounds["keep"] == 5
    assert abs(time.time() - 2 * 86_400 - bounds["before"]) < 60
    writer._pruned -= 3_601
    writer.failed(record())
    assert writer.flush(PATIENCE)
    assert len(pruned) == 2


# -- a store that is down ------------------------------------------------------


@pytest.mark.parametrize("error", [OSError("down"), SystemExit("x"), KeyError()])
def test_a_store_that_is_down_is_said_once(writer, keeper, record, logged, error):
    """One line tells that it is down, one that it works again; nothing is lost (E3)."""
    keeper.error = error
    for _ in range(5):
        writer.failed(record())
        writer.ended(ended())
        assert not writer.flush(PATIENCE)
    (said,) = logged.texts(30)
    assert "cannot be written to" in said
    assert "records wait in memory" in said
    keeper.error = None
    logged.wait_for("works again")
    assert writer.flush(PATIENCE)
    assert [r.id for r in keeper.list()] == [f"{n:032x}" for n in range(1, 6)]
    assert {t.count for t in keeper.tallies(0) if t.kind == "ended"} == {5}
    assert len(logged.texts(30)) == 2


def test_a_second_outage_is_said_too(writer, keeper, record, logged):
    """Once is once per outage (E3)."""
    for _ in range(2):
        keeper.error = OSError()
        writer.failed(record())
        assert not writer.flush(PATIENCE)
        keeper.error = None
        assert writer.flush(PATIENCE)
        logged.wait_for("works again")
        logged.records.clear()
    assert keeper.count() == 2


def test_a_store_that_stutters_is_said_once(
    writer, keeper, record, logged, monkeypatch
):
    """A store that takes one batch in two is not well yet (E3)."""
    monkeypatch.setattr(_writer, "_SETTLED", 3_600.0)
    for _ in range(5):
        keeper.error = OSError()
        writer.failed(record())
        assert not writer.flush(PATIENCE)
        keeper.error = None
        assert writer.flush(PATIENCE)
    assert len(logged.texts(30)) == 1
    assert keeper.count() == 5


def test_records_that_wait_are_bounded(writer, keeper, record, logged, monkeypatch):
    """Beyond a bound, records are in the log only, and that is said (E3)."""
    monkeypatch.setattr(_writer, "_MOST", 10)
    keeper.error = OSError()
    for _ in range(25):
        writer.failed(record())
    assert not writer.flush(PATIENCE)
    keeper.error = None
    logged.wait_for("15 failures were not kept")
    assert writer.flush(PATIENCE)
    assert keeper.count() == 10


def test_records_that_wait_are_bounded_in_size(writer, keeper, record, monkeypatch):
    """Fifty thousand large records would be gigabytes (E3)."""
    keeper.error = OSError()
    for _ in range(100):
        writer.failed(record(payload="x" * 1_000_000))
    assert 60 < len(writer._failures) < 67
    keeper.error = None
    assert writer.flush(PATIENCE)
    assert writer._room == 0
    writer.failed(record())
    assert writer.flush(PATIENCE)


def test_numbers_that_wait_are_bounded(writer, keeper, monkeypatch):
    """A store that is away for days does not fill the memory with minutes (E3)."""
    keeper.error = OSError()
    for minute in range(30_000):
        writer.ended(ended(ended=60.0 * minute, started=None))
    assert not writer.flush(PATIENCE)
    assert len(writer._tallies._numbers) <= 20_000


def test_a_waiting_record_holds_no_exception(writer, keeper):
    """What waits must not hold what the failed call held: its frames (E3)."""
    keeper.gate = Gate()
    writer.ended(ended(exception=ValueError()))
    assert all(one.exception is None for one in list(writer._ended))


def test_a_look_that_fails_costs_no_record(keeper, record, monkeypatch):
    """Whatever goes wrong before a batch is written, its records stay (E3)."""
    monkeypatch.setattr(_writer, "_PAUSE", 0.01)
    state = [None]

    def look():
        if state[0] is None:
            raise RuntimeError
        return state[0]

    writer = Writer(keeper, look)
    writer.failed(record())
    assert not writer.flush(PATIENCE)
    state[0] = at_rest()
    assert writer.flush(PATIENCE)
    assert keeper.count() == 1
    writer.close()
    assert writer.join(PATIENCE)


# -- nobody waits --------------------------------------------------------------


@contextmanager
def configured(store):
    """Have this process keep its failures there."""
    postlude.configure(failures=store)
    postlude.settings()
    yield store
    if store.gate is not None:
        store.gate.open()


async def test_a_blocked_store_blocks_neither_loop_nor_calls(keeper):
    """With a store that hangs, calls run, and the loop turns (E3, D3)."""
    keeper.gate = Gate()
    seen = []

    async def afail():
        raise ValueError

    with configured(keeper):
        for _ in range(3):
            async with DeferScope():
                defer(fail)
                defer(afail)
                defer(seen.append, "next")
            await asyncio.sleep(0)
        assert seen == ["next"] * 3
        assert not await asyncio.to_thread(_reporting.flush, 0.01)
        assert keeper.count() == 0
        keeper.gate.open()
        assert await asyncio.to_thread(_reporting.flush, PATIENCE)
    assert keeper.count() == 6


def test_drain_waits_for_the_records(keeper):
    """When `drain` returns, what failed is in the store (D7)."""
    with configured(keeper):
        for _ in range(10):
            with DeferScope():
                defer(fail)
        drain()
        assert keeper.count() == 10
        ended = [t.count for t in keeper.tallies(0) if t.kind == "ended"]
        assert sum(ended) == 10  # in one minute or two


def test_every_state_is_recorded(keeper):
    """Failed, timed-out and lost calls go to the store, good ones are counted (E1)."""
    gate = Gate()

    def body():
        defer(list)
        defer(fail).named("failed")
        defer(gate.wait).timeout(0.01).named("timed_out")

    with configured(keeper):
        with DeferScope():
            body()
        drain()
        gate.open()
        assert {r.name: r.state for r in keeper.list()} == {
            "failed": "failed",
            "timed_out": "timed_out",
        }
        states = {t.label for t in keeper.tallies(0) if t.kind == "ended"}
        assert states == {"done", "failed", "timed_out"}


def test_another_store_takes_over(keeper, record):
    """After `configure` the old store gets what is its own, and is closed (E2)."""
    other = Keeper()
    with configured(keeper):
        with DeferScope():
            defer(fail)
        with configured(other):
            assert keeper.closed.wait(PATIENCE)
            with DeferScope():
                defer(fail)
            drain()
        assert (keeper.count(), other.count()) == (1, 1)
        assert sum(isinstance(one, Writer) for one in _instruments.instruments) == 1
        old = {t.count for t in keeper.tallies(0) if t.kind == "ended"}
        assert old == {1}


def test_another_store_does_not_wait_for_the_old_one(keeper):
    """New settings are read at once, though the old store hangs; drain waits (D3)."""
    keeper.gate = Gate()
    with configured(keeper):
        with DeferScope():
            defer(fail)
        assert keeper.inside.wait(PATIENCE)
        with configured(Keeper()):  # on a loop, too
            assert not keeper.closed.is_set()
            keeper.gate.open()
            drain()
            assert keeper.closed.is_set()
    assert keeper.count() == 1


def test_a_replaced_store_that_refuses_is_told_of(keeper, logged):
    """What the old store does not take is counted in the log, and not kept (E3)."""
    keeper.error = OSError("down")
    with configured(keeper):
        with DeferScope():
            defer(fail)
        with configured(Keeper()):
            assert keeper.closed.wait(PATIENCE)
            drain()
    assert any("1 failures were not kept" in text for text in logged.texts())


def test_no_store_takes_over(keeper):
    """Without a store no call is counted for one any more (E4)."""
    with configured(keeper):
        postlude.configure(failures=None)
        postlude.settings()
        assert keeper.closed.wait(PATIENCE)
        assert not any(isinstance(one, Writer) for one in _instruments.instruments)
        assert not _reporting.writes()


def test_first_requests_open_one_store(monkeypatch, tmp_path):
    """However many requests are the first, one store is opened (E2)."""
    opened = []
    start = threading.Barrier(8)

    class Slow(SQLiteFailureStore):
        def __init__(self, *args, **options):
            opened.append(self)
            time.sleep(0.01)  # so that the others come meanwhile
            super().__init__(*args, **options)

    monkeypatch.setattr("postlude.failures.sqlite.SQLiteFailureStore", Slow)
    postlude.configure(failures=str(tmp_path / "postlude.db"))

    def first():
        start.wait()
        postlude.settings()

    threads = [threading.Thread(target=first) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1
    assert sum(isinstance(one, Writer) for one in _instruments.instruments) == 1


# -- the end of a process, and its fork ----------------------------------------

PROGRAM = """
    import os, sys, threading, time, warnings
    import postlude
    from postlude import DeferScope, _reporting, defer
    # Python 3.12 warns of every fork beside threads, which is what is tested here.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    import logging
    logging.getLogger("postlude").addHandler(logging.NullHandler())
    postlude.configure(failures="sqlite:///postlude.db")

    def fail(who):
        raise ValueError(who)

    def some(who, count=1):
        for _ in range(count):
            with DeferScope():
                defer(fail, who)
"""


def kept(script):
    """Give who failed in a program, in order."""
    store = SQLiteFailureStore(script.folder / "postlude.db", create=False)
    try:
        return [record.exception for record in store.list()]
    finally:
        store.close()


WIDE_ENDS = [
    pytest.param("sys.exit(3)", marks=pytest.mark.wide),
    pytest.param("raise SystemExit(3)", marks=pytest.mark.wide),
]


@pytest.mark.parametrize("end", ["", "1 / 0", *WIDE_ENDS])
def test_nothing_is_lost_when_the_interpreter_ends(script, end):
    """However a program ends in order, its records have been written (D7)."""
    ran = script.run(f"{PROGRAM}\n    some('x', 2_500)\n    {end}\n")
    assert (ran.stderr == "") == (end != "1 / 0"), ran.stderr
    assert len(kept(script)) == 2_500


def test_what_fails_at_the_very_end_is_written(script):
    """A call that is drained by the end of the interpreter is recorded (D7)."""
    ran = script.run(
        f"""{PROGRAM}
    from postlude.wsgi import PostludeMiddleware

    def app(environ, start_response):
        def slow():
            time.sleep(0.05)
            fail("late")
        defer(slow)
        start_response("200 OK", [])
        return iter([b""])

    environ = {{"REQUEST_METHOD": "GET", "SERVER_SOFTWARE": "a server/1.0"}}
    PostludeMiddleware(app)(environ, lambda *args: None).close()
    """
    )
    assert ran.stderr == ""
    assert kept(script) == ["ValueError('late')"]


def test_a_program_that_never_fails_makes_no_file(script):
    """Without a call nothing is opened (E4)."""
    ran = script.run(f"{PROGRAM}\n    postlude.failure_store()\n")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert [part.name for part in script.folder.iterdir()] == ["program.py"]


def test_a_killed_process_has_written_what_is_older_than_a_moment(script):
    """SIGKILL takes the last tenth of a second, and no more (E2)."""
    process = script.start(
        f"""{PROGRAM}
    some("x", 50)
    while postlude.failure_store().count() < 50:
        time.sleep(0.01)
    print("written", flush=True)
    time.sleep(60)
    """
    )
    assert process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(kept(script)) == 50


def test_parent_and_child_each_write_their_own(script):
    """After a fork, what waited is written once, by the parent; then each writes its
    own, while the other one does (D8).
    """
    ran = script.run(
        f"""{PROGRAM}
    some("before", 100)
    child = os.fork()
    some("child" if child == 0 else "parent", 300)
    if child:
        assert os.waitpid(child, 0)[1] == 0
    """
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    names = kept(script)
    counts = {who: names.count(f"ValueError('{who}')") for who in WHO}
    assert counts == {"before": 100, "child": 300, "parent": 300}


WHO = ("before", "child", "parent")


def test_forks_in_the_middle_of_writing(script):
    """Children made at any moment of the parent's writing can write (D8)."""
    ran = script.run(
        f"""{PROGRAM}
    stop = threading.Event()
    some("parent")  # loads what is loaded late: a fork in an import is a trap

    def busy():
        while not stop.is_set():
            some("parent")

    thread = threading.Thread(target=busy)
    thread.start()
    children = []
    for n in range(20):
        time.sleep(0.003)
        child = os.fork()
        if child == 0:
            some("child", 5)
            written = _reporting.flush(30)
            os._exit(0 if written else 1)
        children.append(child)
    codes = [os.waitpid(child, 0)[1] for child in children]
    stop.set()
    thread.join()
    print(codes)
    """
    )
    assert ran.stderr == ""
    assert ran.stdout == f"{[0] * 20}\n"
    names = kept(script)
    assert names.count("ValueError('child')") == 100
    assert names.count("ValueError('parent')") > 0


def test_a_preloaded_application_writes_from_each_worker(script):
    """What gunicorn does with `--preload`: the store is chosen before the fork (D8)."""
    ran = script.run(
        f"""{PROGRAM}
    postlude.failure_store().count()
    for n in range(4):
        if os.fork() == 0:
            some("worker", 50)
            sys.exit()
    for n in range(4):
        assert os.wait()[1] == 0
    some("parent")
    """
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    names = kept(script)
    assert len(names) == 201


def test_the_thread_has_no_context_of_a_request(writer, keeper, record):
    """The thread is of no unit, whoever wrote the first record (D4)."""
    seen = []
    keeper.wrote.release = lambda: seen.append(postlude.current_scope())
    with DeferScope():
        writer.failed(record())
        assert writer.flush(PATIENCE)
    assert set(seen) == {None}


def test_where_no_thread_can_start_flush_writes_itself(
    writer, keeper, record, monkeypatch
):
    """From Python 3.12 on no thread starts while the interpreter ends (D7)."""

    def refuse(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for _ in range(1_500):
        writer.failed(record())
    assert writer.flush(PATIENCE)
    assert keeper.count() == 1_500
    assert keeper.threads == {threading.current_thread().name}
    keeper.error = OSError()
    writer.failed(record())
    assert not writer.flush(PATIENCE)
