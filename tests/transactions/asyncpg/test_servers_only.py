"""B3 and C2 with asyncpg on PostgreSQL. Collected with TEST_SERVICES=all."""

import asyncio
import gc
import weakref
from contextlib import AsyncExitStack, suppress

import asyncpg
import pytest
from stage.waiting import settle

from postlude import DeferScope, UncommittedError, defer
from postlude.transactions import asyncpg as gates

gates.install()

pytestmark = pytest.mark.parametrize("database", ["postgresql"], indirect=True)
INSERT = "INSERT INTO orders VALUES ('a')"
LATE = """
    CREATE TABLE items (id INT PRIMARY KEY);
    CREATE TABLE lines (item INT REFERENCES items DEFERRABLE INITIALLY DEFERRED)
"""
"""Tables whose constraint is looked at upon COMMIT, and fails it."""


@pytest.fixture
def address(database):
    """Where the database is, as asyncpg wants it."""
    return {
        "host": database.host,
        "port": database.port,
        "user": database.user,
        "password": database.password or None,
        "database": database.name,
    }


@pytest.fixture
async def connect(address):
    """Make connections to a database with an empty table of orders."""
    async with AsyncExitStack() as opened:

        async def connect():
            connection = await asyncpg.connect(**address)
            opened.push_async_callback(connection.close)
            return connection

        yield connect


@pytest.fixture
async def connection(connect):
    """A connection to a database with an empty table of orders."""
    connection = await connect()
    await connection.execute("CREATE TABLE orders (name TEXT UNIQUE)")
    return connection


@pytest.fixture
def ran():
    """What ran, in order."""
    return []


async def test_commit_and_rollback(connection, ran, database):
    """By a block and its exceptions (B3, C2)."""
    async with DeferScope():
        async with connection.transaction():
            await connection.execute(INSERT)
            defer(ran.append, "kept")
            await asyncio.sleep(0)
        with suppress(ValueError):
            async with connection.transaction():
                call = defer(ran.append, "dropped")
                defer(ran.append, "at once").after_commit(False)
                defer(ran.append, "always").always()
                raise ValueError
        defer(ran.append, "after")
    assert ran == ["kept", "at once", "always", "after"]
    assert call.rolled_back == database.shown


async def test_ends_by_hand(connection, ran):
    """`start()`, `commit()` and `rollback()` (B3, C2)."""
    async with DeferScope():
        for word in ("commit", "rollback"):
            transaction = connection.transaction()
            defer(ran.append, f"before {word}")
            await transaction.start()
            defer(ran.append, word)
            await getattr(transaction, word)()
    assert ran == ["before commit", "commit", "before rollback"]


async def test_savepoints(connection, ran):
    """A rolled back one drops its own calls, a released one hands them out (AC5)."""
    async with DeferScope(), connection.transaction():
        defer(ran.append, "outer")
        with suppress(ValueError):
            async with connection.transaction():
                defer(ran.append, "no")
                async with connection.transaction():
                    defer(ran.append, "released into what is rolled back")
                raise ValueError
        async with connection.transaction():
            defer(ran.append, "inner")
        with suppress(asyncpg.DivisionByZeroError):
            async with connection.transaction():
                defer(ran.append, "nor this")
                await connection.execute("SELECT 1 / 0")
    assert ran == ["outer", "inner"]


async def test_savepoints_by_the_thousand(connection, ran):
    """Asyncpg releases none that it rolled back (C2)."""
    async with DeferScope(), connection.transaction():
        for _ in range(1200):
            transaction = connection.transaction()
            await transaction.start()
            await transaction.rollback()
        defer(ran.append, "outer")
    assert ran == ["outer"]


async def test_a_released_savepoint_goes_with_the_transaction(connection, ran):
    """What is around it decides (C2, A3)."""
    async with DeferScope():
        with suppress(ValueError):
            async with connection.transaction():
                async with connection.transaction():
                    defer(ran.append, "no")
                raise ValueError
    assert ran == []


async def test_a_commit_that_fails_drops(connection, ran):
    """It takes the path of a rollback (S10)."""

    async def fail():
        async with connection.transaction():
            await connection.execute("INSERT INTO lines VALUES (7)")
            calls.append(defer(ran.append, "no"))

    calls = []
    await connection.execute(LATE)
    async with DeferScope():
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await fail()
    assert [call.reason for call in calls] == ["rollback"]


async def test_the_commit_of_a_failed_transaction_is_a_rollback(connection, ran):
    """PostgreSQL says it in its answer only (S10)."""
    async with DeferScope(), connection.transaction():
        call = defer(ran.append, "no")
        with suppress(asyncpg.DivisionByZeroError):
            await connection.execute("SELECT 1 / 0")
    assert call.reason == "rollback"


async def test_a_savepoint_whose_release_fails_drops(connection, ran):
    """It failed inside, and the block did not notice (S11)."""
    async with DeferScope(), connection.transaction():
        defer(ran.append, "outer")
        with suppress(asyncpg.InFailedSQLTransactionError):
            async with connection.transaction():
                defer(ran.append, "no")
                with suppress(asyncpg.DivisionByZeroError):
                    await connection.execute("SELECT 1 / 0")
    assert ran == []


