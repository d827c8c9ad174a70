"""B3 and C2 with Pony ORM: its sessions, one transaction per database."""

import asyncio
import contextvars
import gc
import threading
from contextlib import suppress

import pytest
from pony import orm

from postlude import DeferScope, UncommittedError, defer
from postlude.transactions import pony as gates

gates.install()

LATE = (
    "CREATE TABLE items (id INTEGER PRIMARY KEY)",
    "CREATE TABLE lines (item INT REFERENCES items DEFERRABLE INITIALLY DEFERRED)",
)
"""Tables whose constraint is looked at upon COMMIT, and fails it."""


def make(filename):
    """Make a database in a file, with an empty table of orders."""
    db = orm.Database()

    class Order(db.Entity):
        name = orm.Required(str, unique=True)
        count = orm.Required(int, default=0)

    db.bind("sqlite", filename, create_db=True)
    db.generate_mapping(create_tables=True)
    return db


@pytest.fixture
def db(tmp_path):
    """A database."""
    db = make(str(tmp_path / "one.db"))
    yield db
    db.disconnect()


@pytest.fixture
def other(tmp_path):
    """Another one."""
    db = make(str(tmp_path / "two.db"))
    yield db
    db.disconnect()


@pytest.fixture
def ran():
    """What ran, in order."""
    return []


def test_a_call_runs_after_the_commit(db, ran):
    """Also when it was deferred before the flush (B3)."""

    def mail(pk):
        with orm.db_session:
            ran.append(db.Order[pk].name)

    with DeferScope():
        with orm.db_session:
            db.Order(id=1, name="a")
            defer(mail, 1)
        assert ran == []
    assert ran == ["a"]


def test_a_rollback_drops(db, ran):
    """By an exception, flushed or not, with the database in the record (C2, A4)."""
    with DeferScope():
        with suppress(ValueError), orm.db_session:
            db.Order(name="a")
            call = defer(ran.append, "no")
            defer(ran.append, "at once").after_commit(False)
            defer(ran.append, "always").always()
            orm.flush()
            raise ValueError
        defer(ran.append, "after")
    assert ran == ["at once", "always", "after"]
    assert call.reason == "rollback"
    assert call.rolled_back == f"sqlite:///{db.provider.pool.filename}"


def test_commit_and_rollback_inside_the_session(db, ran):
    """What comes after either is a transaction of its own (C2)."""
    with DeferScope(), suppress(ValueError), orm.db_session:
        db.Order(name="a")
        defer(ran.append, "kept")
        orm.commit()
        db.Order(name="b")
        defer(ran.append, "dropped")
        orm.rollback()
        db.Order(name="c")
        defer(ran.append, "kept as well")
        db.commit()
        db.Order(name="d")
        defer(ran.append, "dropped too")
        db.rollback()
        db.Order(name="e")
        defer(ran.append, "dropped at last")
        raise ValueError
    assert ran == ["kept", "kept as well"]


def test_nested_sessions_are_one(db, ran):
    """Pony ignores the inner one, and so do the calls (AC6)."""

    @orm.db_session
    def inner():
        db.Order(name="a")
        defer(ran.append, "inner")

    with DeferScope():
        with suppress(ValueError), orm.db_session:
            inner()
            raise ValueError
        inner()
    assert ran == ["inner"]


def test_allowed_exceptions_commit(db, ran):
    """Pony commits in spite of them (C2)."""
    with (
        DeferScope(),
        suppress(KeyError),
        orm.db_session(allowed_exceptions=[KeyError]),
    ):
        db.Order(name="a")
        defer(ran.append, "yes")
        raise KeyError
    assert ran == ["yes"]


def test_retries(db, ran):
    """Each attempt takes its calls with it (C2)."""
    numbers = iter(range(3))

    @orm.db_session(retry=2, retry_exceptions=[ValueError])
    def work():
        number = next(numbers)
        db.Order(name=f"order {number}")
        defer(ran.append, number)
        if number < 2:
            raise ValueError

    with DeferScope():
        work()
    assert ran == [2]


def test_an_optimistic_check_that_fails_drops(db, ran):
    """It is found at the commit (S10)."""
    with orm.db_session:
        db.Order(id=1, name="a")

    def meanwhile():
        with orm.db_session:
            db.Order[1].count = 7

    @orm.db_session
    def count():
        db.Order[1].count += 1
        calls.append(defer(ran.append, "no"))
        thread = threading.Thread(target=meanwhile)
        thread.start()
        thread.join()

    calls = []
    with DeferScope(), pytest.raises(orm.OptimisticCheckError):
        count()
    assert [call.reason for call in calls] == ["rollback"]


def test_a_commit_that_fails_drops(db, ran):
    """The COMMIT itself, not the flush before it (S10)."""
    with orm.db_session:
        for statement in LATE:
            db.execute(statement)

    @orm.db_session
    def write():
        db.execute("INSERT INTO lines VALUES (7)")
        calls.append(defer(ran.append, "no"))

    calls = []
    with DeferScope(), pytest.raises(orm.CommitException):
        write()
    assert [call.reason for call in calls] == ["rollback"]


