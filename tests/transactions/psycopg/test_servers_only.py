"""B3 and C2 with psycopg 3 on PostgreSQL. Collected with TEST_SERVICES=all."""

import asyncio
import threading
from contextlib import ExitStack, contextmanager, suppress

import psycopg
import pytest
from psycopg import sql

from postlude import DeferScope, UncommittedError, defer
from postlude.transactions import psycopg as gates

gates.install()

pytestmark = pytest.mark.parametrize("database", ["postgresql"], indirect=True)
INSERT = "INSERT INTO orders VALUES ('a')"
LATE = """
    CREATE TABLE items (id INT PRIMARY KEY);
    CREATE TABLE lines (item INT REFERENCES items DEFERRABLE INITIALLY DEFERRED)
"""
"""Tables whose constraint is looked at upon COMMIT, and fails it."""


@pytest.fixture
def connect(database):
    """Make connections to a database with an empty table of orders."""
    address = {
        "host": database.host,
        "port": database.port,
        "user": database.user,
        "password": database.password or None,
        "dbname": database.name,
    }
    with psycopg.connect(**address) as connection:
        connection.execute("CREATE TABLE orders (name TEXT UNIQUE)")
    with ExitStack() as opened:

        def connect(**options):
            connection = psycopg.connect(**address, **options)
            opened.callback(connection.close)
            return connection

        connect.address = address
        yield connect


@pytest.fixture
def connection(connect):
    """A connection as psycopg makes it: it begins with the first statement."""
    return connect()


@pytest.fixture
def autocommit(connect):
    """A connection that begins when it is told to."""
    return connect(autocommit=True)


@pytest.fixture
def ran():
    """What ran, in order."""
    return []


@contextmanager
def unit_that_fails():
    """A unit that goes on after a ValueError in its block."""
    with DeferScope(), suppress(ValueError):
        yield


def test_commit_and_rollback(connection, ran, database):
    """The first statement begins; both ends are seen (B3, C2)."""
    with DeferScope():
        defer(ran.append, "before")
        connection.execute(INSERT)
        defer(ran.append, "kept")
        connection.commit()
        connection.execute(INSERT.replace("a", "b"))
        call = defer(ran.append, "dropped")
        defer(ran.append, "at once").after_commit(False)
        defer(ran.append, "always").always()
        connection.rollback()
        defer(ran.append, "after")
    assert ran == ["before", "kept", "at once", "always", "after"]
    assert call.rolled_back == database.shown


def test_the_connection_as_a_block(connect, ran):
    """It commits, or rolls back, and closes (B3, C2)."""
    with unit_that_fails():
        with connect() as connection:
            connection.execute(INSERT)
            defer(ran.append, "kept")
        with connect() as connection:
            connection.execute(INSERT.replace("a", "b"))
            defer(ran.append, "dropped")
            raise ValueError
    assert ran == ["kept"]


@pytest.mark.parametrize("begun", ["block", "statement"])
def test_transaction_blocks_and_their_savepoints(connect, ran, begun):
    """A rolled back one drops its own calls, a released one hands them out (AC5)."""
    connection = connect(autocommit=begun == "block")
    with DeferScope():
        if begun == "statement":
            connection.execute("SELECT 1")
        with connection.transaction():
            defer(ran.append, "outer")
            with suppress(ValueError), connection.transaction():
                defer(ran.append, "no")
                with connection.transaction():
                    defer(ran.append, "released into what is rolled back")
                raise ValueError
            with connection.transaction("named"):
                defer(ran.append, "inner")
            with suppress(psycopg.errors.DivisionByZero), connection.transaction():
                defer(ran.append, "nor this")
                connection.execute("SELECT 1 / 0")
        if begun == "statement":
            connection.commit()
    assert ran == ["outer", "inner"]


def test_a_released_savepoint_goes_with_the_transaction(autocommit, ran):
    """What is around it decides (C2, A3)."""
    with unit_that_fails(), autocommit.transaction("named"):
        with autocommit.transaction():
            defer(ran.append, "no")
        raise ValueError
    assert ran == []


