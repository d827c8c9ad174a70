"""D4: what a call holds of other ORMs and of drivers, with the fix."""

import asyncpg
import asyncpg.cursor
import peewee
import psycopg
import pytest
from asyncpg.pool import PoolConnectionProxy
from pony import orm
from psycopg import pq
from tortoise import Tortoise, fields
from tortoise.models import Model
from tortoise.transactions import in_transaction

CONNECTION = "holds a database connection, or what reads from one (its argument `it`)"
FIX = "Take a connection in the call, or pass what was read from it."
pony = orm.Database("sqlite", ":memory:")


class Ticket(pony.Entity):
    """An entity of Pony's."""

    title = orm.Required(str)


class Seat(pony.Entity):
    """An entity whose key has two parts."""

    row = orm.Required(int)
    number = orm.Required(int)
    orm.PrimaryKey(row, number)


pony.generate_mapping(create_tables=True)


class Note(Model):
    """A model of Tortoise's."""

    id = fields.IntField(primary_key=True)


def take(it):
    """Take something."""


def test_pony(warned):
    """An entity warns with the names of its key, loaded or not, and stays so (D4)."""
    with orm.db_session:
        ticket = Ticket(title="a")
        seat = Seat(row=1, number=2)
        orm.flush()
        (message,) = warned(take, ticket)
        assert "holds an instance of Ticket of a Pony db_session" in message
        assert message.endswith("Pass it.id and load it again in the call.")
        (message,) = warned(take, seat)
        assert "Pass (it.row, it.number) and load it" in message
        orm.rollback()
        assert warned(take, pony) == []


def test_peewee(warned):
    """An instance is plain data; its database serves every thread (D4)."""

    class Page(peewee.Model):
        class Meta:
            database = peewee.SqliteDatabase(":memory:")

    assert warned(take, Page()) == []
    assert warned(take, Page._meta.database) == []


async def test_tortoise(warned):
    """The connection of a transaction warns, an instance is plain data (D4)."""
    await Tortoise.init(db_url="sqlite://:memory:", modules={"models": [__name__]})
    try:
        await Tortoise.generate_schemas()
        async with in_transaction() as connection:
            note = await Note.create(using_db=connection)
            (message,) = warned(take, connection)
            assert CONNECTION in message
        assert warned(take, note) == []
    finally:
        await Tortoise.close_connections()


@pytest.fixture
def nowhere():
    """Connections of psycopg's that have not been made yet: no server is needed."""
    connections = []

    def nowhere(kind):
        connections.append(kind(pq.PGconn.connect_start(b"host=/nowhere")))
        return connections[-1]

    yield nowhere
    for connection in connections:
        connection.pgconn.finish()


@pytest.mark.parametrize("kind", [psycopg.Connection, psycopg.AsyncConnection])
def test_psycopg(kind, nowhere, warned):
    """Connections and their cursors (D4)."""
    connection = nowhere(kind)
    (message,) = warned(take, connection)
    assert CONNECTION in message
    assert message.endswith(FIX)
    cursor = connection.cursor_factory(connection)
    assert CONNECTION in warned(take, cursor)[0]


class Server:
    """What a proxy of asyncpg's pool needs of a connection."""

    def _set_proxy(self, proxy):
        """Take the proxy."""


def test_asyncpg(warned):
    """A connection, the proxy that a pool gives for one, and a cursor (D4)."""
    connection = object.__new__(asyncpg.Connection)
    connection._aborted = True  # what its finaliser looks at
    proxy = PoolConnectionProxy(None, Server())
    assert CONNECTION in warned(take, proxy)[0]
    assert CONNECTION in warned(take, connection)[0]
    cursor = object.__new__(asyncpg.cursor.Cursor)
    cursor._state = None  # as above
    assert CONNECTION in warned(take, cursor)[0]
