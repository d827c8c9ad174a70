"""C2 with sessions that nobody commits: what they wrote is lost, nothing else is."""

import gc

import pytest
from orders import Order, call
from sqlalchemy import select
from sqlalchemy.orm import Session
from ways import WAYS, core, flush, pend, words

from postlude import DeferScope, UncommittedError, defer


def test_closed_after_reading_it_runs(engine):
    """Read-only work is no reason to drop."""
    with DeferScope():
        with Session(engine) as session:
            session.scalars(select(Order).with_for_update()).all()
            session.get(Order, 7)
            first = defer(call)
        with Session(engine) as session:
            session.begin()
            second = defer(call)
    assert {first.state, second.state} == {"done"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("closing", ["close", "reset", "invalidate"])
def test_closed_after_writing_it_goes(sqlite_engine, way, closing):
    """By whatever road, and wherever in the transaction it was deferred (C2)."""
    with Session(sqlite_engine) as session:
        session.add(Order(name="a"))
        session.commit()
    with DeferScope():
        session = Session(sqlite_engine)
        session.begin()
        before = defer(call)
        way(session)
        after = defer(call)
        getattr(session, closing)()
    assert [before.reason, after.reason] == ["rollback", "rollback"]


@pytest.mark.parametrize("way", WAYS)
def test_committed_after_writing_it_runs(engine, way):
    """The same roads, and a commit (A2)."""
    with Session(engine) as session:
        session.add(Order(name="a"))
        session.commit()
    with DeferScope(), Session(engine) as session:
        session.begin()
        before = defer(call)
        way(session)
        after = defer(call)
        session.commit()
    assert {before.state, after.state} == {"done"}


def test_a_flush_without_work_is_no_writing(sqlite_engine):
    """A flush that finds nothing, and an expunged object, change nothing."""
    with DeferScope(), Session(sqlite_engine) as session:
        session.scalars(select(Order)).all()
        session.flush()
        deferred = defer(call)
    assert deferred.state == "done"


# -- given up, or left to a call ----------------------------------------------


@pytest.mark.parametrize("way", [None, flush, pend, words, core])
def test_a_session_that_is_given_up(sqlite_engine, way, drained):
    """Collected without `close()`: gone if it wrote, of no matter if it read (C2)."""

    def work():
        session = Session(sqlite_engine)
        session.begin()
        early = defer(call)
        session.scalars(select(Order)).all()
        if way:
            way(session)
        return early, defer(call)

    with DeferScope():
        early, late = work()
        gc.collect()
    drained()
    assert {early.state, late.state} == ({"dropped"} if way else {"done"})


def test_a_session_that_is_given_up_in_a_savepoint(sqlite_engine, drained):
    """What was written there is lost as well (C2)."""

    def work():
        session = Session(sqlite_engine)
        session.begin()
        early = defer(call)
        session.begin_nested()
        flush(session)
        return early, defer(call)

    with DeferScope():
        early, late = work()
        gc.collect()
    drained()
    assert {early.state, late.state} == {"dropped"}


@pytest.mark.parametrize("way", [flush, pend, words, core])
def test_a_call_that_does_not_commit_fails(sqlite_engine, way, logged):
    """It reused the request's session, wrote, and left it at that (S9)."""
    with Session(sqlite_engine) as session:
        with DeferScope():
            session.scalars(select(Order)).all()
            deferred = defer(way, session)
            session.commit()
        assert deferred.state == "failed"
        assert isinstance(deferred.exception, UncommittedError)


@pytest.mark.parametrize("end", ["close", "rollback"])
@pytest.mark.parametrize("way", WAYS)
def test_a_call_that_closes_what_it_wrote(sqlite_engine, way, end, logged):
    """That is a forgotten commit; a rollback is meant (S9)."""

    def work():
        session = Session(sqlite_engine)
        way(session)
        getattr(session, end)()

    with Session(sqlite_engine) as session, session.begin():
        session.add(Order(name="a"))
    with DeferScope():
        deferred = defer(work)
    if end == "rollback":
        assert deferred.state == "done"
    else:
        assert isinstance(deferred.exception, UncommittedError)


@pytest.mark.parametrize("way", WAYS)
def test_a_call_that_commits_is_fine(sqlite_engine, way, stored):
    """What it wrote is there (S9)."""

    def work():
        way(session)
        session.commit()

    with Session(sqlite_engine) as session:
        with DeferScope():
            session.add(Order(name="a"))
            deferred = defer(work)
            session.commit()
        assert deferred.state == "done"
    assert stored(sqlite_engine) != ["a"]
