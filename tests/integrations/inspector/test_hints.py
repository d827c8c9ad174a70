"""E1: a call that fails on what ended with its request has a hint, where it is told."""

import asyncio
import io
import sqlite3
import tempfile
import threading

import asyncpg
import pytest
from asyncpg.pool import PoolConnectionProxy
from django.core.exceptions import SynchronousOnlyOperation
from django.db import utils as django_errors
from django.utils.asyncio import async_unsafe
from flask import request as flask_request
from pony import orm
from psycopg import Connection, Cursor, pq
from sqlalchemy import StaticPool, create_engine, event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.util import await_only
from starlette.requests import Request

from postlude import _hints, _reporting


class Base(DeclarativeBase):
    """What the tables of the tests have in common."""


class Order(Base):
    """An order."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


pony = orm.Database("sqlite", ":memory:")


class Ticket(pony.Entity):
    """An entity of Pony's."""

    title = orm.Required(str)
    text = orm.Optional(orm.LongStr)


pony.generate_mapping(create_tables=True)


@pytest.fixture
def engine():
    """An engine with a table of orders."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


def ordered(session):
    """Store an order."""
    order = Order(name="book")
    session.add(order)
    session.commit()
    return order


# -- SQLAlchemy ------------------------------------------------------------------


def test_a_detached_instance_is_named(engine, told):
    """The hint is the inspector's: the argument and the fix for it (E1)."""
    with Session(engine) as session:
        order = ordered(session)
    assert told(lambda order: order.name, order) == (
        "it holds an instance of Order of a SQLAlchemy session (its argument `order`). "
        "Pass order.id and load it again in the call."
    )


def test_an_instance_that_loads_lazily_under_asyncio(told):
    """What SQLAlchemy does first when an instance is loaded outside a session (E1)."""
    assert told(lambda: await_only(asyncio.sleep(0))) == _hints._EAGER


def closed_session(engine):
    """Use a session that cannot be used again."""
    session = Session(engine, close_resets_only=False)
    session.close()
    session.execute(text("SELECT 1"))


def rolled_back(engine):
    """Use a session after its flush failed."""
    with Session(engine) as session:
        session.add(Order())
        with pytest.raises(IntegrityError):
            session.flush()
        session.execute(text("SELECT 1"))


def committed(engine):
    """Use a session while it commits."""
    with Session(engine) as session:
        event.listen(session, "after_commit", lambda s: s.execute(text("SELECT 1")))
        ordered(session)


def busy(engine):
    """Use a session while another is about to use it."""
    with Session(engine) as session:

        def use(_connection):
            event.remove(engine, "begin", use)
            session.execute(text("SELECT 1"))

        event.listen(engine, "begin", use)
        session.execute(text("SELECT 1"))


def closed_meanwhile(engine):
    """Close a session that another is about to use."""
    with Session(engine) as session:
        event.listen(session, "after_begin", lambda s, *_: s.close())
        session.execute(text("SELECT 1"))


def closed_connection(engine):
    """Use a closed connection."""
    with engine.connect() as connection:
        pass
    connection.execute(text("SELECT 1"))


def closed_result(engine):
    """Read from a result that was closed."""
    with engine.connect() as connection:
        result = connection.execute(text("SELECT 1"))
        result.close()
        result.all()


def closed_transaction(engine):
    """Use a session in the block of a transaction that is over."""
    with Session(engine) as session, session.begin():
        session.commit()
        session.execute(text("SELECT 1"))


@pytest.mark.parametrize(
    "fail",
    [
        closed_session,
        rolled_back,
        committed,
        busy,
        closed_meanwhile,
        closed_connection,
        closed_result,
        closed_transaction,
    ],
)
def test_a_session_or_connection_that_is_over(fail, engine, told):
    """Closed, committed, rolled back, or in use elsewhere (E1)."""
    assert told(lambda: fail(engine)) == _hints._SESSION


def test_an_instance_of_another_session(engine, told):
    """Added to a second session, or refreshed where nobody knows it (E1)."""

    def add(engine):
        with Session(engine) as one, Session(engine) as other:
            other.add(ordered(one))

    def refresh(engine):
        with Session(engine) as one, Session(engine) as other:
            other.refresh(ordered(one))

    assert told(lambda: add(engine)) == _hints._INSTANCE
    _reporting._store = None
    assert told(lambda: refresh(engine)) == _hints._INSTANCE


# -- drivers -----------------------------------------------------------------------


def closed_sqlite():
    """Use a closed connection of the standard library's driver."""
    connection = sqlite3.connect(":memory:")
    connection.close()
    connection.execute("SELECT 1")


def sqlite_elsewhere():
    """Use a connection in another thread than its own."""
    connections = []
    make = threading.Thread(
        target=lambda: connections.append(sqlite3.connect(":memory:"))
    )
    make.start()
    make.join()
    connections[0].execute("SELECT 1")


def closed_psycopg():
    """Use a closed connection of psycopg's."""
    connection = Connection(pq.PGconn.connect_start(b"host=/nowhere"))
    connection.close()
    connection.execute("SELECT 1")


def closed_cursor():
    """Use a closed cursor of psycopg's."""
    connection = Connection(pq.PGconn.connect_start(b"host=/nowhere"))
    try:
        cursor = Cursor(connection)
        cursor.close()
        cursor.fetchone()
    finally:
        connection.close()