def test_rollbacks_of_psycopgs_own(autocommit, ran):
    """`Rollback`, of this block or one around it, and `force_rollback` (C2)."""
    with DeferScope():
        with autocommit.transaction():
            defer(ran.append, "outer")
            with autocommit.transaction():
                defer(ran.append, "no")
                raise psycopg.Rollback
            with autocommit.transaction(force_rollback=True):
                defer(ran.append, "nor this")
        with autocommit.transaction() as outer:
            defer(ran.append, "nor that")
            with autocommit.transaction():
                raise psycopg.Rollback(outer)
        with autocommit.transaction(force_rollback=True):
            defer(ran.append, "nor the whole")
    assert ran == ["outer"]


def test_the_commit_of_a_failed_transaction_is_a_rollback(connection, autocommit, ran):
    """PostgreSQL says nothing; it just does not commit (S10)."""
    with DeferScope():
        connection.execute(INSERT)
        first = defer(ran.append, "no")
        with suppress(psycopg.Error):
            connection.execute("SELECT 1 / 0")
        connection.commit()
        with autocommit.transaction():
            second = defer(ran.append, "nor this")
            with suppress(psycopg.Error):
                autocommit.execute("SELECT 1 / 0")
    assert (first.reason, second.reason) == ("rollback", "rollback")


@pytest.mark.parametrize("by", ["commit", "block"])
def test_a_commit_that_fails_drops(connection, autocommit, ran, by):
    """It takes the path of a rollback (S10)."""
    calls = []

    def fail():
        known = autocommit if by == "block" else connection
        with known.transaction() if by == "block" else known:
            known.execute("INSERT INTO lines VALUES (7)")
            calls.append(defer(ran.append, "no"))

    autocommit.execute(LATE)
    with DeferScope(), pytest.raises(psycopg.errors.ForeignKeyViolation):
        fail()
    assert [call.reason for call in calls] == ["rollback"]


def test_a_savepoint_whose_release_fails_drops(autocommit, ran):
    """It failed inside, and the block did not notice (S11)."""

    def fail():
        with autocommit.transaction():
            defer(ran.append, "no")
            with suppress(psycopg.Error):
                autocommit.execute("SELECT 1 / 0")

    with DeferScope(), autocommit.transaction():
        defer(ran.append, "outer")
        # psycopg does not roll back here: the transaction is as good as lost
        with suppress(psycopg.errors.InFailedSqlTransaction):
            fail()
    assert ran == []


@pytest.mark.parametrize(
    ("statement", "reads"),
    [
        ("SELECT 1", True),
        (b"SELECT 1", True),
        (sql.SQL("SELECT {}").format(1), True),
        (INSERT, False),
        (INSERT.encode(), False),
        (
            sql.SQL("INSERT INTO {} VALUES ('a')").format(sql.Identifier("orders")),
            False,
        ),
        ("WITH a AS (INSERT INTO orders VALUES ('a') RETURNING *) TABLE a", False),
        ("SELECT 1; -- and\n", True),
        ("/* why */ DELETE FROM orders", False),
    ],
)
def test_a_connection_that_is_closed(connect, ran, statement, reads):
    """What only read is no reason to drop, what wrote is (C2)."""
    with DeferScope():
        connection = connect()
        connection.execute(statement)
        call = defer(ran.append, "x")
        connection.close()
    assert call.state == ("done" if reads else "dropped")


@pytest.mark.parametrize(
    ("road", "reads"),
    [
        ("executemany", False),
        ("stream", False),
        ("copy from", False),
        ("copy to", True),
        ("server cursor", True),
    ],
)
def test_roads_of_a_statement(connect, ran, road, reads):
    """All of them begin, and tell whether they write (B3, C2)."""
    with DeferScope():
        connection = connect()
        with connection.cursor("c" if road == "server cursor" else "") as cursor:
            if road == "executemany":
                cursor.executemany("INSERT INTO orders VALUES (%s)", [("a",), ("b",)])
            elif road == "stream":
                list(cursor.stream(INSERT + " RETURNING name"))
            elif road == "copy from":
                with cursor.copy("COPY orders FROM STDIN") as copy:
                    copy.write_row(["a"])
            elif road == "copy to":
                with cursor.copy("COPY (SELECT * FROM orders) TO STDOUT") as copy:
                    list(copy)
            else:
                cursor.execute("SELECT 1")
            call = defer(ran.append, "x")
        connection.close()
    assert call.state == ("done" if reads else "dropped")


