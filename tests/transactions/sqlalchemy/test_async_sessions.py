"""B3 and C2 with AsyncSession, on asyncio and uvloop, aiosqlite and asyncpg."""

import asyncio
import gc
from contextlib import suppress

import pytest
from orders import BoomError, Order
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
)

from postlude import DeferScope, UncommittedError, defer


async def call():
    """Stand for a call."""


async def names(engine):
    """Give the names of the orders that others see."""
    async with engine.connect() as connection:
        return sorted(await connection.scalars(select(Order.name)))


async def test_it_runs_after_the_commit(async_engine):
    """Not before, and then what was written is there for others (A2, B3)."""
    seen = []

    async def look():
        seen.append(await names(async_engine))

    async with DeferScope(), AsyncSession(async_engine) as session:
        session.add(Order(name="a"))
        early = defer(look)
        await session.flush()
        late = defer(look)
        await session.commit()
        assert [early.state, late.state] == ["pending", "pending"]
    assert seen == [["a"], ["a"]]


@pytest.mark.parametrize("end", ["rollback", "close"])
@pytest.mark.parametrize("wrote", [True, False])
async def test_rollback_and_close(async_engine, end, wrote):
    """A rollback drops; so does a close, if something is lost with it (A4, C2)."""
    async with DeferScope(), AsyncSession(async_engine) as session:
        if wrote:
            session.add(Order(name="a"))
            await session.flush()
        else:
            await session.scalars(select(Order))
        deferred = defer(call)
        await getattr(session, end)()
    dropped = wrote or end == "rollback"
    assert deferred.state == ("dropped" if dropped else "done")


async def test_a_call_may_wait_for_long_after_its_unit(async_engine):
    """Response first, commit second: it runs on this loop (B3)."""
    ran = asyncio.Event()

    async def set_it():
        ran.set()

    async with AsyncSession(async_engine) as session:
        async with DeferScope():
            session.add(Order(name="a"))
            deferred = defer(set_it)
        assert deferred.state == "pending"
        await session.commit()
        await ran.wait()


async def test_savepoints(async_engine):
    """A rolled back one drops its own; a released one hands them out (AC5, A3, C2)."""
    async with DeferScope(), AsyncSession(async_engine) as session:
        session.add(Order(name="a"))
        outer = defer(call)
        with suppress(BoomError):
            async with session.begin_nested():
                session.add(Order(name="b"))
                await session.flush()
                lost = defer(call)
                raise BoomError
        async with session.begin_nested():
            session.add(Order(name="c"))
            kept = defer(call)
        assert kept.state == "pending"
        await session.commit()
    assert [outer.state, lost.reason, kept.state] == ["done", "rollback", "done"]
    assert await names(async_engine) == ["a", "c"]


@pytest.mark.parametrize("error", [True, False])
async def test_blocks(async_engine, error):
    """`async_sessionmaker.begin()` and `session.begin()` end as their block does."""
    make = async_sessionmaker(async_engine)
    async with DeferScope():
        with suppress(BoomError):
            async with make.begin() as session:
                session.add(Order(name="a"))
                first = defer(call)
                if error:
                    raise BoomError
        with suppress(BoomError):
            async with make() as session, session.begin():
                await session.scalars(select(Order))
                second = defer(call)
                if error:
                    raise BoomError
    assert {first.state, second.state} == ({"dropped"} if error else {"done"})


async def test_a_scoped_session(async_engine):
    """As any session; `remove()` closes it."""
    make = async_sessionmaker(async_engine)
    session = async_scoped_session(make, asyncio.current_task)
    async with DeferScope():
        session.add(Order(name="a"))
        kept = defer(call)
        await session.commit()
        session.add(Order(name="b"))
        lost = defer(call)
        await session.remove()
    assert (kept.state, lost.reason) == ("done", "rollback")


async def test_an_error_at_the_commit(async_engine):
    """It takes the rollback path (S10)."""
    async with DeferScope(), AsyncSession(async_engine) as session:
        session.add_all([Order(name="a"), Order(name="a")])
        deferred = defer(call)
        with pytest.raises(IntegrityError):
            await session.commit()
    assert deferred.reason == "rollback"


async def test_a_transaction_that_an_error_has_undone(async_engine):
    """PostgreSQL answers its COMMIT with a rollback, and asyncpg says nothing (S10)."""
    async with DeferScope(), AsyncSession(async_engine) as session:
        session.add(Order(name="a"))
        early = defer(call)
        await session.flush()
        with suppress(DBAPIError):
            await session.execute(text("SELECT nothing FROM nowhere"))
        late = defer(call)
        await session.commit()
    undone = async_engine.dialect.name == "postgresql"
    assert await names(async_engine) == ([] if undone else ["a"])
    assert {early.state, late.state} == ({"dropped"} if undone else {"done"})


