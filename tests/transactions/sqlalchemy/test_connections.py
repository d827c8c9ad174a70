"""B3 and C2 with connections: Core on its own, without a session."""

import gc
from contextlib import suppress

import pytest
from orders import BoomError, Order, call, make_engine
from sqlalchemy import create_engine, event, insert, inspect, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from postlude import DeferScope, UncommittedError, defer


def write(connection, name="a"):
    """Write an order."""
    connection.execute(insert(Order).values(name=name))


def test_an_engines_block(engine, stored):
    """`engine.begin()` commits at its end, or rolls back (A2, A4, B3)."""
    seen = []
    with DeferScope():
        with engine.begin() as connection:
            write(connection)
            kept = defer(lambda: seen.append(stored(engine)))
        with suppress(BoomError), engine.begin() as connection:
            write(connection, "b")
            lost = defer(call)
            raise BoomError
        assert kept.state == "pending"
    assert seen == [["a"]]
    assert lost.reason == "rollback"


def test_commit_as_you_go(engine):
    """Each transaction that a connection begins by itself has its own calls."""
    with DeferScope(), engine.connect() as connection:
        calls = [defer(call)]
        for name, end in ("a", "commit"), ("b", "rollback"), ("c", "commit"):
            write(connection, name)
            calls.append(defer(call))
            getattr(connection, end)()
        write(connection, "d")
        calls.append(defer(call))
    states = [deferred.state for deferred in calls]
    assert states == ["done", "done", "dropped", "done", "dropped"]


def test_a_block_of_a_connection(engine):
    """`connection.begin()`, as a block and in plain words."""
    with DeferScope(), engine.connect() as connection:
        with connection.begin():
            kept = defer(call)
        with suppress(BoomError), connection.begin():
            lost = defer(call)
            raise BoomError
        transaction = connection.begin()
        also_kept = defer(call)
        transaction.commit()
        transaction = connection.begin()
        also_lost = defer(call)
        transaction.rollback()
    assert {kept.state, also_kept.state} == {"done"}
    assert {lost.reason, also_lost.reason} == {"rollback"}


def test_closed_without_commit(engine):
    """Dropped if it wrote, of no matter if it only read (C2)."""
    with DeferScope():
        with engine.connect() as connection:
            connection.execute(select(Order))
            read = defer(call)
        with engine.connect() as connection:
            connection.execute(select(Order))
            wrote = defer(call)
            connection.execute(update(Order).values(name="x"))
        with engine.connect() as connection:
            with connection.begin() as transaction:
                closed = defer(call)
                transaction.close()
            inspect(connection).get_table_names()
            inspected = defer(call)
    assert (read.state, wrote.reason) == ("done", "rollback")
    assert {closed.state, inspected.state} == {"done"}


def test_ddl_is_writing(sqlite_engine):
    """Where it is in a transaction, it goes with it."""
    with DeferScope(), sqlite_engine.connect() as connection:
        connection.execute(text("CREATE TABLE other (x INTEGER)"))
        deferred = defer(call)
    assert deferred.reason == "rollback"


def test_a_connection_that_is_given_up(sqlite_engine):
    """Collected without `close()` (C2)."""

    def work(statement):
        connection = sqlite_engine.connect()
        connection.execute(statement)
        return defer(call)

    with DeferScope():
        wrote = work(insert(Order).values(name="a"))
        gc.collect()
    with DeferScope():
        read = work(select(Order))
        gc.collect()
    assert (wrote.reason, read.state) == ("rollback", "done")


# -- savepoints ---------------------------------------------------------------


def test_savepoints(engine, stored):
    """A rolled back one drops its own; a released one hands them out (AC5, A3, C2)."""
    with DeferScope(), engine.begin() as connection:
        write(connection, "a")
        outer = defer(call)
        with suppress(BoomError), connection.begin_nested():
            write(connection, "b")
            lost = defer(call)
            raise BoomError
        with connection.begin_nested(), connection.begin_nested():
            write(connection, "c")
            kept = defer(call)
        assert kept.state == "pending"
    assert [outer.state, lost.reason, kept.state] == ["done", "rollback", "done"]
    assert stored(engine) == ["a", "c"]


