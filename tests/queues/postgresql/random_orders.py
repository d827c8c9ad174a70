"""Random transactions with savepoints, and how each library runs them."""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple, Self

import psycopg
from django.db import connections, transaction
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from postlude import defer

# Its project is that of the integration's tests: Django is set up once per process.
sys.path.insert(0, str(Path(__file__).parents[2] / "integrations/django/probes"))

import in_process

TABLE = "create table orders (name text primary key)"
INSERT = "insert into orders (name) values ("
delivered: list[str] = []


def deliver(name: str) -> None:
    """What is deferred for each order."""
    delivered.append(name)


def promise(name: str) -> None:
    """Defer it so that it survives."""
    defer(deliver, name).named(name).retry(1).durable()


class NoError(Exception):
    """What leaves a block that is to be rolled back."""


class Block(NamedTuple):
    """A transaction, or a savepoint in one."""

    steps: "list[str | Block]"
    keep: bool

    @classmethod
    def random(cls, dice: random.Random, numbers: Iterator[int], depth: int) -> Self:
        """Make one: some orders, and down to three savepoints in each other."""
        steps: list[str | Block] = []
        for _ in range(dice.randrange(1, 4)):
            if depth and dice.random() < 0.4:
                steps.append(cls.random(dice, numbers, depth - 1))
            else:
                steps.append(f"order-{next(numbers)}")
        return cls(steps, dice.random() < 0.6)


def blocks(many: int, seed: int) -> list[Block]:
    """Make that many transactions."""
    dice, numbers = random.Random(seed), count()  # noqa: S311 - no secret
    return [Block.random(dice, numbers, 3) for _ in range(many)]


# -- each library -------------------------------------------------------------


async def with_psycopg(address: str, plan: list[Block]) -> None:
    """Use a connection of psycopg's itself."""

    def run(connection: psycopg.Connection, block: Block) -> None:
        with suppress(NoError), connection.transaction():
            for step in block.steps:
                if isinstance(step, Block):
                    run(connection, step)
                else:
                    connection.execute(f"{INSERT}%s)", [step])
                    promise(step)
            if not block.keep:
                raise NoError

    with psycopg.connect(address) as connection:
        for block in plan:
            run(connection, block)


async def with_sqlalchemy(address: str, plan: list[Block]) -> None:
    """Use a session."""

    def run(session: Session, block: Block) -> None:
        for step in block.steps:
            if isinstance(step, Block):
                with suppress(NoError), session.begin_nested():
                    run(session, step)
            else:
                session.execute(text(f"{INSERT}:name)"), {"name": step})
                promise(step)
        if not block.keep:
            raise NoError

    engine = create_engine(address.replace("postgresql:", "postgresql+psycopg:", 1))
    for block in plan:
        with suppress(NoError), Session(engine) as session, session.begin():
            run(session, block)
    engine.dispose()


async def with_sqlalchemy_async(address: str, plan: list[Block]) -> None:
    """Use a session of asyncio, on asyncpg."""

    async def run(session: AsyncSession, block: Block) -> None:
        for step in block.steps:
            if isinstance(step, Block):
                with suppress(NoError):
                    async with session.begin_nested():
                        await run(session, step)
            else:
                await session.execute(text(f"{INSERT}:name)"), {"name": step})
                promise(step)
        if not block.keep:
            raise NoError

    engine = create_async_engine(
        address.replace("postgresql:", "postgresql+asyncpg:", 1)
    )
    for block in plan:
        with suppress(NoError):
            async with AsyncSession(engine) as session, session.begin():
                await run(session, block)
    await engine.dispose()


async def with_django(address: str, plan: list[Block]) -> None:
    """Use Django's blocks."""

    def all_of_them() -> None:
        with known_to_django(address) as alias:
            for block in plan:
                run_in_django(alias, block)

    await to_thread(all_of_them)


def run_in_django(alias: str, block: Block) -> None:
    """Run one block."""
    with suppress(NoError), transaction.atomic(using=alias):
        for step in block.steps:
            if isinstance(step, Block):
                run_in_django(alias, step)
            else:
                with connections[alias].cursor() as cursor:
                    cursor.execute(f"{INSERT}%s)", [step])
                promise(step)
        if not block.keep:
            raise NoError


async def to_thread(work) -> None:
    """Run what blocks where Django allows it, in the context of this place."""
    import asyncio  # noqa: PLC0415 - only here

    await asyncio.to_thread(work)


@contextmanager
def known_to_django(address: str) -> Iterator[str]:
    """Make a database known to Django under an alias of its own."""
    from postlude.transactions import django as gates  # noqa: PLC0415 - after configure

    in_process.configure()
    gates.install()
    known = psycopg.conninfo.conninfo_to_dict(address)
    alias = known["dbname"]
    options = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": alias,
        "HOST": known["host"],
        "PORT": known["port"],
        "USER": known["user"],
        "PASSWORD": known.get("password", ""),
    }
    values = connections.configure_settings({"default": {}, alias: options})
    connections.settings[alias] = values[alias]
    try:
        yield alias
    finally:
        connections[alias].close()
        del connections[alias]
        del connections.settings[alias]


LIBRARIES = {
    "psycopg": with_psycopg,
    "sqlalchemy": with_sqlalchemy,
    "sqlalchemy_async": with_sqlalchemy_async,
    "django": with_django,
}
