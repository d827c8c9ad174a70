"""PostgreSQL, MySQL, MariaDB and all that SQLAlchemy 2 reaches.

`postlude.configure(failures="postgresql+psycopg://user@host/name")`, or
`mysql+pymysql://...`. The tables are made by themselves; their names begin with
`postlude_`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from contextvars import Context
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection, create_engine, delete, event, func, or_, select
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError as AddressError
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from postlude.exceptions import SettingsError, StoreError
from postlude.failures import _forks, _schema
from postlude.failures import _sqlalchemy_tables as tables
from postlude.failures._sqlalchemy_tables import FAILURES, PROCESSES, TALLIES
from postlude.failures._store import Batch, ProcessRecord, Tally

if TYPE_CHECKING:
    from postlude.failures._record import FailureRecord

__all__ = ["SQLAlchemyFailureStore"]

_T = TypeVar("_T")
_TRIES = 5
"""Times that a transaction is tried which others were in the way of."""
_CONNECT = 10
"""Seconds to wait for a server."""
_IN_THE_WAY = {"40001", "40P01", 1213, 1205, 1020}
"""What PostgreSQL (SQLSTATE) and MySQL (number) say of deadlocks and their like."""
_FORK = 5.0
"""Seconds that a fork waits for a transaction in a SQLite file."""
_AT_ONCE = 500
"""Ids in one statement."""


class SQLAlchemyFailureStore:
    """Keeps records and numbers in one database. Any thread, any process.

    It has an engine of its own. No deferred call ever waits for its transactions.
    """

    immediate = False

    def __init__(self, url: str | URL) -> None:
        """Name the database; nothing is opened before the first use.

        Raises:
            SettingsError: the address is none, or its driver is missing or async.
        """
        self._engine = _engine(url)
        self._ready = False
        self._lock = Lock()
        self._is_file = self._engine.dialect.name == "sqlite"
        self._has_lock = False
        _forks.take_part(self)

    def __repr__(self) -> str:
        return f"<SQLAlchemyFailureStore {self._shown}>"

    @property
    def _shown(self) -> str:
        """The address without user, password and options, which may hold one."""
        url = self._engine.url
        shown = URL.create(
            url.get_backend_name(), host=url.host, port=url.port, database=url.database
        )
        return shown.render_as_string()

    # -- writing ------------------------------------------------------------

    def write(self, batch: Batch) -> None:
        """Keep all of *batch* in one transaction.

        Raises:
            StoreError: the database cannot be used now, and nothing was kept.
        """
        failures = {record.id: _schema.failure_row(record) for record in batch.failures}
        tallies = _schema.tally_rows(batch.tallies)
        process = [_schema.process_row(batch.process)] if batch.process else []

        def put(database: Connection) -> None:
            tables.put(database, FAILURES, list(failures.values()))
            tables.add(database, tallies)
            tables.put(database, PROCESSES, process)

        self._use(put)

    def forget(self, ids: Iterable[str]) -> int:
        """Take records out; gives how many were there."""
        wanted = sorted({_schema.text(one) for one in ids})

        def take_out(database: Connection) -> int:
            return sum(
                database.execute(
                    delete(FAILURES).where(FAILURES.c.id.in_(wanted[i : i + _AT_ONCE]))
                ).rowcount
                for i in range(0, len(wanted), _AT_ONCE)
            )

        return self._use(take_out)

    def prune(self, *, before: float, keep: int | None = None) -> int:
        """Take out what is older than *before*, and the oldest beyond *keep*."""
        fine = int(time.time() // 60) - _schema.KEPT_FINE

        def take_out(database: Connection) -> int:
            run = database.execute
            gone = run(delete(FAILURES).where(FAILURES.c.ended < before)).rowcount
            if keep is not None:
                gone += _drop_beyond(database, keep)
            run(delete(TALLIES).where(TALLIES.c.minute < before // 60))
            run(delete(PROCESSES).where(PROCESSES.c.seen < before))
            tables.roll_up(database, fine)
            return gone

        return self._use(take_out)

    # -- reading ------------------------------------------------------------

    def list(
        self,
        *,
        limit: int | None = None,
        since: float | None = None,
        name: str | None = None,
        state: str | None = None,
    ) -> Sequence[FailureRecord]:
        """Give records, oldest first; with *limit* the newest so many.

        Raises:
            StoreError: the database cannot be read.
        """
        query = select(FAILURES).order_by(*_NEWEST).limit(limit)
        if since is not None:
            query = query.where(FAILURES.c.ended >= since)
        if name is not None:
            one = _schema.text(name)
            query = query.where(or_(FAILURES.c.name == one, FAILURES.c.function == one))
        if state is not None:
            query = query.where(FAILURES.c.state == _schema.text(state))
        return [_schema.failure(row) for row in reversed(self._rows(query))]

    def find(self, prefix: str) -> Sequence[FailureRecord]:
        """Give the records whose id begins with *prefix*, ten at most."""
        prefix = _schema.text(prefix)
        beginning = func.substr(FAILURES.c.id, 1, len(prefix))
        query = select(FAILURES).order_by(FAILURES.c.ended, FAILURES.c.id).limit(10)
        if prefix:
            query = query.where(beginning == prefix)
        return [_schema.failure(row) for row in self._rows(query)]

    def count(self) -> int:
        """Give the number of records kept."""
        query = select(func.count()).select_from(FAILURES)
        return self._use(lambda database: database.execute(query).scalar_one())

    def tallies(self, since: float) -> Sequence[Tally]:
        """Give the numbers of all minutes from *since* (Unix seconds) on."""
        minute = TALLIES.c.minute
        query = select(TALLIES).where(minute >= since // 60).order_by(minute)
        return [Tally(**row) for row in self._rows(query)]

    def processes(self, since: float) -> Sequence[ProcessRecord]:
        """Give the processes seen from *since* (Unix seconds) on."""
        query = select(PROCESSES).where(PROCESSES.c.seen >= since)
        query = query.order_by(PROCESSES.c.host, PROCESSES.c.pid)
        return [_schema.process(row) for row in self._rows(query)]

    def _rows(self, query: Any) -> Sequence[dict[str, Any]]:
        def read(database: Connection) -> Sequence[dict[str, Any]]:
            return [dict(row) for row in database.execute(query).mappings()]

        return self._use(read)

    # -- the database -------------------------------------------------------

    def close(self) -> None:
        """Let go of all connections; the next use opens new ones."""
        self._engine.dispose()

    def _use(self, work: Callable[[Connection], _T]) -> _T:
        """Do *work* in one transaction; again, if others were in the way.

        In an empty context, where no unit is open: whoever asks from inside a request
        must not have its calls wait for the store's own transaction.
        """
        try:
            return Context().run(self._persist, work)
        except SQLAlchemyError as exc:
            raise StoreError(
                f"The failure store {self._shown} cannot be used: {_first_line(exc)}. "
                "Usually the server is down, or this user may not make or write its "
                "tables. Start it, grant the rights, or name another store: "
                "POSTLUDE_FAILURES."
            ) from exc

    def _persist(self, work: Callable[[Connection], _T]) -> _T:
        with self._lock if self._is_file else nullcontext():
            for left in reversed(range(_TRIES)):
                try:
                    return self._transact(work)
                except DBAPIError as exc:
                    if not left or not _is_in_the_way(exc):
                        self._ready = False  # the tables may be gone, or elsewhere
                        raise
                    time.sleep(0.02 * (_TRIES - left))
        raise AssertionError("the last try returns or raises")

    def _transact(self, work: Callable[[Connection], _T]) -> _T:
        if not self._ready:
            tables.migrate(self._engine, self._shown)
            self._ready = True
        with self._engine.begin() as database:
            return work(database)

    # -- forks --------------------------------------------------------------

    def before_fork(self) -> None:
        """Close a SQLite file; a server's connections are the parent's own."""
        if self._is_file:
            self._has_lock = self._lock.acquire(timeout=_FORK)
            if self._has_lock:
                self._engine.dispose()

    def after_fork(self, *, in_child: bool) -> None:
        """Leave the parent's connections alone: to close one would end it there."""
        if in_child:
            self._lock = Lock()
            _of_the_parent.append(self._engine.pool)
            self._engine.dispose(close=False)
        elif self._has_lock:
            self._lock.release()
        self._has_lock = False


