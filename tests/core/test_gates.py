"""B3 and C2: calls wait for the transactions around them, and go with them."""

import asyncio
import contextvars
import gc
import threading
import warnings
from contextlib import suppress

import pytest

import postlude
from postlude import (
    DeferScope,
    UncommittedError,
    configure,
    defer,
    failure_store,
    transaction,
    wsgi,
)
from postlude.asgi import PostludeMiddleware
from postlude.transactions import Gate, _around, begin

PATIENCE = 10


class Ran(list):
    """Notes calls, and lets a test wait for one."""

    def __init__(self):
        super().__init__()
        self.event = threading.Event()

    def __call__(self, name="call"):
        """Note a call."""
        self.append(name)
        self.event.set()

    def wait(self):
        """Wait for the first call."""
        assert self.event.wait(PATIENCE)


@pytest.fixture
def ran():
    """What ran, in order."""
    return Ran()


# -- one gate ---------------------------------------------------------------


def test_a_commit_before_the_end_lets_the_call_run(ran):
    """Commit first, response second (B3)."""
    with DeferScope():
        with transaction():
            call = defer(ran)
        assert ran == []
    assert ran == ["call"]
    assert call.outcome.committed is True


def test_a_commit_after_the_end_lets_the_call_run(ran):
    """Response first, commit second (B3)."""
    gate = None

    with DeferScope():
        gate = begin("db")
        call = defer(ran)
    assert ran == []
    assert call.state == "pending"
    gate.open()
    ran.wait()
    postlude.drain(PATIENCE)
    assert call.state == "done"


@pytest.mark.parametrize("early", [True, False])
def test_a_rollback_drops_the_call(ran, early, logged):
    """Whenever it comes, and with the database and the place in the log (C2)."""
    with DeferScope():
        gate = begin("orders.db")
        call = defer(ran).named("mail")
        other = defer(ran, "always").always()
        if early:
            gate.drop()
        after = defer(ran, "after")
    if not early:
        gate.drop()
    postlude.drain(PATIENCE)
    assert (call.state, call.reason) == ("dropped", "rollback")
    assert call.rolled_back == "orders.db"
    assert other.state == "done"
    assert other.outcome.committed is False
    if early:  # the transaction was over when it was deferred
        assert after.state == "done"
    else:
        assert after.reason == "rollback"
    assert any(
        "mail dropped: rollback of orders.db (deferred at" in text and __file__ in text
        for text in logged.texts()
    )


def test_a_call_from_before_the_transaction_is_not_gated(ran):
    """Only what is deferred inside waits (B3)."""
    with DeferScope():
        defer(ran, "before")
        gate = begin("db")
        inside = defer(ran, "inside")
    assert ran == ["before"]
    gate.drop()
    postlude.drain(PATIENCE)
    assert inside.reason == "rollback"


def test_after_commit_false_opts_out(ran):
    """Such a call waits for no transaction and goes with none (C2)."""
    with DeferScope():
        gate = begin("db")
        call = defer(ran).after_commit(False)
    assert ran == ["call"]
    gate.drop()
    assert call.state == "done"


def test_after_commit_false_may_come_while_it_waits(ran):
    """Options may be set until the call starts (A2)."""
    with DeferScope():
        gate = begin("db")
        call = defer(ran)
    call.after_commit(False)
    ran.wait()
    gate.drop()
    postlude.drain(PATIENCE)
    assert call.state == "done"


def test_a_condition_is_told_whether_it_was_committed(ran):
    """`.when()` decides on the commit too, and is asked once it is known (C1)."""
    seen = []
    with DeferScope():
        first = begin("one")
        defer(ran, "one").when(lambda outcome: seen.append(outcome.committed) or True)
        first.drop()
        second = begin("two")
        defer(ran, "two").when(lambda outcome: seen.append(outcome.committed) or True)
        defer(ran, "none").after_commit(False).when(
            lambda outcome: seen.append(outcome.committed) or True
        )
    second.open()
    postlude.drain(PATIENCE)
    assert ran == ["one", "none", "two"]
    assert seen == [False, None, True]