async def test_an_error_of_the_driver_undoes_nothing(async_engine):
    """Not every error has come from the server, and the commit is one (S10)."""
    async with DeferScope(), AsyncSession(async_engine) as session:
        session.add(Order(name="a"))
        await session.flush()
        with pytest.raises(DBAPIError):  # neither driver can send an object
            await session.execute(select(Order).where(Order.name == object()))
        deferred = defer(call)
        await session.commit()
    assert await names(async_engine) == ["a"]
    assert deferred.state == "done"


async def test_connections(async_engine):
    """`AsyncConnection`, its blocks, its savepoints, and commit as you go."""
    async with DeferScope():
        async with async_engine.begin() as connection:
            await connection.execute(insert(Order).values(name="a"))
            kept = defer(call)
            with suppress(BoomError):
                async with connection.begin_nested():
                    lost = defer(call)
                    raise BoomError
        async with async_engine.connect() as connection:
            await connection.execute(insert(Order).values(name="b"))
            committed = defer(call)
            await connection.commit()
            await connection.execute(insert(Order).values(name="c"))
            left = defer(call)
    assert [kept.state, lost.reason] == ["done", "rollback"]
    assert [committed.state, left.reason] == ["done", "rollback"]


async def test_a_call_that_does_not_commit_fails(async_engine, logged):
    """It reused the request's session, added, and left it at that (S9)."""

    async def work():
        session.add(Order(name="a"))

    async with AsyncSession(async_engine) as session:
        async with DeferScope():
            await session.scalars(select(Order))
            deferred = defer(work)
            await session.commit()
        assert isinstance(deferred.exception, UncommittedError)


async def test_a_call_that_commits_is_fine(async_engine):
    """What it wrote is there (S9)."""

    async def work():
        async with AsyncSession(async_engine) as session, session.begin():
            session.add(Order(name="a"))

    async with DeferScope():
        deferred = defer(work)
    assert deferred.state == "done"
    assert await names(async_engine) == ["a"]


# -- side by side -------------------------------------------------------------


async def test_tasks_side_by_side(async_engine):
    """Two tasks of a unit with a session each do not wait for each other (B3)."""
    began, over = asyncio.Event(), asyncio.Event()

    async def bad():
        async with AsyncSession(async_engine) as session:
            await session.connection()
            began.set()
            await over.wait()
            lost = defer(call)
            await session.rollback()
            return lost

    async def good():
        await began.wait()
        async with AsyncSession(async_engine) as session:
            session.add(Order(name="a"))
            kept = defer(call)
            await session.commit()
        over.set()
        return kept

    async with DeferScope():
        lost, kept = await asyncio.gather(bad(), good())
    assert (lost.reason, kept.state) == ("rollback", "done")


async def test_requests_side_by_side(async_engine):
    """Six units, each with its session, each with its own end."""
    ready = asyncio.Barrier(6)

    async def request(number):
        async with DeferScope(), AsyncSession(async_engine) as session:
            await session.scalars(select(Order))
            deferred = defer(call)
            await ready.wait()
            await (session.rollback() if number % 2 else session.commit())
        return deferred.state

    states = await asyncio.gather(*map(request, range(6)))
    assert states == ["done", "dropped"] * 3


async def test_a_request_that_is_cancelled(async_engine):
    """Its session is closed on the way out, and what it wrote goes (C2)."""
    inside = asyncio.Event()
    calls = []

    async def request():
        async with DeferScope(), AsyncSession(async_engine) as session:
            session.add(Order(name="a"))
            calls.append(defer(call).always())
            calls.append(defer(call))
            await session.flush()
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(request())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert calls[0].outcome.committed is False
    assert calls[1].state == "dropped"


async def test_a_session_that_is_given_up(async_engine, drained):
    """Collected without `close()`, before it had a connection (C2)."""

    def work():
        session = AsyncSession(async_engine)
        session.add(Order(name="a"))
        return defer(call)

    async with DeferScope():
        deferred = work()
        gc.collect()
    assert deferred.reason == "rollback"


async def test_a_session_that_another_task_began(async_engine):
    """What its connection begins here is around this task, whoever began it (B3)."""
    async with DeferScope(), AsyncSession(async_engine) as session:
        begun, over = asyncio.Event(), asyncio.Event()

        async def begin():
            session.sync_session.begin()
            begun.set()
            await over.wait()

        task = asyncio.create_task(begin())
        await begun.wait()
        session.add(Order(name="a"))
        await session.flush()
        deferred = defer(call)
        await session.rollback()
        over.set()
        await task
    assert deferred.reason == "rollback"