def test_what_autocommit_wrote_is_no_write_of_the_transaction(connect, ran):
    """It was over before (C2)."""
    with DeferScope():
        connection = connect(autocommit=True)
        connection.execute(INSERT)
        with connection.transaction():
            connection.execute("SELECT 1")
            call = defer(ran.append, "read")
            connection.close()
    assert call.state == "done"


def test_a_rollback_drops_also_after_reading(connection, ran):
    """Whoever says it means that it shall not have happened (C2)."""
    with DeferScope():
        connection.execute("SELECT 1")
        call = defer(ran.append, "no")
        connection.rollback()
    assert call.reason == "rollback"


def test_autocommit_is_no_transaction(autocommit, ran):
    """Each statement is over when it returns; nothing to wait for (A1)."""
    with DeferScope():
        autocommit.execute(INSERT)
        call = defer(ran.append, "free")
        assert not call._gates
    assert ran == ["free"]


def test_transactions_as_text(autocommit, ran):
    """`BEGIN`, `COMMIT` and `ROLLBACK` of one's own (B3, C2)."""
    with DeferScope():
        autocommit.execute("BEGIN")
        defer(ran.append, "kept")
        autocommit.execute("COMMIT")
        autocommit.execute("BEGIN")
        defer(ran.append, "dropped")
        autocommit.execute("ROLLBACK")
        autocommit.execute("BEGIN")
        defer(ran.append, "dropped too")
        with suppress(psycopg.Error):
            autocommit.execute("SELECT 1 / 0")
        autocommit.execute("COMMIT")
    assert ran == ["kept"]


def test_an_explicit_end_inside_a_block_changes_nothing(autocommit, ran):
    """Psycopg forbids it (C5)."""
    with unit_that_fails(), autocommit.transaction():
        defer(ran.append, "no")
        with pytest.raises(psycopg.ProgrammingError):
            autocommit.commit()
        raise ValueError
    assert ran == []


def test_a_lost_connection(connection, autocommit, ran):
    """A transaction that wrote is not committed any more (C2)."""
    with DeferScope():
        connection.execute(INSERT)
        call = defer(ran.append, "no")
        autocommit.execute(
            "SELECT pg_terminate_backend(%s)", [connection.info.backend_pid]
        )
        with pytest.raises(psycopg.OperationalError):
            connection.commit()
    assert call.reason == "rollback"


@pytest.mark.parametrize("fails", [True, False])
def test_pipelines(connection, autocommit, ran, fails, drained):
    """The answers come late; the calls wait for them (B3, C2)."""

    def work():
        with connection.pipeline():
            connection.execute(INSERT)
            if fails:
                connection.execute("SELECT 1 / 0")
            calls.append(defer(ran.append, "x"))
            connection.commit()
        with autocommit.pipeline(), autocommit.transaction():
            autocommit.execute(INSERT.replace("a", "b"))
            calls.append(defer(ran.append, "y"))

    calls = []
    with DeferScope(), suppress(psycopg.errors.DivisionByZero):
        work()
        assert not fails
    connection.rollback()
    drained()
    assert ran == ([] if fails else ["x", "y"])
    assert calls[0].state == ("dropped" if fails else "done")


@pytest.mark.parametrize("word", ["commit", "rollback"])
def test_two_phases(connection, ran, word):
    """Most servers prepare nothing by default; the rest of it (B3, C2)."""
    with DeferScope():
        connection.tpc_begin("postlude")
        connection.execute(INSERT)
        call = defer(ran.append, "x")
        getattr(connection, f"tpc_{word}")()
    assert call.state == ("done" if word == "commit" else "dropped")


def test_two_units_on_one_connection(connection, ran):
    """The end of one says nothing of the other (B3)."""
    with DeferScope():
        connection.execute(INSERT)
        defer(ran.append, "first")
        connection.rollback()
    with DeferScope():
        connection.execute(INSERT)
        defer(ran.append, "second")
        connection.commit()
    assert ran == ["second"]


def test_a_commit_after_the_units_end(connection, ran, drained):
    """Response first, commit second (B3)."""
    with DeferScope():
        connection.execute(INSERT)
        call = defer(ran.append, "late")
    assert call.state == "pending"
    connection.commit()
    drained()
    assert ran == ["late"]