def test_the_others_do_not_wait(ran):
    """What has no open transaction runs first; order holds among the rest (D1)."""
    with DeferScope():
        gate = begin("db")
        defer(ran, 1)
        defer(ran, 2)
        free = defer(ran, 3).after_commit(False)
    assert ran == [3]
    assert free.state == "done"
    gate.open()
    postlude.drain(PATIENCE)
    assert ran == [3, 1, 2]


def test_cancel_while_it_waits(ran):
    """A waiting call can be taken back, and nobody waits for it any more (C4)."""
    with DeferScope() as scope:
        begin("db")
        call = defer(ran).named("x")
    assert scope.pending == 1
    assert scope.forget("x")
    assert call.reason == "cancelled"
    postlude.drain(PATIENCE)
    assert not scope.busy


def test_a_name_replaces_a_call_that_waits(ran):
    """Names count while a call waits, too (C3)."""
    with DeferScope():
        gate = begin("db")
        first = defer(ran, 1).named("x")
        second = defer(ran, 2).named("x")
    gate.open()
    postlude.drain(PATIENCE)
    assert (first.reason, second.state, ran) == ("replaced", "done", [2])


# -- several ----------------------------------------------------------------


@pytest.mark.parametrize("order", ["one first", "two first"])
def test_two_databases_must_both_commit(ran, order):
    """A call inside two transactions waits for both (B3, A5)."""
    with DeferScope():
        one, two = begin("one"), begin("two")
        call = defer(ran)
        first, last = (one, two) if order == "one first" else (two, one)
        first.open()
    assert call.state == "pending"
    last.open()
    postlude.drain(PATIENCE)
    assert call.state == "done"


def test_either_of_two_databases_drops(ran):
    """One of them rolled back is enough, whatever the other does (C2)."""
    with DeferScope():
        one, two = begin("one"), begin("two")
        call = defer(ran)
        two.drop()
    assert (call.reason, call.rolled_back) == ("rollback", "two")
    one.open()
    assert ran == []


def test_another_databases_end_is_irrelevant(ran):
    """A transaction that began later is not around the call (AC7)."""
    with DeferScope():
        with transaction("one"):
            call = defer(ran)
        begin("two").drop()
    assert call.state == "done"


def test_a_group_waits_call_by_call(ran):
    """`defer_all` inside a transaction waits as any call does (D1)."""
    with DeferScope():
        gate = begin("db")
        calls = postlude.defer_all(lambda: ran(1), lambda: ran(2))
    assert ran == []
    gate.open()
    postlude.drain(PATIENCE)
    assert sorted(ran) == [1, 2]
    assert [call.state for call in calls] == ["done", "done"]


# -- savepoints -------------------------------------------------------------


def test_a_rolled_back_savepoint_drops_only_its_own(ran):
    """What is around it goes on (C2, AC5)."""
    with DeferScope(), transaction() as outer:
        defer(ran, "outer")
        with suppress(ValueError), outer.savepoint():
            inner = defer(ran, "inner")
            raise ValueError("no")
        defer(ran, "after")
    assert ran == ["outer", "after"]
    assert inner.reason == "rollback"


def test_a_released_savepoint_hands_its_calls_out(ran):
    """They go with the outer transaction from then on (C2, A3)."""
    with DeferScope(), suppress(ValueError), transaction() as outer:
        with outer.savepoint() as middle, middle.savepoint():
            call = defer(ran)
        assert call.state == "pending"
        raise ValueError("no")
    assert call.reason == "rollback"


def test_a_commit_ends_the_savepoints_in_it(ran):
    """As COMMIT does; and a rollback likewise (A3)."""
    with DeferScope():
        outer = begin("db")
        inner = begin("db", outer)
        call = defer(ran)
        outer.open()
        inner.drop()  # too late to matter
    assert call.state == "done"


def test_the_first_word_holds(ran):
    """A transaction ends once (C5)."""
    with DeferScope(), transaction() as tx:
        call = defer(ran)
        tx.rollback()
    assert call.reason == "rollback"


