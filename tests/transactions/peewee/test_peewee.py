"""B3 and C2 with Peewee: what it commits, rolls back, and makes savepoints of."""

import asyncio
import threading
from contextlib import suppress

import peewee
import pytest
from playhouse.pool import PooledSqliteDatabase
from playhouse.pwasyncio import AsyncSqliteDatabase

from postlude import DeferScope, UncommittedError, defer
from postlude.transactions import peewee as gates

gates.install()

LATE = (
    "CREATE TABLE items (id INTEGER PRIMARY KEY)",
    "CREATE TABLE lines (item INT REFERENCES items DEFERRABLE INITIALLY DEFERRED)",
)
"""Tables whose constraint is looked at upon COMMIT, and fails it."""


class Order(peewee.Model):
    """An order; its name is its own."""

    name = peewee.CharField(40, unique=True)


def connect(database):
    """Make Peewee's object for a database of the tests."""
    if database.kind == "sqlite":
        return peewee.SqliteDatabase(database.name, pragmas={"foreign_keys": 1})
    postgresql = database.kind == "postgresql"
    kind = peewee.PostgresqlDatabase if postgresql else peewee.MySQLDatabase
    return kind(
        database.name,
        host=database.host,
        port=database.port,
        user=database.user,
        password=database.password,
    )


def opened(db):
    """Give a connection with an empty table of orders."""
    Order.bind(db)
    db.connect()
    db.create_tables([Order])
    yield db
    db.close()


@pytest.fixture
def db(database):
    """A database on each of the servers."""
    yield from opened(connect(database))


@pytest.fixture
def sqlite_db(sqlite):
    """A database on SQLite, where the server makes no difference."""
    yield from opened(connect(sqlite))


@pytest.fixture
def ran():
    """What ran, in order."""
    return []


def names():
    """Give the names of all orders."""
    return sorted(order.name for order in Order.select())


def test_a_call_runs_after_the_commit(db, ran):
    """Not before it, and it sees what was committed (B3, A2)."""
    with DeferScope():
        with db.atomic():
            Order.create(name="a")
            defer(lambda: ran.extend(names()))
        assert ran == []
    assert ran == ["a"]


def test_a_rollback_drops_what_was_deferred_in_it(db, ran):
    """By an exception, with the database in the record (C2, A4)."""
    with DeferScope():
        with suppress(ValueError), db.atomic():
            Order.create(name="a")
            call = defer(ran.append, "no")
            defer(ran.append, "at once").after_commit(False)
            always = defer(ran.append, "always").always()
            raise ValueError
        defer(ran.append, "after")
    assert ran == ["at once", "always", "after"]
    assert (call.state, call.reason) == ("dropped", "rollback")
    assert always.outcome.committed is False
    assert names() == []


def test_records_name_the_database_and_no_secret(db, database):
    """The record says whose rollback it was (C2)."""
    with DeferScope(), db.atomic() as block:
        call = defer(list)
        block.rollback()
    shown = database.shown.replace("mariadb", "mysql")
    assert call.rolled_back == shown


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (
            "postgresql://me:secret@db.local:5433/shop",
            "postgresql://db.local:5433/shop",
        ),
        ("dbname=shop password=secret", "postgresql"),
        ("shop", "postgresql:///shop"),
    ],
)
def test_no_form_of_an_address_shows_a_password(given, shown):
    """Peewee hands to PostgreSQL's drivers what they understand (C2)."""
    db = peewee.PostgresqlDatabase(given, password="secret")  # noqa: S106 - nobody's
    assert gates._name_of(db) == shown


def test_savepoints(db, ran):
    """A rolled back one drops its own, a released one hands them out (C2, AC5)."""
    with DeferScope(), db.atomic():
        defer(ran.append, "outer")
        with suppress(ValueError), db.atomic():
            defer(ran.append, "no")
            with db.atomic():
                defer(ran.append, "released into what is rolled back")
            raise ValueError
        with db.savepoint():
            inner = defer(ran.append, "inner")
        assert inner.state == "pending"
    assert ran == ["outer", "inner"]


def test_a_released_savepoint_goes_with_the_transaction(db, ran):
    """What is around it decides (C2, A3)."""
    with DeferScope(), suppress(ValueError), db.atomic():
        with db.atomic():
            defer(ran.append, "no")
        raise ValueError
    assert ran == []


def test_commit_and_rollback_inside_the_block(db, ran):
    """Each begins anew, as Peewee does (C2)."""
    with DeferScope(), db.transaction() as block:
        defer(ran.append, "kept")
        block.commit()
        defer(ran.append, "dropped")
        block.rollback()
        with db.savepoint() as inner:
            defer(ran.append, "dropped too")
            inner.rollback()
            defer(ran.append, "kept as well")
    assert ran == ["kept", "kept as well"]


def test_a_session(db, ran):
    """`session_start()` and its two ends (B3, C2)."""
    with DeferScope():
        db.session_start()
        defer(ran.append, "kept")
        db.session_commit()
        db.session_start()
        defer(ran.append, "dropped")
        db.session_rollback()
    assert ran == ["kept"]


@pytest.mark.parametrize("spoken", [True, False], ids=["methods", "text"])
def test_manual_commit(db, ran, spoken):
    """What one begins and ends by hand is seen, also as text (B3, C2)."""

    def say(word):
        getattr(db, word)() if spoken else db.execute_sql(word.upper())

    with DeferScope(), db.manual_commit():
        defer(ran.append, "around")
        say("begin")
        defer(ran.append, "kept")
        say("commit")
        say("begin")
        defer(ran.append, "dropped")
        say("rollback")
    assert ran == ["around", "kept"]


