"""B3 and C2 with sessions: calls wait for what is open around them, and go with it."""

import contextvars
import threading
from contextlib import nullcontext, suppress

import pytest
from orders import Base, BoomError, Order, begin_for_real, call
from sqlalchemy import create_engine, event, select
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from postlude import DeferScope, defer
from postlude.wsgi import PostludeMiddleware

# -- one session --------------------------------------------------------------


def test_without_a_transaction_it_does_not_wait(sqlite_engine):
    """No transaction is open: the end of the unit is enough (A1)."""
    with DeferScope():
        session = Session(sqlite_engine)
        deferred = defer(call)
    assert deferred.state == "done"
    session.close()


def test_it_runs_after_the_commit(engine, stored):
    """Not before, and then what was written is there for others (A2, B3)."""
    seen = []
    with DeferScope(), Session(engine) as session:
        session.add(Order(name="a"))
        deferred = defer(lambda: seen.append(stored(engine)))
        session.commit()
        assert deferred.state == "pending"
    assert seen == [["a"]]


def test_a_commit_after_the_end_of_the_unit(engine, drained):
    """Response first, commit second (B3)."""
    with Session(engine) as session:
        with DeferScope():
            session.add(Order(name="a"))
            deferred = defer(call)
        assert deferred.state == "pending"
        session.commit()
        drained()
    assert deferred.state == "done"
    assert deferred.outcome.committed is True


def test_a_rollback_drops(database, engine, stored, logged):
    """With the database, but not its password, in the log (A4, S1, C2)."""
    with DeferScope(), Session(engine) as session:
        session.add(Order(name="a"))
        deferred = defer(call)
        session.flush()
        inner = defer(call)
        session.rollback()
        after = defer(call)
    assert [deferred.reason, inner.reason] == ["rollback", "rollback"]
    assert after.state == "done"
    assert stored(engine) == []
    assert deferred.rolled_back == database.shown
    assert any(f"rollback of {database.shown} " in text for text in logged.texts())


def test_a_rollback_drops_whatever_was_done(sqlite_engine):
    """Also without a connection, and after reading: whoever says it means it (C2)."""
    with DeferScope(), Session(sqlite_engine) as session:
        session.begin()
        untouched = defer(call)
        session.rollback()
        session.scalars(select(Order)).all()
        read = defer(call)
        session.rollback()
    assert [untouched.reason, read.reason] == ["rollback", "rollback"]


def test_always_and_after_commit_false(sqlite_engine, drained):
    """One runs upon commit and upon rollback, the other waits for neither (S2, S3)."""
    ran = []
    with Session(sqlite_engine) as session:
        with DeferScope():
            session.add(Order(name="a"))
            defer(ran.append, "free").after_commit(False)
            always = defer(ran.append, "always").always()
            failed = defer(ran.append, "failed").when(lambda o: o.committed is False)
        assert ran == ["free"]
        session.rollback()
        drained()
    with DeferScope(), Session(sqlite_engine) as session:
        session.add(Order(name="a"))
        defer(ran.append, "always").always()
        kept = defer(ran.append, "never").when(lambda o: o.committed is False)
        session.commit()
    assert always.outcome.committed is False
    assert (failed.state, kept.reason) == ("done", "outcome")
    assert ran == ["free", "always", "failed", "always"]


def test_calls_run_in_their_order(sqlite_engine):
    """One transaction or several, at its commit they are still in line (AC1, D1)."""
    ran = []
    with DeferScope(), Session(sqlite_engine) as session:
        defer(ran.append, 1)
        session.add(Order(name="a"))
        defer(ran.append, 2)
        session.flush()
        defer(ran.append, 3)
        session.commit()
        defer(ran.append, 4)
    assert ran == [1, 2, 3, 4]


def test_three_transactions_in_one_session(engine):
    """Each has its own calls."""
    with DeferScope(), Session(engine) as session:
        calls = []
        for name, end in ("a", "commit"), ("b", "rollback"), ("c", "commit"):
            session.add(Order(name=name))
            calls.append(defer(call))
            session.flush()
            calls.append(defer(call))
            getattr(session, end)()
    states = [deferred.state for deferred in calls]
    assert states == ["done", "done", "dropped", "dropped", "done", "done"]


@pytest.mark.parametrize("error", [True, False])
def test_blocks(engine, error):
    """`Session.begin()` and `sessionmaker.begin()` end as their block does (A2, A4)."""
    make = sessionmaker(engine)
    with DeferScope():
        with suppress(BoomError), make.begin() as session:
            session.add(Order(name="a"))
            first = defer(call)
            if error:
                raise BoomError
        with suppress(BoomError), make() as session, session.begin():
            session.scalars(select(Order)).all()
            second = defer(call)
            if error:
                raise BoomError
    states = {first.state, second.state}
    assert states == ({"dropped"} if error else {"done"})


def test_a_scoped_session(engine):
    """As any session; `remove()` closes it."""
    session = scoped_session(sessionmaker(engine))
    with DeferScope():
        session.add(Order(name="a"))
        kept = defer(call)
        session.commit()
        session.add(Order(name="b"))
        lost = defer(call)
        session.remove()
    assert (kept.state, lost.reason) == ("done", "rollback")