def test_a_transaction_block_is_entered_once_at_a_time():
    """Sharing the block between tasks is an error with its fix."""
    tx = transaction()
    with tx, pytest.raises(RuntimeError, match="Make one per transaction"):
        tx.__enter__()


# -- units ------------------------------------------------------------------


def test_a_block_inside_a_transaction_waits_for_it(ran):
    """A block takes over what is around it, and its end waits for nobody (B3, B6)."""
    with transaction("outside"):
        with DeferScope():
            call = defer(ran)
        assert call.state == "pending"
    ran.wait()
    postlude.drain(PATIENCE)
    assert call.state == "done"


def test_a_block_in_a_request_waits_for_the_requests_transaction(ran):
    """The unit around it is looked at as well (A8, B3)."""
    with DeferScope():
        outer = begin("db")
        with DeferScope():
            call = defer(ran)
        assert call.state == "pending"
        outer.drop()
    postlude.drain(PATIENCE)
    assert call.reason == "rollback"


def test_without_a_unit_it_runs_after_the_commit(ran):
    """No unit, but a transaction: at once means after the commit (A5, B3)."""
    with transaction("db"):
        with pytest.warns(postlude.NoScopeWarning, match="runs after the commit"):
            call = defer(ran)
        assert ran == []
    ran.wait()
    postlude.drain(PATIENCE)
    assert call.state == "done"


def test_without_a_unit_a_rollback_drops(ran):
    """The rule of two gates needs no unit (A5, C2)."""
    with (
        suppress(ZeroDivisionError),
        warnings.catch_warnings(action="ignore"),
        transaction(),
    ):
        call = defer(ran)
        raise ZeroDivisionError
    postlude.drain(PATIENCE)
    assert call.reason == "rollback"


async def test_a_task_beside_this_one_is_not_around_it(ran):
    """Two tasks with a transaction each go their own ways (B3)."""
    began, done = asyncio.Event(), asyncio.Event()

    async def bad():
        with suppress(ValueError):
            async with transaction("bad"):
                began.set()
                await done.wait()
                defer(ran, "bad")
                raise ValueError("no")

    async def good():
        await began.wait()
        async with transaction("good"):
            defer(ran, "good")
        done.set()

    async with DeferScope():
        await asyncio.gather(bad(), good())
    assert ran == ["good"]


async def test_a_task_started_inside_is_inside(ran):
    """A sub-task works in the transaction of the task that started it (A1, B3)."""

    async def work():
        defer(ran)

    async def request():
        async with transaction() as tx:
            await asyncio.create_task(work())
            tx.rollback()

    async with DeferScope():
        await asyncio.create_task(request())
    assert ran == []


async def test_a_transaction_begun_by_a_helper_task_counts(ran):
    """As `asyncio.wait_for` makes one on Python 3.11 (B3)."""

    async def open_it():
        return begin("db")

    async with DeferScope():
        gate = await asyncio.create_task(open_it())
        call = defer(ran)
        gate.drop()
    assert call.reason == "rollback"


def test_a_dependency_in_another_thread_counts(ran):
    """A transaction begun in a copied context is of the same unit (B3)."""
    with DeferScope():
        gates = []
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=lambda: context.run(lambda: gates.append(begin("db")))
        )
        thread.start()
        thread.join()
        call = defer(ran)
        gates[0].drop()
    assert call.reason == "rollback"


# -- ends that never come ---------------------------------------------------


def test_a_transaction_left_open_ends_in_a_record(ran, logged):
    """After `commit_wait` the call is lost, and the record says why (D7)."""
    configure(commit_wait=0.05)
    with DeferScope():
        gate = begin("orders.db")
        call = defer(ran).named("mail")
    logged.wait_for("deferred call mail was lost")
    assert call.state == "lost"
    (record,) = failure_store().list()
    assert (record.name, record.state) == ("mail", "lost")
    gate.open()
    assert ran == []


