"""C2 with what only servers have. Collected with TEST_SERVICES=all."""

import threading

import pytest
from orders import Order, call, make_engine
from sqlalchemy import create_engine, event, insert, select
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from postlude import DeferScope, StatementError, defer
from postlude.transactions import before_commit

servers = pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)


def write(connection, name):
    """Write an order."""
    connection.execute(insert(Order).values(name=name))


def lock(connection, name):
    """Lock an order."""
    connection.execute(select(Order).where(Order.name == name).with_for_update())


@pytest.mark.parametrize("database", ["mariadb"], indirect=True)
def test_the_victim_of_a_deadlock(engine, stored):
    """MariaDB rolls it back whole, and the COMMIT after it commits nothing (S10)."""
    with engine.begin() as connection:
        write(connection, "a")
        write(connection, "b")
    with DeferScope(), engine.connect() as mine, engine.connect() as others:
        write(mine, "mine")
        deferred = defer(call)
        lock(mine, "a")
        for name in "cdefgh":  # the transaction that changed less is the victim
            write(others, name)
        lock(others, "b")
        waiting = threading.Thread(target=lock, args=(others, "a"))
        waiting.start()
        with pytest.raises(OperationalError, match="Deadlock"):
            lock(mine, "b")
        waiting.join()
        others.rollback()
        mine.commit()
    assert stored(engine) == ["a", "b"]
    assert deferred.reason == "rollback"


def can_prepare(engine):
    """Tell whether the server allows transactions of two phases."""
    if engine.dialect.name != "postgresql":
        return True
    with engine.connect() as connection:
        setting = connection.exec_driver_sql("SHOW max_prepared_transactions")
        return setting.scalar() != "0"


@servers
def test_two_phases_of_a_session(engine, stored):
    """Calls wait for the second; where the first is refused, they go (S10)."""
    with DeferScope(), Session(engine, twophase=True) as session:
        session.add(Order(name="a"))
        deferred = defer(call)
        if can_prepare(engine):
            session.prepare()
            assert deferred.state == "pending"
            session.commit()
        else:
            with pytest.raises(SQLAlchemyError):
                session.commit()
    if can_prepare(engine):
        assert (deferred.state, stored(engine)) == ("done", ["a"])
    else:
        assert (deferred.reason, stored(engine)) == ("rollback", [])


@servers
@pytest.mark.parametrize("end", ["rollback", "close"])
def test_two_phases_that_are_not_committed(engine, end):
    """Before the first, or between the two (C2)."""
    with DeferScope(), Session(engine, twophase=True) as session:
        session.add(Order(name="a"))
        session.flush()
        early = defer(call)
        getattr(session, end)()
    with DeferScope(), Session(engine, twophase=True) as session:
        session.scalars(select(Order)).all()
        read = defer(call)
    with DeferScope(), Session(engine, twophase=True) as session:
        session.add(Order(name="b"))
        late = defer(call)
        if can_prepare(engine):
            session.prepare()
        getattr(session, end)()
    assert [early.reason, late.reason] == ["rollback", "rollback"]
    assert read.state == "done"


@pytest.mark.parametrize("database", ["mariadb"], indirect=True)
def test_two_phases_over_two_databases(engine, database):
    """One call for both: it runs when both have committed (A5)."""
    session = Session(twophase=True, binds={Order: engine})
    with make_engine(database) as other, DeferScope(), session:
        session.add(Order(name="a"))
        deferred = defer(call)
        session.connection(bind_arguments={"bind": other})
        session.commit()
    assert deferred.state == "done"


@servers
def test_two_phases_of_a_connection(engine):
    """Core's own, to its end or not."""
    with DeferScope(), engine.connect() as connection:
        transaction = connection.begin_twophase()
        write(connection, "a")
        kept = defer(call)
        if can_prepare(engine):
            transaction.prepare()
        transaction.commit()
        transaction = connection.begin_twophase()
        write(connection, "b")
        lost = defer(call)
        transaction.rollback()
    assert (kept.state, lost.reason) == ("done", "rollback")


# -- statements before a commit -------------------------------------------------


@servers
def test_statements_come_before_the_first_phase(engine, stored):
    """A prepared transaction takes none; so later is an error (F2, F4)."""
    add = "INSERT INTO orders (name) VALUES (:name)"
    with DeferScope(), Session(engine, twophase=True) as session:
        session.add(Order(name="theirs"))
        deferred = defer(call)
        gates = deferred._gates
        before_commit(deferred, lambda execute: execute(add, {"name": "ours"}))
        if not can_prepare(engine):
            with pytest.raises(SQLAlchemyError):
                session.commit()
            return
        session.prepare()
        for gate in gates:
            with pytest.raises(StatementError, match="second phase"):
                gate.before_commit(print)
        session.commit()
    assert stored(engine) == ["ours", "theirs"]


@servers
def test_statements_in_two_phases_of_a_connection(engine, stored):
    """The same without a session (F2, F4)."""
    with DeferScope(), engine.connect() as connection:
        if not can_prepare(engine):
            return
        transaction = connection.begin_twophase()
        write(connection, "theirs")
        deferred = defer(call)
        gates = deferred._gates
        before_commit(deferred, write_ours)
        transaction.prepare()
        for gate in gates:
            with pytest.raises(StatementError, match="second phase"):
                gate.before_commit(print)
        transaction.commit()
    assert stored(engine) == ["ours", "theirs"]


def write_ours(execute):
    """Add an order in the name of Postlude."""
    execute("INSERT INTO orders (name) VALUES (:name)", {"name": "ours"})


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_the_identity_of_a_database(engine, database):
    """Asked once for each name; the same by another address, unlike another's (F2)."""
    found = []
    asked = []

    @event.listens_for(engine, "before_cursor_execute")
    def count(_connection, _cursor, statement, *_rest):
        asked.append("pg_postmaster_start_time" in statement)

    elsewhere = create_engine(engine.url.set(host="localhost"))
    postgres = create_engine(engine.url.set(database="postgres"))
    for one in (engine, engine, elsewhere, postgres):
        with DeferScope(), one.begin():
            before_commit(defer(call), lambda execute: found.append(execute.identity()))
    with DeferScope(), engine.begin():
        before_commit(
            defer(call), lambda execute: found.append(execute.identity(fresh=True))
        )
    elsewhere.dispose()
    postgres.dispose()
    assert found[0] == found[1] == found[2] == found[4]
    assert found[0].database == database.name
    assert found[0].oid != found[3].oid
    assert found[0].started == found[3].started
    assert asked.count(True) == 2
