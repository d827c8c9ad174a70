"""S10 and S11 with sessions: what fails at its end takes the rollback path."""

from contextlib import suppress

import pytest
from orders import BoomError, Order, call
from sqlalchemy import event, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from postlude import DeferScope, defer


def test_an_error_at_the_flush_of_the_commit(engine):
    """It takes the rollback path (S10)."""
    with DeferScope(), Session(engine) as session:
        session.add_all([Order(name="a"), Order(name="a")])
        deferred = defer(call)
        with pytest.raises(IntegrityError):
            session.commit()
    assert deferred.reason == "rollback"


def test_an_error_at_the_flush_of_a_savepoint(engine):
    """It drops the savepoint's calls only; the session goes on."""
    with DeferScope(), Session(engine) as session:
        session.add(Order(name="a"))
        outer = defer(call)
        savepoint = session.begin_nested()
        session.add(Order(name="a"))
        inner = defer(call)
        with pytest.raises(IntegrityError):
            savepoint.commit()
        savepoint.rollback()
        session.commit()
    assert (inner.reason, outer.state) == ("rollback", "done")


def test_a_commit_that_fails(database, engine):
    """COMMIT itself fails: all goes, also from before the connection (S10)."""
    with DeferScope(), Session(engine) as session:
        session.begin()
        early = defer(call)
        sabotage(database, engine, session)
        late = defer(call)
        with pytest.raises(DBAPIError):
            session.commit()
    assert [early.reason, late.reason] == ["rollback", "rollback"]


def sabotage(database, engine, session):
    """Have the commit of a session fail, in the way of its database."""
    if database.kind == "sqlite":  # a constraint that is checked at COMMIT
        session.execute(text("PRAGMA defer_foreign_keys = ON"))
        session.execute(insert(Order).values(name="x", item=99))
        return
    query = {"postgresql": "pg_backend_pid()", "mariadb": "connection_id()"}
    number = session.scalar(text(f"SELECT {query[database.kind]}"))
    kill = {"postgresql": "SELECT pg_terminate_backend({})", "mariadb": "KILL {}"}
    with engine.connect() as other:
        other.exec_driver_sql(kill[database.kind].format(number))


@pytest.mark.parametrize("end", ["rollback", "close"])
def test_a_commit_that_fails_after_reading(sqlite_engine, end):
    """Nothing was lost, but who commits wants to know that it was (S10)."""

    @event.listens_for(sqlite_engine, "commit")
    def refuse(_connection):
        raise BoomError

    with DeferScope(), Session(sqlite_engine) as session:
        session.begin()
        early = defer(call)
        session.scalars(select(Order)).all()
        late = defer(call)
        with pytest.raises(BoomError):
            session.commit()
        getattr(session, end)()
    assert [early.reason, late.reason] == ["rollback", "rollback"]


def test_a_session_that_was_invalidated_counts_as_none(engine):
    """After a failed flush nothing is open, says SQLAlchemy, and so do we (A6)."""
    with DeferScope(), Session(engine) as session:
        session.add_all([Order(name="a"), Order(name="a")])
        before = defer(call)
        with pytest.raises(IntegrityError):
            session.flush()
        after = defer(call)
        session.rollback()
    assert (before.reason, after.state) == ("rollback", "done")


def test_a_transaction_that_an_error_has_undone(engine, stored):
    """PostgreSQL answers its COMMIT with a rollback, and no driver says so (S10)."""
    with DeferScope(), Session(engine) as session:
        session.add(Order(name="a"))
        early = defer(call)
        session.flush()
        with suppress(DBAPIError):
            session.execute(text("SELECT nothing FROM nowhere"))
        late = defer(call)
        session.commit()
    undone = engine.dialect.name == "postgresql"
    assert stored(engine) == ([] if undone else ["a"])
    assert {early.state, late.state} == ({"dropped"} if undone else {"done"})


def test_an_error_that_a_savepoint_has_caught(engine, stored):
    """Then the transaction around it is whole, and commits (S10)."""
    with DeferScope(), Session(engine) as session:
        session.add(Order(name="a"))
        outer = defer(call)
        with suppress(DBAPIError), session.begin_nested():
            inner = defer(call)
            session.execute(text("SELECT nothing FROM nowhere"))
        session.commit()
    assert stored(engine) == ["a"]
    assert (inner.reason, outer.state) == ("rollback", "done")


def test_a_release_that_fails(engine, stored):
    """It takes the rollback path, and on PostgreSQL all with it (S11)."""
    with DeferScope(), Session(engine) as session:
        session.add(Order(name="a"))
        outer = defer(call)
        savepoint = session.begin_nested()
        inner = defer(call)
        session.execute(text("RELEASE SAVEPOINT sa_savepoint_1"))
        with pytest.raises(DBAPIError):
            savepoint.commit()
        savepoint.rollback()
        session.commit()
    undone = engine.dialect.name == "postgresql"
    assert stored(engine) == ([] if undone else ["a"])
    assert inner.reason == "rollback"
    assert outer.state == ("dropped" if undone else "done")
