"""B3 and C2 with Tortoise ORM: its transactions, and what is nested in them."""

import asyncio
from contextlib import suppress

import pytest
from models import Order
from tortoise import Tortoise
from tortoise.backends.sqlite.client import SqliteTransactionWrapper
from tortoise.exceptions import IntegrityError, TransactionManagementError
from tortoise.transactions import atomic, in_transaction

from postlude import DeferScope, UncommittedError, defer
from postlude.transactions import tortoise as gates

gates.install()

LATE = """
    CREATE TABLE items (id INTEGER PRIMARY KEY);
    CREATE TABLE lines (item INTEGER REFERENCES items (id)
        DEFERRABLE INITIALLY DEFERRED);
"""
"""Tables whose constraint is looked at upon COMMIT, and fails it."""
pytestmark = pytest.mark.usefixtures("db")


@pytest.fixture
def ran():
    """What ran, in order."""
    return []


async def names():
    """Give the names of all orders."""
    return sorted(await Order.all().values_list("name", flat=True))


async def test_a_call_runs_after_the_commit(ran):
    """Not before it, and it sees what was committed (B3)."""

    async def mail():
        ran.append(await names())

    async with DeferScope():
        async with in_transaction():
            await Order.create(name="a")
            defer(mail)
            await asyncio.sleep(0)
        assert ran == []
    assert ran == [["a"]]


async def test_a_call_is_outside_of_the_transaction(ran, blockbuster):
    """What it writes is committed, whatever became of the block (S9, D4)."""
    blockbuster.deactivate()  # asyncpg looks for files when it connects

    written = asyncio.Event()

    async def write(name):
        await Order.create(name=name)
        if name == "block":
            written.set()

    async with DeferScope():
        async with in_transaction() as connection:
            defer(write, "after the commit")
            await connection.commit()
            defer(write, "after the end")
        with suppress(ValueError):
            async with in_transaction():
                async with DeferScope():
                    defer(write, "block").always()
                defer(lambda: write("always")).always()
                raise ValueError
    await asyncio.wait_for(written.wait(), 10)
    assert await names() == ["after the commit", "after the end", "always", "block"]


async def test_a_rollback_drops(ran, async_database):
    """By an exception, with the connection in the record (C2, A4)."""
    async with DeferScope():
        with suppress(ValueError):
            async with in_transaction():
                await Order.create(name="a")
                call = defer(ran.append, "no")
                defer(ran.append, "at once").after_commit(False)
                defer(ran.append, "always").always()
                raise ValueError
        defer(ran.append, "after")
    assert ran == ["at once", "always", "after"]
    assert (call.reason, call.rolled_back) == ("rollback", async_database.kind)
    assert await names() == []


async def test_the_decorator(ran):
    """`@atomic()` is the same (B3, C2)."""

    @atomic()
    async def work(fails):
        defer(ran.append, fails)
        if fails:
            raise ValueError

    async with DeferScope():
        await work(fails=False)
        with suppress(ValueError):
            await work(fails=True)
    assert ran == [False]


async def test_nested_blocks_are_savepoints(ran):
    """A rolled back one drops its own calls, a released one hands them out (AC5)."""
    async with DeferScope(), in_transaction():
        defer(ran.append, "outer")
        with suppress(ValueError):
            async with in_transaction():
                await Order.create(name="a")
                defer(ran.append, "no")
                async with in_transaction():
                    await Order.create(name="b")
                    defer(ran.append, "released into what is rolled back")
                raise ValueError
        async with in_transaction():
            await Order.create(name="c")
            inner = defer(ran.append, "inner")
        assert inner.state == "pending"
    assert ran == ["outer", "inner"]
    assert await names() == ["c"]


async def test_a_released_block_goes_with_the_transaction(ran):
    """What is around it decides (C2, A3)."""
    async with DeferScope():
        with suppress(ValueError):
            async with in_transaction():
                async with in_transaction():
                    defer(ran.append, "no")
                raise ValueError
    assert ran == []


async def test_commit_and_rollback_inside_the_block(ran):
    """They count at once, and what comes after is no transaction (C2)."""
    async with DeferScope():
        async with in_transaction() as connection:
            await Order.create(name="a")
            defer(ran.append, "kept")
            await connection.commit()
            defer(ran.append, "after")
        async with in_transaction() as connection:
            await Order.create(name="b")
            defer(ran.append, "dropped")
            await connection.rollback()
            with suppress(TransactionManagementError):
                await connection.rollback()
    assert ran == ["kept", "after"]
    assert await names() == ["a"]