def test_two_databases_must_both_commit(db, other, ran):
    """Pony commits one, then the other (A5)."""
    with DeferScope(), orm.db_session:
        db.Order(name="a")
        other.Order(name="a")
        call = defer(ran.append, "both")
        db.commit()
        assert call._gates
    assert ran == ["both"]


def test_a_partial_commit_drops_what_waited_for_both(db, other, ran):
    """And not what waited for the one that was committed (A5, AC7)."""
    db.priority = 1  # Pony commits it first
    with orm.db_session:
        for statement in LATE:
            other.execute(statement)

    @orm.db_session
    def write():
        db.Order(name="a")
        defer(ran.append, "one")
        other.execute("INSERT INTO lines VALUES (7)")
        calls.append(defer(ran.append, "both"))

    calls = []
    with DeferScope(), pytest.raises(orm.core.PartialCommitException):
        write()
    assert ran == ["one"]
    assert calls[0].rolled_back == f"sqlite:///{other.provider.pool.filename}"


def test_reading_is_no_reason_to_drop(db, ran):
    """A session that read is committed as well (C2)."""
    with DeferScope(), orm.db_session:
        assert db.Order.select().count() == 0
        defer(ran.append, "yes")
    assert ran == ["yes"]


def test_before_the_session_touches_a_database(db, ran):
    """There is no transaction to wait for yet (B3)."""
    with DeferScope(), suppress(ValueError), orm.db_session:
        defer(ran.append, "before")
        db.Order(name="a")
        raise ValueError
    assert ran == ["before"]


def test_two_units_one_after_another(db, ran):
    """The end of one says nothing of the other (B3)."""
    with DeferScope(), orm.db_session:
        db.Order(name="a")
        defer(ran.append, "first")
        orm.rollback()
    with DeferScope(), orm.db_session:
        db.Order(name="a")
        defer(ran.append, "second")
    assert ran == ["second"]


def test_a_commit_after_the_units_end(db, ran, drained):
    """Response first, commit second (B3)."""
    with orm.db_session:
        with DeferScope():
            db.Order(name="a")
            call = defer(ran.append, "late")
        assert call.state == "pending"
    drained()
    assert ran == ["late"]


def test_threads_have_a_session_each(db, ran):
    """Sessions are of their thread (B3)."""
    deferred, ended = threading.Event(), threading.Event()

    def bad():
        with DeferScope(), suppress(ValueError), orm.db_session:
            db.Order.select().first()
            defer(ran.append, "bad")
            deferred.set()
            ended.wait(10)
            raise ValueError

    thread = threading.Thread(target=bad)
    thread.start()
    assert deferred.wait(10)
    with DeferScope(), orm.db_session:
        db.Order(name="a")
        defer(ran.append, "good")
    ended.set()
    thread.join()
    assert ran == ["good"]


async def test_coroutines_have_a_session_each(db, ran, blockbuster):
    """Pony takes a session out of the thread where its coroutine waits (B3)."""
    blockbuster.deactivate()  # Pony is sync
    deferred, ended = asyncio.Event(), asyncio.Event()

    @orm.db_session
    async def bad():
        db.Order.select().first()
        defer(ran.append, "bad")
        deferred.set()
        await ended.wait()
        raise ValueError

    @orm.db_session
    async def good():
        db.Order(name="a")
        defer(ran.append, "good")

    async def one_after_another():
        await deferred.wait()
        try:
            await good()
        finally:
            ended.set()

    async with DeferScope():
        done = await asyncio.gather(bad(), one_after_another(), return_exceptions=True)
    assert isinstance(done[0], ValueError)
    assert ran == ["good"]


def test_a_call_that_leaves_its_session_open_fails(db, logged):
    """Never silently lost in a session that nobody commits (S9)."""

    def work():
        orm.db_session.__enter__()
        db.Order(name="a")

    with DeferScope():
        call = defer(work)
    orm.db_session.__exit__(ValueError)
    assert isinstance(call.exception, UncommittedError)


def test_a_session_that_died_with_its_thread(db, ran, drained):
    """Nobody can commit it any more (C2)."""
    calls = []

    def work():
        orm.db_session.__enter__()
        db.Order(name="a")
        calls.append(defer(ran.append, "no"))

    with DeferScope():
        thread = threading.Thread(target=contextvars.copy_context().run, args=[work])
        thread.start()
        thread.join()
        gc.collect()  # an entity and its session know each other
    drained()
    assert calls[0].reason == "rollback"


@pytest.mark.parametrize(
    ("dialect", "given", "shown"),
    [
        (
            "PostgreSQL",
            {"host": "db", "user": "me", "password": "secret", "dbname": "shop"},
            "postgresql://db/shop",
        ),
        ("MySQL", {"host": "db", "port": 3307, "db": "shop"}, "mysql://db:3307/shop"),
        ("Oracle", {"user": "me", "password": "secret"}, "oracle:///"),
    ],
)
def test_names_show_no_secret(dialect, given, shown):
    """Records name the database, and neither user nor password (C2)."""

    class Database:
        class provider:  # noqa: N801 - Pony's name
            class pool:  # noqa: N801 - as above
                kwargs = given

    Database.provider.dialect = dialect
    assert gates._name_of(Database) == shown


def test_install_twice():
    """A second time changes nothing (A12)."""
    before = orm.core.SessionCache.commit
    gates.install()
    assert orm.core.SessionCache.commit is before
