"""Gate.before_commit with SQLAlchemy: statements of ours in a transaction of theirs."""

from contextlib import suppress

import pytest
from orders import BoomError, Order, call, make_engine
from sqlalchemy import exc, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from postlude import DeferScope, StatementError, defer
from postlude.transactions import before_commit

INSERT = "INSERT INTO orders (name) VALUES (:name)"


def write(name, log=None):
    """Make a callback that adds an order, and notes when it is called."""

    def callback(execute):
        execute(INSERT, {"name": name})
        if log is not None:
            log.append(execute.database)

    return callback


def fail(execute):
    """Run into a unique constraint: the order is there already."""
    execute(INSERT, {"name": "theirs"})


def names_in(execute):
    """Give the orders that the transaction sees."""
    return [name for (name,) in execute("SELECT name FROM orders ORDER BY id")]


# -- a session ----------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
def test_it_is_part_of_the_sessions_transaction(engine, stored, when):
    """Called at the commit, once, whether there was a connection by then (F2)."""
    log = []
    with DeferScope(), Session(engine) as session:
        if when == "after":
            session.scalars(select(Order)).all()
        session.add(Order(name="theirs"))
        deferred = defer(call)
        assert before_commit(deferred, write("ours", log))
        assert log == []
        session.commit()
        assert len(log) == 1
    assert (deferred.state, stored(engine)) == ("done", ["ours", "theirs"])


def test_it_comes_after_the_flush_and_sees_it(engine):
    """Its statements may refer to rows that the commit itself writes (F2)."""
    seen = []
    with DeferScope(), Session(engine) as session:
        session.add(Order(name="theirs"))
        before_commit(defer(call), lambda execute: seen.append(names_in(execute)))
        session.commit()
    assert seen == [["theirs"]]


def test_a_session_that_has_done_nothing(engine, stored):
    """The call brings the transaction its only statement (F2)."""
    with DeferScope(), Session(engine) as session:
        session.begin()
        deferred = defer(call)
        before_commit(deferred, write("ours"))
        session.commit()
    assert (deferred.state, stored(engine)) == ("done", ["ours"])


def test_a_rollback_takes_it_along(engine, stored):
    """Without a commit it is never called (C2, F2)."""
    log = []
    with DeferScope(), Session(engine) as session:
        session.add(Order(name="theirs"))
        session.flush()
        deferred = defer(call)
        before_commit(deferred, write("ours", log))
        session.rollback()
        session.add(Order(name="next"))
        session.commit()
    assert (log, deferred.reason, stored(engine)) == ([], "rollback", ["next"])


@pytest.mark.parametrize("road", ["block", "begin", "sessionmaker", "commit"])
def test_what_it_raises_comes_out_of_the_commit(engine, stored, road):
    """And the transaction is rolled back, so that an error is all there is (F2)."""
    with DeferScope(), pytest.raises(exc.IntegrityError):  # noqa: PT012 - roads
        if road == "begin":
            session = Session(engine)
            with session.begin():
                session.add(Order(name="theirs"))
                deferred = defer(call)
                before_commit(deferred, fail)
        else:
            with Session(engine) as session:
                session.add(Order(name="theirs"))
                deferred = defer(call)
                before_commit(deferred, fail)
                session.commit()
    assert stored(engine) == []
    assert deferred.reason == "rollback"


def test_a_session_goes_on_after_it_failed(engine, stored):
    """As after a flush that fails: it has been rolled back, and begins anew (F2)."""
    with DeferScope(), Session(engine) as session:
        session.add(Order(name="theirs"))
        before_commit(defer(call), fail)
        with pytest.raises(exc.IntegrityError):
            session.commit()
        session.add(Order(name="next"))
        session.commit()
    assert stored(engine) == ["next"]


# -- savepoints -----------------------------------------------------------------


def test_savepoints(engine, stored):
    """Rolled back, it is forgotten; released, it waits for the whole (C2, F2)."""
    with DeferScope(), Session(engine) as session:
        session.add(Order(name="theirs"))
        with suppress(BoomError), session.begin_nested():
            before_commit(defer(call), write("gone"))
            with session.begin_nested():
                before_commit(defer(call), write("released into it"))
            raise BoomError
        with session.begin_nested(), session.begin_nested():
            before_commit(defer(call), write("kept"))
        assert "kept" not in session.scalars(select(Order.name)).all()
        session.commit()
    assert stored(engine) == ["kept", "theirs"]


def test_a_commit_with_a_savepoint_still_open(engine, stored):
    """The commit takes it in, and with it what is to come before (F2)."""
    with DeferScope(), Session(engine) as session:
        session.add(Order(name="theirs"))
        session.begin_nested()
        deferred = defer(call)
        before_commit(deferred, write("ours"))
        session.commit()
    assert (deferred.state, stored(engine)) == ("done", ["ours", "theirs"])


# -- a connection -----------------------------------------------------------------


def test_a_connection(engine, stored):
    """In Core there is no session, and it is the same (F2)."""
    with DeferScope(), engine.begin() as connection:
        with suppress(BoomError), connection.begin_nested():
            before_commit(defer(call), write("gone"))
            raise BoomError
        before_commit(defer(call), write("ours"))
        connection.exec_driver_sql("INSERT INTO orders (name) VALUES ('theirs')")
    assert stored(engine) == ["ours", "theirs"]


