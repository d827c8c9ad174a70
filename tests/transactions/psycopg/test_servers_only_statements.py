"""Gate.before_commit with psycopg 3. Collected with TEST_SERVICES=all."""

import asyncio
from contextlib import closing, suppress

import psycopg
import pytest
from psycopg.rows import dict_row

from postlude import DeferScope, StatementError, defer
from postlude.transactions import before_commit
from postlude.transactions import psycopg as gates

gates.install()

pytestmark = pytest.mark.parametrize("database", ["postgresql"], indirect=True)
THEIRS = "INSERT INTO orders VALUES ('theirs')"
ENDS = ["commit", "text", "block", "with", "tpc"]


@pytest.fixture
def address(database):
    """Where a database with an empty table of orders is."""
    address = {
        "host": database.host,
        "port": database.port,
        "user": database.user,
        "password": database.password or None,
        "dbname": database.name,
    }
    with psycopg.connect(**address) as connection:
        connection.execute("CREATE TABLE orders (name TEXT UNIQUE)")
    return address


@pytest.fixture
def stored(address):
    """Give the names of the orders that others see."""

    def stored():
        with psycopg.connect(**address) as connection:
            rows = connection.execute("SELECT name FROM orders ORDER BY name")
            return [name for (name,) in rows]

    return stored


def write(name, log=None):
    """Make a callback that adds an order."""

    def callback(execute):
        execute("INSERT INTO orders VALUES (:name || '%'::text)", {"name": name})
        if log is not None:
            log.append(execute("SELECT count(*) FROM orders"))

    return callback


def fail(execute):
    """Run into the unique constraint."""
    execute(THEIRS)


def say():
    """Stand for a call."""


def work(connection, end, callback):
    """Write, defer, register, and commit by one of the roads; give the call."""
    if end == "block":
        with connection.transaction():
            connection.execute(THEIRS)
            deferred = defer(say)
            before_commit(deferred, callback)
        return deferred
    if end == "tpc":
        connection.tpc_begin("postlude")
    connection.execute(THEIRS)
    deferred = defer(say)
    before_commit(deferred, callback)
    if end == "text":
        connection.execute("COMMIT")
    elif end == "with":
        with connection:
            pass
    elif end == "tpc":
        connection.tpc_commit()
    else:
        connection.commit()
    return deferred


@pytest.mark.parametrize("end", ENDS)
def test_every_commit_calls_before(address, stored, end):
    """Once, inside the transaction, with rows as tuples whatever others read (F2)."""
    log = []
    with (
        DeferScope(),
        psycopg.connect(
            **address, row_factory=dict_row, autocommit=end == "block"
        ) as connection,
    ):
        deferred = work(connection, end, write("ours", log))
    assert log == [[(2,)]]
    assert (deferred.state, stored()) == ("done", ["ours%", "theirs"])


@pytest.mark.parametrize("end", ENDS)
def test_what_it_raises_comes_out_of_the_commit(address, stored, end):
    """And nothing is committed (F2)."""
    calls = []

    def failing(execute):
        calls.append(execute)
        fail(execute)

    with DeferScope():
        connection = psycopg.connect(**address, autocommit=end == "block")
        with pytest.raises(psycopg.errors.UniqueViolation):
            work(connection, end, failing)
        connection.close()
    assert stored() == []
    assert len(calls) == 1


def test_savepoints(address, stored):
    """Rolled back, it is forgotten; released, it waits for the whole (C2, F2)."""
    with DeferScope(), psycopg.connect(**address) as connection:
        connection.execute(THEIRS)
        with suppress(ValueError), connection.transaction():
            before_commit(defer(say), write("gone"))
            raise ValueError
        with connection.transaction():
            before_commit(defer(say), write("kept"))
        assert stored() == []
    assert stored() == ["kept%", "theirs"]


# -- asyncio ------------------------------------------------------------------------


async def awork(connection, end, callback):
    """Do the same as `work` on an async connection."""
    if end == "block":
        async with connection.transaction():
            await connection.execute(THEIRS)
            deferred = defer(say)
            before_commit(deferred, callback)
        return deferred
    if end == "tpc":
        await connection.tpc_begin("postlude")
    await connection.execute(THEIRS)
    deferred = defer(say)
    before_commit(deferred, callback)
    if end == "text":
        await connection.execute("COMMIT")
    elif end == "with":
        async with connection:
            pass
    elif end == "tpc":
        await connection.tpc_commit()
    else:
        await connection.commit()
    return deferred


@pytest.mark.parametrize("end", ENDS)
async def test_every_async_commit_calls_before(address, stored, end):
    """The callback is sync, its statements are awaited on the loop (F2)."""
    log = []
    async with DeferScope():
        connection = await psycopg.AsyncConnection.connect(
            **address, autocommit=end == "block"
        )
        deferred = await awork(connection, end, write("ours", log))
        await connection.close()
    assert log == [[(2,)]]
    assert (deferred.state, await asyncio.to_thread(stored)) == (
        "done",
        ["ours%", "theirs"],
    )


@pytest.mark.parametrize("end", ENDS)
async def test_what_it_raises_comes_out_of_the_async_commit(address, stored, end):
    """And nothing is committed (F2)."""
    async with DeferScope():
        connection = await psycopg.AsyncConnection.connect(
            **address, autocommit=end == "block"
        )
        with pytest.raises(psycopg.errors.UniqueViolation):
            await awork(connection, end, fail)
        await connection.close()
    assert await asyncio.to_thread(stored) == []


async def test_a_commit_that_is_cancelled_meanwhile(address, stored):
    """The statement stops, the next one is refused, and nothing is committed (B5)."""
    loop = asyncio.get_running_loop()
    begun, refused = asyncio.Event(), asyncio.Event()

    def slow(execute):
        loop.call_soon_threadsafe(begun.set)
        try:
            execute("SELECT pg_sleep(60)")
        finally:
            try:
                execute(THEIRS)
            finally:
                loop.call_soon_threadsafe(refused.set)

    async with DeferScope():
        connection = await psycopg.AsyncConnection.connect(**address)
        task = asyncio.create_task(awork(connection, "commit", slow))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await refused.wait()
        await connection.close()
    assert await asyncio.to_thread(stored) == []


def test_a_prepared_transaction_takes_no_more(address):
    """From the first phase on it is an error; where that is refused, all is dropped."""
    with DeferScope(), closing(psycopg.connect(**address)) as connection:
        setting = connection.execute("SHOW max_prepared_transactions").fetchone()
        connection.rollback()
        connection.tpc_begin("postlude-late")
        connection.execute(THEIRS)
        (gate,) = defer(say)._gates
        if setting == ("0",):
            with pytest.raises(psycopg.NotSupportedError):
                connection.tpc_prepare()
            assert gate.state == "dropped"
        else:
            connection.tpc_prepare()
            with pytest.raises(StatementError, match="second phase"):
                gate.before_commit(fail)
            connection.tpc_rollback()