def test_a_gate_of_a_probe_left_open_by_a_request_too(ran, logged, monkeypatch):
    """A request has nothing around it, so it does not wait for ever (D7)."""
    configure(commit_wait=0.05)
    gates = [Gate("orders.db")]
    monkeypatch.setattr(_around, "probes", (lambda: gates,))

    def app(_environ, start_response):
        calls.append(defer(ran).named("mail"))
        start_response("200 OK", [("Content-Length", "0")])
        return []

    calls = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/"}
    for _ in wsgi.PostludeMiddleware(app)(environ, lambda *_: print):
        pass
    logged.wait_for("its transaction on orders.db was neither committed nor rolled")
    assert calls[0].state == "lost"


def test_a_block_waits_as_long_as_what_is_around_it(ran):
    """A transaction of somebody else is not forgotten: it is simply long (B3)."""
    configure(commit_wait=0.05)
    done = threading.Event()
    with transaction("outer"):
        with DeferScope():
            call = defer(ran)
        done.wait(0.3)
        assert call.state == "pending"
    ran.wait()
    postlude.drain(PATIENCE)


def test_the_end_of_the_process_records_it(ran, logged):
    """A drain's grace is the last chance of a commit (D7)."""
    with DeferScope():
        begin("db")
        call = defer(ran)
    postlude.drain(0)
    assert call.state == "lost"
    (record,) = failure_store().list()
    assert record.state == "lost"
    logged.wait_for("and its transaction on db had not ended")


@pytest.mark.parametrize("wrote", [True, False])
def test_a_transaction_that_is_gone_is_noticed(ran, wrote):
    """Its object was collected: rolled back if it wrote, else of no matter (C2)."""
    configure(commit_wait=0.2)

    class Session:
        def __init__(self):
            self.gate = begin("db")
            self.gate.wrote = wrote

        def __del__(self):
            self.gate.abandon()

    with DeferScope():
        session = Session()
        call = defer(ran)
        del session
        gc.collect()
    assert call.state == ("dropped" if wrote else "done")


def test_a_call_that_leaves_its_own_writes_uncommitted_fails(logged):
    """Never silently lost in a finished transaction (S9)."""

    def work():
        gate = begin("orders.db")
        gate.wrote = True

    with DeferScope():
        call = defer(work)
    assert call.state == "failed"
    assert isinstance(call.exception, UncommittedError)
    assert "orders.db" in str(call.exception)


@pytest.mark.parametrize("waits", [False, True])
async def test_an_async_call_that_leaves_its_writes_uncommitted_fails(waits, logged):
    """The same on a loop (S9)."""

    async def work():
        if waits:
            await asyncio.sleep(0)
        begin("orders.db").wrote = True

    async with DeferScope():
        call = defer(work)
    assert isinstance(call.exception, UncommittedError)


def test_a_call_may_commit_and_defer_inside_its_own_transaction(ran):
    """A call's transaction is a gate for what the call defers (A7, B3)."""

    def work():
        with transaction():
            defer(ran, "kept")
        with suppress(ValueError), transaction():
            defer(ran, "dropped")
            raise ValueError("no")

    with DeferScope():
        defer(work)
    assert ran == ["kept"]


async def test_a_request_does_not_wait_for_whoever_commits_after_it(ran):
    """Not even where it stays until its calls have run: no lifespan, a test client."""

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        pass

    async def app(scope, receive, send):
        gates.append(begin("db"))
        defer(ran)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    for client in (("testclient", 50000), ("192.0.2.1", 50001)):
        gates = []
        scope = {"type": "http", "path": "/", "headers": [], "client": client}
        await PostludeMiddleware(app)(scope, receive, send)
        assert ran == []
        gates[0].open()
        await asyncio.to_thread(postlude.drain, PATIENCE)
        assert ran.pop() == "call"


def test_a_thousand_savepoints_end_with_their_transaction(ran):
    """However deep they are (A3)."""
    with DeferScope():
        outer = gate = begin("db")
        for _ in range(2000):
            gate = begin("db", gate)
        defer(ran)
        outer.open()
    assert ran == ["call"]