@pytest.mark.parametrize("road", ["block", "autobegun"])
def test_a_connection_whose_callback_fails(engine, stored, road):
    """The commit raises, and nothing is committed (F2)."""
    with DeferScope(), pytest.raises(exc.IntegrityError), engine.connect() as made:  # noqa: PT012 - roads
        insert = "INSERT INTO orders (name) VALUES ('theirs')"
        if road == "block":
            with made.begin():
                made.exec_driver_sql(insert)
                deferred = defer(call)
                before_commit(deferred, fail)
        else:
            made.exec_driver_sql(insert)
            deferred = defer(call)
            before_commit(deferred, fail)
            made.commit()
    assert (deferred.reason, stored(engine)) == ("rollback", [])


def test_a_session_joined_to_a_connection(engine, stored):
    """Called once, in the transaction that the database commits (F2)."""
    log = []
    with DeferScope(), engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO orders (name) VALUES ('theirs')")
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            session.add(Order(name="also theirs"))
            session.flush()
            before_commit(defer(call), write("ours", log))
            session.commit()
    assert len(log) == 1
    assert stored(engine) == ["also theirs", "ours", "theirs"]


def test_autocommit(engine, stored):
    """A session without transactions still calls: it has a gate, and a commit (F2)."""
    with DeferScope(), Session(engine.execution_options()) as session:
        session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        deferred = defer(call)
        before_commit(deferred, write("ours"))
        session.commit()
    assert (deferred.state, stored(engine)) == ("done", ["ours"])


# -- several ----------------------------------------------------------------------


def test_of_two_databases_the_callback_takes_one(engine, sqlite, stored):
    """It says False to the wrong one, and is asked again by the next commit (F2)."""
    log = []

    def choose(execute):
        log.append(execute.database)
        return "other" not in execute.database and execute(INSERT, {"name": "ours"})

    with DeferScope(), make_other(sqlite) as other:
        with engine.begin() as one, other.begin() as two:
            for connection in (one, two):
                connection.exec_driver_sql("INSERT INTO orders (name) VALUES ('their')")
            before_commit(defer(call), choose)
        assert len(log) == 2
        assert (stored(engine), stored(other)) == (["ours", "their"], ["their"])


def test_a_session_with_two_databases(engine, sqlite, stored):
    """It is asked for both before either commits (F2)."""
    log = []
    with DeferScope(), make_other(sqlite) as other, Session() as session:
        for bind in (engine, other):
            session.connection(bind_arguments={"bind": bind}).exec_driver_sql(
                "INSERT INTO orders (name) VALUES ('their')"
            )

        def choose(execute):
            log.append(execute.database)
            if len(log) == 2:
                raise BoomError
            return False

        deferred = defer(call)
        before_commit(deferred, choose)
        with pytest.raises(BoomError):
            session.commit()
        assert (stored(engine), stored(other)) == ([], [])
    assert deferred.reason == "rollback"


def make_other(known):
    """Make a second database beside a file of SQLite."""

    class Beside:
        kind = "sqlite"
        url = f"{known.url}-other"

    return make_engine(Beside)


def test_it_is_too_late_after_the_end(engine):
    """An option that is set after the commit is an error, not a hope (F2, F4)."""
    with DeferScope(), Session(engine) as session:
        session.add(Order(name="theirs"))
        kept = defer(call)
        (gate, *_) = kept._gates
        session.commit()
        with pytest.raises(StatementError, match="takes none any more"):
            gate.before_commit(fail)


def test_a_call_that_was_taken_back_is_not_written(engine, stored):
    """What does not run must not be handed over either (C4, F2)."""
    with DeferScope(), engine.begin():
        deferred = defer(call)
        before_commit(deferred, write("ours"))
        deferred.cancel()
    assert stored(engine) == []


def test_a_commit_that_is_tried_again_calls_again(engine, stored):
    """No second try gets past it (F2)."""
    tries = []

    def second_time(execute):
        tries.append(execute)
        if len(tries) == 1:
            raise BoomError
        execute(INSERT, {"name": "ours"})

    with DeferScope(), engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        deferred = defer(call)
        before_commit(deferred, second_time)
        with pytest.raises(BoomError):
            connection.commit()
        connection.commit()
    assert (deferred.state, stored(engine)) == ("done", ["ours"])


def test_a_read_only_transaction_whose_callback_failed_drops(engine):
    """It is given up with a call that could not be written (C2, F2)."""

    def boom(_execute):
        raise BoomError

    with DeferScope(), engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        deferred = defer(call)
        before_commit(deferred, boom)
        with pytest.raises(BoomError):
            connection.commit()
    assert deferred.reason == "rollback"


def test_no_transaction_no_callback():
    """With nothing to wait for it says so (F2)."""
    with DeferScope():
        assert not before_commit(defer(call), fail)


# -- asyncio ----------------------------------------------------------------------


async def test_an_async_session(async_engine):
    """The callback is sync, and its statements run on the session's connection (F2)."""
    seen = []

    def callback(execute):
        execute(INSERT, {"name": "ours"})
        seen.append(names_in(execute))

    async with DeferScope(), AsyncSession(async_engine) as session:
        session.add(Order(name="theirs"))
        async with session.begin_nested():
            before_commit(defer(call), callback)
        with suppress(BoomError):
            async with session.begin_nested():
                before_commit(defer(call), write("gone"))
                raise BoomError
        await session.commit()
    assert seen == [["theirs", "ours"]]


async def test_an_async_session_whose_callback_fails(async_engine):
    """It comes out of the awaited commit (F2)."""
    async with DeferScope():
        with pytest.raises(exc.IntegrityError):  # noqa: PT012 - a block that fails
            async with AsyncSession(async_engine) as session, session.begin():
                session.add(Order(name="theirs"))
                deferred = defer(call)
                before_commit(deferred, fail)
        async with async_engine.connect() as connection:
            assert (await connection.scalars(select(Order.name))).all() == []
    assert deferred.reason == "rollback"