def test_calls_of_hooks(sqlite_engine):
    """Deferred before the commit they wait for it, after it for nothing (A1, S4)."""
    calls = []

    class Hooked(Session):
        """A session with hooks."""

    @event.listens_for(Hooked, "before_commit")
    @event.listens_for(Hooked, "after_commit")
    def hook(_session):
        calls.append(defer(call))

    with DeferScope(), Hooked(sqlite_engine) as session:
        session.add(Order(name="a"))
        session.commit()
        assert calls[0]._gates is None
        session.add(Order(name="b"))
        session.flush()
        session.rollback()
    assert [deferred.state for deferred in calls] == ["done", "done"]


@pytest.mark.parametrize("around", [nullcontext, DeferScope])
def test_a_session_from_before_the_request(sqlite_engine, drained, around):
    """It began outside, and its connection's transaction inside: that counts (B3)."""
    calls = []

    def app(_environ, start_response):
        calls.append(defer(call))
        session.flush()
        calls.append(defer(call))
        start_response("200 OK", [])
        return [b""]

    with around(), Session(sqlite_engine) as session:
        session.add(Order(name="a"))  # it has begun, without a connection
        PostludeMiddleware(app)({"REQUEST_METHOD": "GET"}, lambda *_: None)
        assert [deferred.state for deferred in calls] == ["done", "pending"]
        session.commit()
        drained()
    assert calls[1].state == "done"


def test_a_session_on_two_databases(sqlite_engine, tmp_path):
    """Each of them is named, and counts until the session is over (B3)."""
    other = create_engine(f"sqlite:///{tmp_path / 'other.db'}")
    begin_for_real(other)
    Base.metadata.create_all(other)
    with DeferScope(), Session(binds={Order: sqlite_engine}) as session:
        session.add(Order(name="a"))
        session.flush()
        session.execute(select(Order.id), bind_arguments={"bind": other})
        deferred = defer(call)
        assert "test.db" in deferred.awaited()
        assert "other.db" in deferred.awaited()
        session.commit()
    assert deferred.state == "done"
    other.dispose()


def test_a_flush_is_no_transaction(sqlite_engine):
    """Inside it SQLAlchemy has a transaction of its own, which is none of ours."""
    gates = []

    class Hooked(Session):
        """A session with a hook."""

    @event.listens_for(Hooked, "after_flush")
    def hook(_session, _context):
        gates.extend(defer(call)._gates)

    with DeferScope(), Hooked(sqlite_engine) as session:
        session.add(Order(name="a"))
        session.commit()
    assert [gate.outer for gate in gates] == [None]


def test_a_hook_that_forbids_the_commit(sqlite_engine):
    """Its call goes with what it forbade (S5)."""
    calls = []

    class Hooked(Session):
        """A session with a hook."""

    @event.listens_for(Hooked, "before_commit")
    def hook(_session):
        calls.append(defer(call))
        raise BoomError

    with DeferScope(), Hooked(sqlite_engine) as session:
        session.add(Order(name="a"))
        with pytest.raises(BoomError):
            session.commit()
    assert calls[0].reason == "rollback"


def test_what_a_commit_expired_may_be_read_again(engine):
    """The read begins a transaction, which nobody commits and nobody has to."""
    ran = []
    with DeferScope(), Session(engine) as session:
        order = Order(name="a")
        session.add(order)
        session.commit()
        defer(ran.append, order.name)
        assert session.in_transaction()
    assert ran == ["a"]


# -- several ------------------------------------------------------------------


@pytest.mark.parametrize("first", ["inner", "outer"])
def test_two_sessions_around_one_call(engine, first):
    """It waits for both, in either order (B3, A5)."""
    with DeferScope(), Session(engine) as outer, Session(engine) as inner:
        outer.begin()
        inner.begin()
        deferred = defer(call)
        order = [inner, outer] if first == "inner" else [outer, inner]
        order[0].commit()
        assert deferred.state == "pending"
        order[1].commit()
    assert deferred.state == "done"


def test_a_session_that_began_later_is_of_no_matter(engine):
    """Nor is one on another database, whatever becomes of it (AC7)."""
    with DeferScope(), Session(engine) as first:
        first.add(Order(name="a"))
        deferred = defer(call)
        with Session(engine) as second:
            second.scalars(select(Order)).all()
            second.rollback()
        first.commit()
    assert deferred.state == "done"


def test_a_session_begun_in_another_thread(sqlite_engine):
    """With a copied context, as FastAPI's sync dependencies are (B3, AC8)."""
    session = Session(sqlite_engine)

    def begin():
        session.add(Order(name="a"))
        session.flush()

    with DeferScope():
        thread = threading.Thread(target=contextvars.copy_context().run, args=(begin,))
        thread.start()
        thread.join()
        deferred = defer(call)
        session.rollback()
    session.close()
    assert deferred.reason == "rollback"


def test_a_call_in_a_transaction_of_another_call(sqlite_engine):
    """What a call defers waits for the call's own session (A7, B3)."""

    def work():
        with Session(sqlite_engine) as session:
            session.add(Order(name="a"))
            calls.append(defer(call))
            session.rollback()
            session.add(Order(name="b"))
            calls.append(defer(call))
            session.commit()

    calls = []
    with DeferScope():
        defer(work)
    assert [deferred.state for deferred in calls] == ["dropped", "done"]
