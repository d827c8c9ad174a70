"""C2 with savepoints of sessions."""

from contextlib import suppress

import pytest
from orders import BoomError, Order, call
from sqlalchemy import insert, select
from sqlalchemy.orm import Session
from ways import core, flush, pend, words

from postlude import DeferScope, defer


def test_a_rolled_back_savepoint_drops_its_own(engine, stored):
    """And nothing of what is around it (AC5, AC10, C2)."""
    with DeferScope(), Session(engine) as session:
        session.add(Order(name="a"))
        outer = defer(call)
        with suppress(BoomError), session.begin_nested():
            session.add(Order(name="b"))
            early = defer(call)
            session.flush()
            late = defer(call)
            raise BoomError
        after = defer(call)
        session.commit()
    assert [early.reason, late.reason] == ["rollback", "rollback"]
    assert {outer.state, after.state} == {"done"}
    assert stored(engine) == ["a"]


def test_sp_rollback_and_sp_commit(engine, stored):
    """The same in plain words."""
    with DeferScope(), Session(engine) as session:
        savepoint = session.begin_nested()
        session.add(Order(name="a"))
        lost = defer(call)
        savepoint.rollback()
        savepoint = session.begin_nested()
        session.add(Order(name="b"))
        kept = defer(call)
        savepoint.commit()
        assert kept.state == "pending"
        session.commit()
    assert (lost.reason, kept.state) == ("rollback", "done")
    assert stored(engine) == ["b"]


@pytest.mark.parametrize("end", ["commit", "rollback", "close"])
def test_released_savepoints_go_with_the_outermost(engine, end):
    """Three deep: only the COMMIT counts (A3, C2)."""
    with DeferScope(), Session(engine) as session:
        calls = [defer(call)]
        with session.begin_nested():
            session.add(Order(name="a"))
            calls.append(defer(call))
            with session.begin_nested(), session.begin_nested():
                session.add(Order(name="b"))
                session.flush()
                calls.append(defer(call))
        getattr(session, end)()
    first, *inner = [deferred.state for deferred in calls]
    assert first == "done"  # it was deferred before anything had begun
    assert set(inner) == ({"done"} if end == "commit" else {"dropped"})


def test_released_inside_a_rolled_back_one(engine):
    """Its calls go with the savepoint that they were handed to (C2)."""
    with DeferScope(), Session(engine) as session:
        session.add(Order(name="a"))
        with suppress(BoomError), session.begin_nested():
            with session.begin_nested():
                session.add(Order(name="b"))
                inner = defer(call)
            raise BoomError
        outer = defer(call)
        session.commit()
    assert (inner.reason, outer.state) == ("rollback", "done")


def test_a_commit_takes_its_savepoints_along(engine):
    """`session.commit()` releases those still open (A3)."""
    with DeferScope(), Session(engine) as session:
        session.begin_nested()
        session.add(Order(name="a"))
        deferred = defer(call)
        session.commit()
    assert deferred.state == "done"


def test_a_savepoint_without_a_statement(sqlite_engine):
    """SQLAlchemy sends none for it; it ends all the same (C2)."""
    with DeferScope(), Session(sqlite_engine) as session:
        with session.begin_nested():
            kept = defer(call)
        with suppress(BoomError), session.begin_nested():
            lost = defer(call)
            with session.begin_nested():
                inner = defer(call)
            raise BoomError
        session.commit()
    assert kept.state == "done"
    assert [lost.reason, inner.reason] == ["rollback", "rollback"]


def test_what_was_written_only_in_a_lost_savepoint(sqlite_engine):
    """Its transaction has only read, then (C2)."""
    with DeferScope(), Session(sqlite_engine) as session:
        session.scalars(select(Order)).all()
        outer = defer(call)
        savepoint = session.begin_nested()
        session.add(Order(name="a"))
        session.flush()
        savepoint.rollback()
    assert outer.state == "done"


@pytest.mark.parametrize("way", [flush, pend, words, core])
def test_closed_inside_a_savepoint(sqlite_engine, way):
    """What nobody released and nobody rolled back is lost with all (C2)."""
    with DeferScope(), Session(sqlite_engine) as session:
        session.scalars(select(Order)).all()
        outer = defer(call)
        session.begin_nested()
        way(session)
        inner = defer(call)
    assert [outer.reason, inner.reason] == ["rollback", "rollback"]


def test_a_connection_from_before_the_savepoint(sqlite_engine):
    """What is written on it past the session is not in the savepoint, but counts."""
    with DeferScope(), Session(sqlite_engine) as session:
        session.begin()
        outer = defer(call)
        connection = session.connection()
        savepoint = session.begin_nested()
        connection.execute(insert(Order).values(name="a"))
        savepoint.rollback()
    assert outer.reason == "rollback"


def test_a_joined_block_is_no_savepoint(sqlite_engine):
    """A function that works in its caller's session takes nothing with it (AC6, S7)."""

    def inner(session):
        session.add(Order(name="a"))
        calls.append(defer(call))
        raise BoomError

    calls = []
    with DeferScope(), Session(sqlite_engine) as session:
        with suppress(BoomError):
            inner(session)
        assert calls[0].state == "pending"
        session.commit()
    assert calls[0].state == "done"