def test_threads_have_a_transaction_each(connect, ran):
    """What another connection rolls back is of no matter here (B3)."""
    deferred, ended = threading.Event(), threading.Event()

    def bad():
        connection = connect()
        with DeferScope():
            connection.execute("SELECT 1")
            defer(ran.append, "bad")
            deferred.set()
            ended.wait(10)
            connection.rollback()

    thread = threading.Thread(target=bad)
    thread.start()
    assert deferred.wait(10)
    with DeferScope(), connect() as connection:
        connection.execute(INSERT)
        defer(ran.append, "good")
    ended.set()
    thread.join()
    assert ran == ["good"]


@pytest.mark.filterwarnings("ignore:.*was deleted while still open:ResourceWarning")
@pytest.mark.parametrize("wrote", [True, False])
def test_a_connection_that_was_lost_sight_of(connect, ran, wrote, drained):
    """Nobody can commit on it any more (C2)."""
    with DeferScope():
        connection = psycopg.connect(**connect.address)
        connection.execute(INSERT if wrote else "SELECT 1")
        call = defer(ran.append, "x")
        del connection
    drained()
    assert call.state == ("dropped" if wrote else "done")


def test_a_call_that_leaves_its_own_writes_uncommitted_fails(connection, logged):
    """Never silently lost in a finished transaction (S9)."""
    with DeferScope():
        call = defer(connection.execute, INSERT)
    assert isinstance(call.exception, UncommittedError)
    assert connection.info.dbname in str(call.exception)


# -- asyncio ----------------------------------------------------------------


@pytest.fixture
async def aconnect(connect):
    """Make async connections."""
    opened = []

    async def aconnect(**options):
        made = await psycopg.AsyncConnection.connect(**connect.address, **options)
        opened.append(made)
        return made

    yield aconnect
    for made in opened:
        await made.close()


async def test_async_ends(aconnect, ran):
    """Commit, rollback, the block, and a close (B3, C2)."""
    async with DeferScope():
        connection = await aconnect()
        await connection.execute(INSERT)
        defer(ran.append, "kept")
        await connection.commit()
        await connection.execute(INSERT.replace("a", "b"))
        defer(ran.append, "dropped")
        await connection.rollback()
        async with connection:
            await connection.execute(INSERT.replace("a", "c"))
            defer(ran.append, "kept by the block")
        reading = await aconnect()
        await reading.execute("SELECT 1")
        defer(ran.append, "read")
        await reading.close()
    assert ran == ["kept", "kept by the block", "read"]


async def test_async_blocks_and_savepoints(aconnect, ran):
    """As the sync ones (AC5, S10, S11)."""
    async with DeferScope():
        connection = await aconnect(autocommit=True)
        async with connection.transaction():
            defer(ran.append, "outer")
            with suppress(ValueError):
                async with connection.transaction():
                    defer(ran.append, "no")
                    raise ValueError
            async with connection.transaction():
                defer(ran.append, "inner")
        with suppress(psycopg.Error):
            async with connection.transaction():
                defer(ran.append, "nor this")
                async with connection.transaction():
                    with suppress(psycopg.Error):
                        await connection.execute("SELECT 1 / 0")
    assert ran == ["outer", "inner"]


async def test_tasks_have_a_transaction_each(aconnect, ran):
    """What another task rolls back is of no matter here (B3)."""
    deferred = asyncio.Event()

    async def bad():
        connection = await aconnect()
        await connection.execute("SELECT 1")
        defer(ran.append, "bad")
        deferred.set()
        await connection.rollback()

    async def good():
        connection = await aconnect()
        await deferred.wait()
        await connection.execute(INSERT)
        defer(ran.append, "good")
        await connection.commit()

    async with DeferScope():
        await asyncio.gather(bad(), good())
    assert ran == ["good"]


async def test_a_cancelled_task_drops(aconnect, ran):
    """Psycopg rolls its block back (B5, C2)."""
    began = asyncio.Event()

    async def work():
        connection = await aconnect(autocommit=True)
        async with connection.transaction():
            defer(ran.append, "no")
            began.set()
            await asyncio.Event().wait()

    async with DeferScope():
        task = asyncio.create_task(work())
        await began.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert ran == []