def test_a_savepoint_begins_its_transaction_too(engine):
    """Without one, `begin_nested()` begins it (A3)."""
    with DeferScope(), engine.connect() as connection:
        with connection.begin_nested():
            write(connection)
            deferred = defer(call)
        connection.rollback()
    assert deferred.reason == "rollback"


def test_savepoints_end_with_their_transaction(engine):
    """COMMIT commits them, ROLLBACK does not (A3, C2)."""
    with DeferScope(), engine.connect() as connection:
        connection.begin_nested()
        write(connection)
        kept = defer(call)
        connection.commit()
        connection.begin_nested()
        lost = defer(call)
        connection.rollback()
    assert (kept.state, lost.reason) == ("done", "rollback")


def test_a_savepoint_closed_after_reading(engine):
    """Its calls go with what is around it; after writing, with itself."""
    with DeferScope(), engine.begin() as connection:
        savepoint = connection.begin_nested()
        connection.execute(select(Order))
        read = defer(call)
        savepoint.close()
        savepoint = connection.begin_nested()
        write(connection)
        wrote = defer(call)
        savepoint.close()
        assert read.state == "pending"
    assert (read.state, wrote.reason) == ("done", "rollback")


def test_closed_inside_a_savepoint(engine):
    """What nobody released and nobody rolled back is lost with all (C2)."""
    with DeferScope(), engine.connect() as connection:
        connection.begin()
        outer = defer(call)
        connection.begin_nested()
        read = defer(call)
        connection.begin_nested()
        write(connection)
    with DeferScope(), engine.connect() as connection:
        connection.begin()
        also_outer = defer(call)
        savepoint = connection.begin_nested()
        write(connection)
        savepoint.close()
    lost = [outer.reason, read.reason, also_outer.reason]
    assert lost == ["rollback", "rollback", "rollback"]


# -- failures -----------------------------------------------------------------


def test_a_commit_that_fails(sqlite_engine):
    """A constraint that is checked at COMMIT: the rollback path (S10)."""
    with DeferScope(), sqlite_engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        connection.execute(insert(Order).values(name="a", item=99))
        deferred = defer(call)
        with pytest.raises(DBAPIError):
            connection.commit()
    assert deferred.reason == "rollback"


def test_a_commit_that_fails_after_reading(sqlite_engine):
    """Nothing was lost, but who commits wants to know that it was (S10)."""

    @event.listens_for(sqlite_engine, "commit")
    def refuse(_connection):
        raise BoomError

    with DeferScope(), sqlite_engine.connect() as connection:
        connection.execute(select(Order))
        deferred = defer(call)
        with pytest.raises(BoomError):
            connection.commit()
    assert deferred.reason == "rollback"


def test_a_release_that_fails(engine):
    """It takes the rollback path (S11)."""
    with DeferScope(), engine.connect() as connection:
        savepoint = connection.begin_nested()
        inner = defer(call)
        connection.exec_driver_sql("RELEASE SAVEPOINT sa_savepoint_1")
        with pytest.raises(DBAPIError):
            savepoint.commit()
        savepoint.rollback()
        outer = defer(call)
        connection.commit()
    assert inner.reason == "rollback"
    undone = engine.dialect.name == "postgresql"
    assert outer.state == ("dropped" if undone else "done")


def test_a_transaction_that_an_error_has_undone(engine, stored):
    """PostgreSQL answers its COMMIT with a rollback, and no driver says so (S10)."""
    with DeferScope(), engine.begin() as connection:
        write(connection)
        early = defer(call)
        with suppress(DBAPIError):
            connection.begin_nested()  # a savepoint that nobody goes back to
            connection.execute(text("SELECT nothing FROM nowhere"))
        late = defer(call)
    undone = engine.dialect.name == "postgresql"
    assert stored(engine) == ([] if undone else ["a"])
    assert {early.state, late.state} == ({"dropped"} if undone else {"done"})