_NEWEST = (FAILURES.c.ended.desc(), FAILURES.c.id.desc())
_of_the_parent: list[object] = []


def _engine(address: str | URL) -> Engine:
    driver = "a database"
    try:
        url = make_url(address)
        driver = url.drivername
        _check_sync(url)
        engine = create_engine(
            url,
            poolclass=QueuePool,  # for SQLite, too: it has another one in memory
            pool_size=1,
            max_overflow=4,
            pool_timeout=_CONNECT,
            pool_pre_ping=True,
            pool_recycle=1800,
            connect_args=_connect_args(url),
        )
    except (AddressError, NoSuchModuleError, ValueError) as exc:
        raise SettingsError(
            f"failures is an address that SQLAlchemy does not understand ({exc}). "
            "Usually a part of it is missing or misspelt. Write it as "
            "'postgresql+psycopg://user@host/name' or 'mysql+pymysql://user@host/name'."
        ) from None
    except ImportError as exc:
        raise SettingsError(
            f"failures is an address of {driver}, whose driver is not "
            f"installed ({exc}). Install it, or name another one in the address: "
            "'postgresql+psycopg://...', 'mysql+pymysql://...'."
        ) from exc
    if engine.dialect.name == "sqlite":
        _make_transactional(engine)
    return engine