async def test_transactions_as_text(connection, ran):
    """One's own words, also several in one text (B3, C2)."""
    async with DeferScope():
        await connection.execute("BEGIN")
        defer(ran.append, "kept")
        await connection.execute("COMMIT")
        await connection.execute("BEGIN")
        defer(ran.append, "dropped")
        await connection.execute("ROLLBACK")
        await connection.execute("SELECT 1; BEGIN")
        defer(ran.append, "kept too")
        await connection.execute("SELECT 1; COMMIT")
        await connection.execute("BEGIN; SELECT 1")
        defer(ran.append, "dropped too")
        await connection.execute("SELECT 1; ROLLBACK")
        assert not gates._stack_of(connection)
    assert ran == ["kept", "kept too"]


@pytest.mark.parametrize(
    ("end", "wrote"),
    [
        *[
            (end, wrote)
            for end in ("close", "terminate", "pool")
            for wrote in ("", "execute")
        ],
        *[("close", wrote) for wrote in ("fetchval", "executemany", "copy")],
    ],
)
async def test_a_connection_that_is_given_up(connection, address, ran, wrote, end):
    """What only read is no reason to drop, what wrote is (C2)."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with (
        asyncpg.create_pool(**address, min_size=1, max_size=1) as pool,
        DeferScope(),
    ):
        if end == "pool":
            mine = await pool.acquire()
        else:
            mine = await asyncpg.connect(**address)
        await mine.transaction().start()
        await mine.fetch("SELECT 1")
        if wrote == "execute":
            await mine.execute(INSERT)
        elif wrote == "fetchval":
            await mine.fetchval(INSERT + " RETURNING name")
        elif wrote == "executemany":
            await mine.executemany("INSERT INTO orders VALUES ($1)", [("a",)])
        elif wrote == "copy":
            await mine.copy_records_to_table("orders", records=[("a",)])
        call = defer(ran.append, "x")
        if end == "pool":
            await pool.release(mine)
        elif end == "close":
            await mine.close()
        else:
            mine.terminate()
    assert call.state == ("dropped" if wrote else "done")


async def test_a_pool(connection, address, ran):
    """What comes back from it begins with a clean slate (B3, C2)."""
    async with (
        asyncpg.create_pool(**address, min_size=1, max_size=1) as pool,
        DeferScope(),
    ):
        with suppress(ValueError):
            async with pool.acquire() as mine, mine.transaction():
                defer(ran.append, "no")
                raise ValueError
        async with pool.acquire() as mine, mine.transaction():
            await mine.execute(INSERT)
            defer(ran.append, "yes")
        await pool.execute("SELECT 1")
    assert ran == ["yes"]


async def test_a_lost_connection(connection, connect, ran):
    """A transaction that wrote is not committed any more (C2)."""
    victim = await connect()

    async def fail():
        async with victim.transaction():
            await victim.execute(INSERT)
            calls.append(defer(ran.append, "no"))
            pid = victim.get_server_pid()
            await connection.execute(f"SELECT pg_terminate_backend({pid})")
            await victim.execute("SELECT 1")

    calls = []
    async with DeferScope():
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError):
            await fail()
        victim.terminate()
    assert [call.reason for call in calls] == ["rollback"]


async def test_two_units_on_one_connection(connection, ran):
    """The end of one says nothing of the other (B3)."""
    async with DeferScope():
        with suppress(ValueError):
            async with connection.transaction():
                defer(ran.append, "first")
                raise ValueError
    async with DeferScope(), connection.transaction():
        defer(ran.append, "second")
    assert ran == ["second"]


async def test_a_commit_after_the_units_end(connection):
    """Response first, commit second (B3)."""
    done = asyncio.Event()

    async def late():
        done.set()

    async with connection.transaction():
        async with DeferScope():
            call = defer(late)
        assert call.state == "pending"
    await asyncio.wait_for(done.wait(), 10)


async def test_tasks_have_a_transaction_each(connect, connection, ran):
    """What another task rolls back is of no matter here (B3)."""
    deferred = asyncio.Event()

    async def bad():
        mine = await connect()
        with suppress(ValueError):
            async with mine.transaction():
                defer(ran.append, "bad")
                deferred.set()
                raise ValueError

    async def good():
        await deferred.wait()
        async with connection.transaction():
            defer(ran.append, "good")

    async with DeferScope():
        await asyncio.gather(bad(), good())
    assert ran == ["good"]


async def test_a_cancelled_task_drops(connection, ran):
    """Asyncpg rolls its block back (B5, C2)."""
    began = asyncio.Event()

    async def work():
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


async def test_a_call_that_leaves_its_own_writes_uncommitted_fails(connection, logged):
    """Never silently lost in a finished transaction (S9)."""

    async def work():
        await connection.transaction().start()
        await connection.execute(INSERT)

    async with DeferScope():
        call = defer(work)
    assert isinstance(call.exception, UncommittedError)


@pytest.mark.filterwarnings("ignore:unclosed connection:ResourceWarning")
@pytest.mark.parametrize("wrote", [True, False])
async def test_a_connection_that_was_lost_sight_of(connection, address, ran, wrote):
    """Nobody can commit on it any more (C2)."""
    async with DeferScope():
        mine = await asyncpg.connect(**address)
        await mine.transaction().start()
        await mine.execute(INSERT if wrote else "SELECT 1")
        call = defer(ran.append, "read")
        seen = weakref.ref(mine)
        mine._protocol.abort()
        del mine
        while seen() is not None:  # until the loop has let go of its socket
            await settle()
            gc.collect()
    assert call.state == ("dropped" if wrote else "done")
