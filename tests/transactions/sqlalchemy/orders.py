"""The table that the tests write to, and engines for it."""

import os
from contextlib import contextmanager

from sqlalchemy import ForeignKey, String, create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

TREES = int(os.environ.get("TEST_TREES", "200"))
"""How many random trees are tried; the variable is for a long run."""


class Base(DeclarativeBase):
    """What the tables of the tests have in common."""


class Order(Base):
    """An order; its name is its own."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40), unique=True)
    item: Mapped[int | None] = mapped_column(ForeignKey("orders.id"))


@contextmanager
def make_engine(database, **options):
    """Make an engine of a database with an empty table of orders."""
    engine = create_engine(database.url, **options)
    begin_for_real(engine)
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


def begin_for_real(engine):
    """Have SQLite's driver begin where SQLAlchemy does; by itself it waits for DML.

    The recipe of SQLAlchemy's documentation: savepoints depend on it.
    """
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def connect(connection, _record):
            connection.isolation_level = None
            connection.execute("PRAGMA foreign_keys = ON")

        @event.listens_for(engine, "begin")
        def begin(connection):
            connection.exec_driver_sql("BEGIN")


class BoomError(Exception):
    """What a test raises."""


def call():
    """Stand for a call."""