async def test_a_nested_rollback_by_hand_drops_what_the_database_lost(ran):
    """The savepoint with asyncpg, with SQLite all that is around it (C2)."""
    async with DeferScope(), in_transaction():
        await Order.create(name="a")
        defer(ran.append, "outer")
        async with in_transaction() as nested:
            await Order.create(name="b")
            defer(ran.append, "nested")
            await nested.rollback()
    assert [len(ran), 0] == [len(await names()), ran.count("nested")]


async def test_a_nested_commit_by_hand(ran):
    """It keeps what the database kept (C2)."""
    async with DeferScope():
        with suppress(ValueError):
            async with in_transaction():
                await Order.create(name="a")
                async with in_transaction() as nested:
                    await Order.create(name="b")
                    defer(ran.append, "nested")
                    await nested.commit()
                raise ValueError
    assert bool(ran) == ("b" in await names())


async def test_a_commit_that_fails_drops(ran, async_database):
    """It takes the path of a rollback (S10)."""
    async with in_transaction() as connection:
        for statement in LATE.strip().removesuffix(";").split(";"):
            await connection.execute_script(statement)

    @atomic()
    async def write():
        connection = Tortoise.get_connection(async_database.kind)
        await connection.execute_query("INSERT INTO lines VALUES (7)")
        calls.append(defer(ran.append, "no"))

    calls = []
    async with DeferScope():
        with pytest.raises(Exception, match=r"(?i)foreign key"):
            await write()
    assert [call.reason for call in calls] == ["rollback"]


async def test_an_error_of_the_database_drops(ran):
    """An IntegrityError is an exception as any other (C2)."""
    async with DeferScope():
        with suppress(IntegrityError):
            async with in_transaction():
                await Order.create(name="a")
                defer(ran.append, "no")
                await Order.create(name="a")
    assert ran == []


async def test_reading_only(ran):
    """A block that read is committed as well (C2)."""
    async with DeferScope(), in_transaction():
        await names()
        defer(ran.append, "yes")
    assert ran == ["yes"]


async def test_two_units_one_after_another(ran):
    """The end of one says nothing of the other (B3)."""
    async with DeferScope():
        with suppress(ValueError):
            async with in_transaction():
                defer(ran.append, "first")
                raise ValueError
    async with DeferScope(), in_transaction():
        defer(ran.append, "second")
    assert ran == ["second"]


async def test_a_commit_after_the_units_end(ran):
    """Response first, commit second (B3)."""
    done = asyncio.Event()

    async def late():
        done.set()

    async with in_transaction():
        async with DeferScope():
            await Order.create(name="a")
            call = defer(late)
        assert call.state == "pending"
    await asyncio.wait_for(done.wait(), 10)


async def test_tasks_have_a_transaction_each(ran):
    """What another task rolls back is of no matter here (B3)."""
    deferred = asyncio.Event()

    async def bad():
        with suppress(ValueError):
            async with in_transaction():
                defer(ran.append, "bad")
                deferred.set()
                raise ValueError

    async def good():
        await deferred.wait()
        async with in_transaction():
            await Order.create(name="a")
            defer(ran.append, "good")

    async with DeferScope():
        await asyncio.gather(bad(), good())
    assert ran == ["good"]


async def test_a_cancelled_task_drops(ran):
    """Its transaction is rolled back (B5, C2)."""
    began = asyncio.Event()

    async def work():
        async with in_transaction():
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


async def test_a_call_that_leaves_its_own_writes_uncommitted_fails(logged):
    """Never silently lost in a finished transaction (S9)."""
    blocks = []

    async def work():
        blocks.append(in_transaction())
        await blocks[0].__aenter__()
        await Order.create(name="a")

    async with DeferScope():
        call = defer(work)
    assert isinstance(call.exception, UncommittedError)
    with suppress(ValueError):  # it was entered in a context of its own
        await blocks[0].__aexit__(ValueError, ValueError(), None)


async def test_install_twice():
    """A second time changes nothing (A12)."""
    before = SqliteTransactionWrapper.commit
    gates.install()
    assert SqliteTransactionWrapper.commit is before