async def closed_asyncpg():
    """Use a closed connection of asyncpg's."""
    connection = object.__new__(asyncpg.Connection)
    connection._aborted = True
    await connection.fetch("SELECT 1")


class Server:
    """What a proxy of asyncpg's pool needs of a connection."""

    def _set_proxy(self, proxy):
        """Take the proxy."""


async def released_asyncpg():
    """Use a connection that is back in its pool."""
    proxy = PoolConnectionProxy(None, Server())
    proxy._detach()
    await proxy.execute("SELECT 1")


@pytest.mark.parametrize(
    "fail",
    [closed_sqlite, closed_psycopg, closed_cursor, closed_asyncpg, released_asyncpg],
)
def test_a_drivers_connection(fail, told):
    """Drivers say in their own words that a connection is closed or given back (E1)."""
    assert told(fail) == _hints._SESSION


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_connection_of_another_thread(told):
    """sqlite3's connections belong to a thread (E1)."""
    assert told(sqlite_elsewhere) == _hints._SESSION


# -- Django ------------------------------------------------------------------------


@async_unsafe
def ask_the_database():
    """Do what Django guards as it guards its ORM."""


async def ask_on_a_loop():
    """Use the sync ORM in an async call."""
    ask_the_database()


def test_djangos_sync_orm_in_an_async_call(told):
    """A lazy object is loaded by the sync ORM too (E1)."""
    assert told(ask_on_a_loop) == _hints._SYNC_ONLY
    assert issubclass(SynchronousOnlyOperation, Exception)


@pytest.mark.parametrize(
    "error",
    [
        django_errors.InterfaceError("connection already closed"),
        django_errors.OperationalError("the connection is closed"),
        django_errors.ProgrammingError("Cannot operate on a closed database."),
        django_errors.DatabaseError(
            "DatabaseWrapper objects created in a thread can only be used in that same "
            "thread. The object with alias 'default' was created in thread id 1."
        ),
    ],
    ids=repr,
)
def test_djangos_own_errors(error, told):
    """Django wraps what its drivers say: psycopg 2, psycopg 3, sqlite3 (E1)."""

    def fail():
        raise error

    assert told(fail) == _hints._SESSION


# -- Pony --------------------------------------------------------------------------


def test_pony(told, monkeypatch):
    """An entity outside its db_session is named; a query has a hint of its own (E1)."""
    # Where __main__ is no file, as in a worker of pytest-xdist, Pony makes a session.
    monkeypatch.setattr("pony.MODE", "UNKNOWN")
    with orm.db_session:
        ticket = Ticket(title="a", text="b")
        orm.commit()
    with orm.db_session:
        ticket = Ticket[ticket.id]
    assert told(lambda: ticket.text) == (
        "it holds an instance of Ticket of a Pony db_session (`ticket`, which its body "
        "uses). Pass ticket.id and load it again in the call."
    )
    _reporting._store = None
    hidden = [[ticket]]
    assert told(lambda: hidden[0][0].text) == _hints._DB_SESSION
    _reporting._store = None
    assert told(Ticket.get, title="a") == _hints._DB_SESSION


# -- requests, bodies and files ------------------------------------------------------


def test_flasks_request(told):
    """Outside a request its proxy stands for nothing (E1)."""
    assert told(lambda: flask_request.path) == _hints._REQUEST


def test_starlettes_body(told):
    """A body that nobody has read is gone with the client (E1)."""

    async def receive():
        return {"type": "http.disconnect"}

    scope = {"type": "http", "headers": []}
    hint = told(Request(scope, receive).body)
    assert hint == _hints._FILE


def closed_file(make):
    """Make a file and close it."""
    file = make()
    file.close()
    return file


@pytest.mark.parametrize(
    "make", [io.BytesIO, tempfile.SpooledTemporaryFile, tempfile.TemporaryFile]
)
def test_a_closed_file(make, told):
    """Uploads are files that end with their request (E1)."""
    file = closed_file(make)
    assert told(file.read) == _hints._FILE


# -- what has no hint ----------------------------------------------------------------


class Unspeakable(Exception):  # noqa: N818 - it stands for no error in particular
    """Has no text."""

    def __str__(self):
        raise LookupError


def wrapped():
    """Wrap a known error, as drivers' errors are wrapped."""
    try:
        closed_sqlite()
    except sqlite3.Error as error:
        raise LookupError("no order") from error


def handled():
    """Raise something else while a known error is handled."""
    try:
        closed_sqlite()
    except sqlite3.Error:
        raise LookupError("no order") from None


def test_a_cause_counts(told):
    """What an error was raised from tells as much as the error (E1)."""
    assert told(wrapped) == _hints._SESSION


@pytest.mark.parametrize(
    "error",
    [
        ValueError("order is closed"),
        RuntimeError("no request"),
        sqlite3.OperationalError("no such table: orders"),
        django_errors.IntegrityError("UNIQUE constraint failed"),
        Unspeakable(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_other_errors_have_no_hint(error, told):
    """An error of another kind is logged as ever, whatever the call holds (E1)."""

    def fail(request):
        raise error

    assert told(fail, Request({"type": "http", "headers": []})) == ""
    _reporting._store = None
    assert told(handled) == ""


def test_a_chain_of_errors_may_have_a_loop(told):
    """An error that is its own cause ends nothing (E3)."""
    one, other = LookupError("one"), LookupError("other")
    one.__cause__, other.__cause__ = other, one

    def fail():
        raise one

    assert told(fail) == ""
