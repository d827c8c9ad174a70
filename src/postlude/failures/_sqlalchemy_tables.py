"""The tables of a failure store in any database, and the statements that differ."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from postlude.exceptions import StoreError
from postlude.failures import _schema
from postlude.failures._schema import LENGTHS

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.types import TypeEngine

_MYSQL = ("mysql", "mariadb")
_PATIENCE = 30
"""Seconds to wait for another process that makes the tables."""
_LOCK = 0x706F73746C756465
"""Of PostgreSQL's advisory locks: "postlude" in ASCII."""
_metadata = MetaData()


def _short(name: str) -> TypeEngine[str]:
    """Give a text that may be a key: compared exactly, as MySQL does not by itself."""
    length = LENGTHS[name]
    exact = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return String(length).with_variant(exact, *_MYSQL)


def _long() -> TypeEngine[str]:
    # MySQL's TEXT ends at 64 KiB.
    return Text().with_variant(mysql.MEDIUMTEXT(charset="utf8mb4"), *_MYSQL)


def _table(name: str, *columns: Column[Any]) -> Table:
    return Table(
        name,
        _metadata,
        *columns,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mariadb_engine="InnoDB",
        mariadb_charset="utf8mb4",
    )


FAILURES = _table(
    _schema.FAILURES,
    Column("id", _short("id"), primary_key=True),
    Column("name", _short("name"), nullable=False),
    Column("function", _short("function"), nullable=False),
    Column("arguments", _long(), nullable=False),
    Column("state", _short("state"), nullable=False),
    Column("unit", _long(), nullable=False),
    Column("site", _long(), nullable=False),
    Column("exception", _long()),
    Column("traceback", _long()),
    Column("started", Double),
    Column("ended", Double, nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("hint", _long()),
    Column("payload", _long()),
    Column("refusal", _long()),
    Column("host", _short("host"), nullable=False),
    Column("pid", BigInteger, nullable=False),
)
TALLIES = _table(
    _schema.TALLIES,
    Column("minute", BigInteger, primary_key=True, autoincrement=False),
    *(
        Column(name, _short(name), primary_key=True)
        for name in ("kind", "function", "route", "label")
    ),
    Column("count", BigInteger, nullable=False),
    Column("total", Double, nullable=False),
)
PROCESSES = _table(
    _schema.PROCESSES,
    Column("id", _short("id"), primary_key=True),
    Column("host", _short("host"), nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("began", Double, nullable=False),
    Column("seen", Double, nullable=False),
    Column("pending", BigInteger, nullable=False),
    Column("running", _long(), nullable=False),
    Column("limits", _long(), nullable=False),
)
META = _table(
    _schema.META,
    Column("key", _short("label"), primary_key=True),
    Column("value", _short("label"), nullable=False),
)
_MIGRATIONS: dict[int, Callable[[Connection], object]] = {0: _metadata.create_all}
"""What leads from each version to the next."""


# -- the statements ---------------------------------------------------------------


def put(database: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows; those that are there already are replaced."""
    _upsert(database, table, rows, added=())


def add(database: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Write numbers; what is there already is added to."""
    _upsert(database, TALLIES, rows, added=("count", "total"))


def _upsert(
    database: Connection,
    table: Table,
    rows: Sequence[dict[str, Any]],
    added: tuple[str, ...],
) -> None:
    if not rows:
        return
    dialect = database.dialect.name
    keys = [column.name for column in table.primary_key]
    others = [column for column in table.columns if column.name not in keys]
    if dialect in _MYSQL:
        into = mysql.insert(table)
        new = _sums(others, into.inserted, added)
        database.execute(into.on_duplicate_key_update(new), rows)
    elif dialect in {"postgresql", "sqlite"}:
        make = postgresql.insert if dialect == "postgresql" else sqlite.insert
        conflicting = make(table)
        new = _sums(others, conflicting.excluded, added)
        database.execute(
            conflicting.on_conflict_do_update(index_elements=keys, set_=new), rows
        )
    else:
        for row in rows:
            _put_one(database, table, row, added)


def _sums(
    columns: Sequence[Column[Any]], new: Any, added: tuple[str, ...]
) -> dict[str, Any]:
    return {
        column.name: column + new[column.name]
        if column.name in added
        else new[column.name]
        for column in columns
    }


def _put_one(
    database: Connection, table: Table, row: dict[str, Any], added: tuple[str, ...]
) -> None:
    """Write a row where SQLAlchemy knows no upsert.

    Two processes that make the same row at once: one has an error, and tries again.
    """
    keys = {column.name for column in table.primary_key}
    this = [table.c[name] == row[name] for name in keys]
    new = {
        name: table.c[name] + value if name in added else value
        for name, value in row.items()
        if name not in keys
    }
    if database.execute(update(table).where(*this).values(new)).rowcount == 0:
        database.execute(insert(table).values(row))


def roll_up(database: Connection, fine: int) -> None:
    """Put the numbers of the minutes before *fine* together by the hour."""
    minute = TALLIES.c.minute
    old = (minute < fine) & (minute % _schema.HOUR != 0)
    # Locked: another process that does the same waits here, and finds nothing then.
    found = database.execute(select(TALLIES).where(old).with_for_update()).all()
    hours = _schema.by_hour(row._asdict() for row in found)
    if not hours:
        return
    database.execute(delete(TALLIES).where(old))
    add(database, hours)


# -- making and migrating -----------------------------------------------------------


def migrate(engine: Engine, shown: str) -> None:
    """Bring the tables to this version; several processes may do so at once.

    Raises:
        StoreError: a newer version of Postlude made them.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            if _version(engine) == _schema.VERSION:
                return
            with engine.connect() as database:
                _lock(database)
                try:
                    _step_by_step(engine, database, shown)
                finally:
                    _unlock(database)
            return
        except DBAPIError:
            # Another process was quicker, in a database that has no locks for this.
            if time.monotonic() > deadline or not _is_made(engine):
                raise
            time.sleep(0.1)


def _step_by_step(engine: Engine, database: Connection, shown: str) -> None:
    version = _version(engine)  # again: another process may have been quicker
    if version > _schema.VERSION:
        raise StoreError(_schema.newer(shown, version))
    while version < _schema.VERSION:
        _MIGRATIONS[version](database)
        version += 1
    put(database, META, [{"key": "version", "value": str(version)}])
    database.commit()


def _is_made(engine: Engine) -> bool:
    return inspect(engine).has_table(_schema.META)


def _version(engine: Engine) -> int:
    if not _is_made(engine):
        return 0
    query = select(META.c.value).where(META.c.key == "version")
    with engine.connect() as database:
        row = database.execute(query).one_or_none()
    return _schema.version(row)


def _lock(database: Connection) -> None:
    """Keep other processes from making tables, where the database has a lock for it."""
    if database.dialect.name == "postgresql":  # until the transaction ends
        database.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    elif database.dialect.name in _MYSQL:  # until it is given back
        query = text("SELECT GET_LOCK(CONCAT('postlude:', LEFT(DATABASE(), 50)), :s)")
        database.execute(query, {"s": _PATIENCE})


def _unlock(database: Connection) -> None:
    if database.dialect.name in _MYSQL:
        query = "SELECT RELEASE_LOCK(CONCAT('postlude:', LEFT(DATABASE(), 50)))"
        database.execute(text(query))