def _check_sync(url: URL) -> None:
    if url.get_dialect().is_async:
        raise SettingsError(
            f"failures is an address of {url.drivername}, an async driver, and records "
            "are written by a thread. Usually it is the application's own address. "
            "Name a sync driver: 'postgresql+psycopg://...', 'mysql+pymysql://...'."
        )


def _connect_args(url: URL) -> dict[str, Any]:
    backend = url.get_backend_name()
    if backend == "sqlite":
        return {"timeout": 20.0, "check_same_thread": False}
    waits = url.get_driver_name() in {"psycopg", "psycopg2", "pymysql", "mysqldb"}
    if waits and "connect_timeout" not in url.query:
        return {"connect_timeout": _CONNECT}
    return {}


def _make_transactional(engine: Engine) -> None:
    """Have SQLite's transactions begin where they begin, and wait for each other.

    As SQLAlchemy's documentation of pysqlite has it, "Serializable isolation".
    """

    @event.listens_for(engine, "connect")
    def manual(connection: Any, _record: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(database: Connection) -> None:
        database.exec_driver_sql("BEGIN IMMEDIATE")


def _drop_beyond(database: Connection, keep: int) -> int:
    ended, one = FAILURES.c.ended, FAILURES.c.id
    query = select(ended, one).order_by(*_NEWEST).offset(keep).limit(1)
    newest = database.execute(query).one_or_none()
    if newest is None:
        return 0
    same = (ended == newest.ended) & (one <= newest.id)
    return database.execute(
        delete(FAILURES).where((ended < newest.ended) | same)
    ).rowcount


def _is_in_the_way(exc: DBAPIError) -> bool:
    original: Any = exc.orig
    codes = {getattr(original, "sqlstate", None), *original.args[:1]}
    return bool(_IN_THE_WAY & codes)


def _first_line(exc: SQLAlchemyError) -> str:
    cause = exc.orig if isinstance(exc, DBAPIError) else exc
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0].rstrip(".")