def test_decorators_and_the_database_itself_as_a_block(sqlite_db, ran):
    """`@db.atomic()` and `with db:` (B3, C2)."""

    @sqlite_db.atomic()
    def good():
        defer(ran.append, "good")

    with DeferScope():
        good()
        with suppress(ValueError), sqlite_db:
            defer(ran.append, "bad")
            raise ValueError
    assert ran == ["good"]


@pytest.mark.parametrize("manual", [True, False])
def test_a_commit_that_fails_drops(sqlite_db, sqlite, ran, manual):
    """It takes the path of a rollback (S10). MariaDB has no constraint that late."""
    calls = []

    def fail():
        if manual:
            sqlite_db.begin()
        with sqlite_db.manual_commit() if manual else sqlite_db.atomic():
            sqlite_db.execute_sql("INSERT INTO lines VALUES (7)")
            calls.append(defer(ran.append, "no"))
            if manual:
                sqlite_db.commit()

    for statement in LATE:
        sqlite_db.execute_sql(statement)
    with DeferScope():
        with pytest.raises(peewee.IntegrityError):
            fail()
        assert [call.rolled_back for call in calls] == [f"sqlite:///{sqlite.name}"]
        if manual:
            sqlite_db.rollback()
    assert [call.reason for call in calls] == ["rollback"]


def test_two_units_on_one_connection(db, ran):
    """The end of one says nothing of the other (B3)."""
    with DeferScope(), suppress(ValueError), db.atomic():
        defer(ran.append, "first")
        raise ValueError
    with DeferScope(), db.atomic():
        defer(ran.append, "second")
    assert ran == ["second"]


def test_a_commit_after_the_units_end(db, ran, drained):
    """Response first, commit second (B3)."""
    block = db.atomic()
    with DeferScope():
        block.__enter__()
        call = defer(ran.append, "late")
    assert call.state == "pending"
    block.__exit__(None, None, None)
    drained()
    assert ran == ["late"]


def test_reading_is_no_reason_to_drop(sqlite_db, ran):
    """A connection that is closed after it only read opens the gate (C2)."""
    sqlite_db.close()
    with DeferScope():
        sqlite_db.begin()
        names()
        defer(ran.append, "read")
        sqlite_db.close()
        sqlite_db.begin()
        Order.create(name="a")
        wrote = defer(ran.append, "wrote")
        sqlite_db.close()
    assert ran == ["read"]
    assert wrote.reason == "rollback"


def test_no_connection_is_opened(sqlite_db):
    """Neither by deferring nor by what cannot be done without one (AC8)."""
    sqlite_db.close()
    with DeferScope():
        defer(list)
        with pytest.raises(peewee.InterfaceError):
            sqlite_db.commit()
        assert sqlite_db.is_closed()


def test_threads_have_a_transaction_each(sqlite_db, ran):
    """Connections are of their thread, and so are the transactions (B3)."""
    deferred, ended = threading.Event(), threading.Event()

    def bad():
        with (
            DeferScope(),
            sqlite_db.connection_context(),
            suppress(ValueError),
            sqlite_db.atomic(),
        ):
            defer(ran.append, "bad")
            deferred.set()
            ended.wait(10)
            raise ValueError

    thread = threading.Thread(target=bad)
    thread.start()
    assert deferred.wait(10)
    with DeferScope(), sqlite_db.atomic():
        defer(ran.append, "good")
    ended.set()
    thread.join()
    assert ran == ["good"]


def test_a_call_that_leaves_its_writes_uncommitted_fails(sqlite_db, logged):
    """Never silently lost in a finished transaction (S9)."""

    def work():
        sqlite_db.begin()
        Order.create(name="a")

    with DeferScope():
        call = defer(work)
    sqlite_db.rollback()
    assert isinstance(call.exception, UncommittedError)


def test_a_pool_and_a_proxy(sqlite, ran):
    """A connection that comes back from the pool begins with a clean slate (B3)."""
    pool = PooledSqliteDatabase(sqlite.name, max_connections=1)
    proxy = peewee.DatabaseProxy()
    proxy.initialize(pool)
    with DeferScope():
        with proxy.connection_context(), suppress(ValueError), proxy.atomic():
            defer(ran.append, "no")
            raise ValueError
        with proxy.connection_context(), proxy.atomic():
            defer(ran.append, "yes")
    pool.close_all()
    assert ran == ["yes"]


def test_a_class_made_later_that_overrides(sqlite, ran):
    """It is wrapped as well, and hearing a word twice does no harm (B3, C2)."""

    class Own(peewee.SqliteDatabase):
        def begin(self, lock_type=None):
            self.cursor().execute("BEGIN IMMEDIATE")

        def execute_sql(self, sql, params=None):
            return super().execute_sql(sql, params)

    db = Own(sqlite.name)
    with DeferScope(), db.connection_context(), db.atomic():
        defer(ran.append, "outer")
        with suppress(ValueError), db.atomic():
            defer(ran.append, "inner")
            raise ValueError
    assert ran == ["outer"]


def test_install_twice():
    """A second time changes nothing (A12)."""
    before = peewee.SqliteDatabase.begin
    gates.install()
    assert peewee.SqliteDatabase.begin is before


async def test_asyncio(sqlite, ran):
    """`playhouse.pwasyncio`: each task has its own transaction (B3, C2)."""
    db = AsyncSqliteDatabase(sqlite.name)
    deferred = asyncio.Event()

    async def bad():
        with suppress(ValueError):
            async with db.atomic():
                defer(ran.append, "bad")
                deferred.set()
                raise ValueError

    async def good():
        await deferred.wait()
        async with db.atomic():
            defer(ran.append, "good")
            with suppress(ValueError):
                async with db.atomic():
                    defer(ran.append, "inner")
                    raise ValueError

    async with DeferScope():
        await asyncio.gather(bad(), good())
    await db.close_pool()
    assert ran == ["good"]