def test_an_error_that_a_savepoint_has_caught(engine, stored):
    """The transaction around it is whole, and its commit is one (S10)."""
    with DeferScope(), engine.begin() as connection:
        write(connection)
        outer = defer(call)
        with suppress(DBAPIError), connection.begin_nested():
            connection.execute(text("SELECT nothing FROM nowhere"))
        after = defer(call)
    assert stored(engine) == ["a"]
    assert {outer.state, after.state} == {"done"}


@pytest.mark.parametrize("level", ["engine", "options", "connection"])
def test_autocommit_is_no_transaction(sqlite, level, stored):
    """Each statement is committed at once, so no call waits or goes (C2)."""
    if level == "engine":
        engine = create_engine(sqlite.url, isolation_level="AUTOCOMMIT")
    else:
        engine = create_engine(sqlite.url)
    Order.metadata.create_all(engine)
    used = engine
    if level == "options":
        used = engine.execution_options(isolation_level="AUTOCOMMIT")
    with DeferScope():
        with used.connect() as connection:
            if level == "connection":
                connection.execution_options(isolation_level="AUTOCOMMIT")
            write(connection)
            deferred = defer(call)
        with Session(used) as session:
            if level == "connection":
                session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
            session.execute(insert(Order).values(name="b"))
            in_session = defer(call)
    assert {deferred.state, in_session.state} == {"done"}
    assert stored(engine) == ["a", "b"]
    engine.dispose()


def test_an_engine_with_options_is_seen(sqlite_engine):
    """`engine.execution_options()` makes another engine of the same database."""
    engine = sqlite_engine.execution_options(yield_per=7)
    with DeferScope(), engine.connect() as connection:
        write(connection)
        deferred = defer(call)
    assert deferred.reason == "rollback"
    assert deferred.rolled_back == str(sqlite_engine.url)


def test_a_call_that_does_not_commit_fails(sqlite_engine, logged):
    """It wrote on a connection of its own, and left it open (S9)."""
    connections = []

    def work():
        connections.append(sqlite_engine.connect())
        write(connections[0])

    with DeferScope():
        deferred = defer(work)
    assert isinstance(deferred.exception, UncommittedError)
    connections[0].close()


# -- several ------------------------------------------------------------------


@pytest.mark.parametrize("failing", [None, "first", "second"])
def test_two_databases(database, sqlite_engine, failing):
    """A call inside both waits for both, and goes with either (A5, B3)."""
    with make_engine(database) as other, DeferScope():
        try:
            with sqlite_engine.connect() as first, first.begin():
                before = defer(call)
                with suppress(BoomError), other.connect() as second, second.begin():
                    both = defer(call)
                    if failing == "second":
                        raise BoomError
                if failing == "first":
                    raise BoomError
        except BoomError:
            pass
    assert before.state == ("dropped" if failing == "first" else "done")
    assert both.state == ("dropped" if failing else "done")


def test_asking_opens_no_connection(sqlite_engine):
    """Neither `defer` nor the end of a unit touches the pool (AC8)."""
    sqlite_engine.dispose()
    with DeferScope():
        with Session(sqlite_engine) as session:
            session.begin()
            defer(call)
        session = Session(sqlite_engine)
        defer(call)
        session.close()
    assert sqlite_engine.pool.checkedin() == 0
    assert sqlite_engine.pool.checkedout() == 0


def test_what_was_there_before_the_unit(sqlite_engine, drained):
    """A block waits for what is open around it, though no unit was (B3)."""
    with sqlite_engine.connect() as connection:
        write(connection)
        with DeferScope():
            deferred = defer(call)
        assert deferred.state == "pending"
        connection.rollback()
        drained()
    assert deferred.reason == "rollback"
