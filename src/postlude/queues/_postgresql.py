"""What the engines on PostgreSQL share: connections, errors, identity."""

from __future__ import annotations

import selectors
import threading
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row

from postlude.exceptions import QueueError
from postlude.transactions._stack import claim
from postlude.transactions._statements import pyformat

if TYPE_CHECKING:
    from postlude.queues._queue import Execute

Connection = psycopg.Connection[DictRow]
_PATIENCE: dict[str, Any] = {
    "connect_timeout": 10,
    "tcp_user_timeout": 20_000,
    "application_name": "postlude",
}
"""Seconds and milliseconds after which a server that is gone has failed; an address may
say otherwise. The line waits for 30 s in all."""
_IDENTITY = (
    "select current_database(), "
    "(select oid from pg_database where datname = current_database()), "
    "pg_postmaster_start_time(), current_setting('search_path') as search_path"
)


class Database:
    """One database of PostgreSQL: a connection for each thread of this process."""

    def __init__(self, address: str, missing: str) -> None:
        """Name it by libpq's address; *missing* says how to make its tables."""
        self.address = address
        self._missing = missing
        self._connections: dict[int, Connection] = {}
        self._search_path: str | None = None

    def __repr__(self) -> str:
        return self.shown()

    def shown(self) -> str:
        """Name it without user, password and options."""
        known = conninfo_to_dict(self.address)
        host, port = known.get("host") or "", known.get("port") or 5432
        return f"postgresql://{host}:{port}/{known.get('dbname') or ''}"

    @contextmanager
    def use(self) -> Generator[Connection]:
        """Give this thread's connection, in autocommit; errors become `QueueError`."""
        try:
            yield self._connection()
        except _MISSING as exc:
            raise self._without_tables(exc) from exc
        except (psycopg.Error, OSError) as exc:
            raise QueueError(
                f"The queue on {self.shown()} cannot be used now "
                f"({str(exc).strip()}). Usually the server is down or restarts, or "
                "lets nobody in with this name. Look at it; nothing was written."
            ) from exc

    def rows(self, sql: str, params: Mapping[str, Any] | None = None) -> list[DictRow]:
        """Run one statement of ours on its own; gives its rows."""
        with self.use() as connection:
            return rows(connection, sql, params)

    def identity(self) -> tuple[object, ...]:
        """Say which database it is, as `Execute.identity()` says it.

        Raises:
            QueueError: it cannot be asked.
        """
        (found,) = self.rows(_IDENTITY)
        self._search_path = found.pop("search_path")
        return tuple(found.values())

    def is_at(self, database: str) -> bool:
        """Tell by its name in records whether a database may be this one."""
        mine, other = urlsplit(self.shown()), urlsplit(database)
        return _place(mine) == _place(other)

    @contextmanager
    def inside(self, execute: Execute) -> Generator[None]:
        """Have names mean in somebody's transaction what they mean to the engine."""
        wanted = self._search_path
        if wanted is None:  # nobody has asked the database yet, and here nobody can
            yield
            return
        ((before, _),) = execute(_SET_PATH, {"path": wanted})
        yield
        if before != wanted:
            execute(_SET_PATH, {"path": before})

    def close(self) -> None:
        """Close all connections; the next use opens new ones."""
        connections, self._connections = self._connections, {}
        for connection in connections.values():
            with suppress(psycopg.Error):
                connection.close()

    def forked(self) -> None:
        """Leave the connections to the parent process: closing one says goodbye."""
        _leaked.append(self._connections)
        self._connections = {}

    def _connection(self) -> Connection:
        me = threading.get_ident()
        connection = self._connections.get(me)
        if connection is not None:
            if _is_alive(connection):
                return connection
            with suppress(psycopg.Error):
                connection.close()
        self._drop_dead_threads()
        known = conninfo_to_dict(self.address)
        options: dict[str, Any] = {
            name: value for name, value in _PATIENCE.items() if name not in known
        }
        connection = psycopg.Connection[DictRow].connect(
            self.address, autocommit=True, row_factory=dict_row, **options
        )
        claim(connection)  # no transaction of the user's, though it may be seen
        self._connections[me] = connection
        return connection

    def _drop_dead_threads(self) -> None:
        alive = {thread.ident for thread in threading.enumerate()}
        for ident in list(self._connections):
            if ident not in alive:
                with suppress(KeyError, psycopg.Error):
                    self._connections.pop(ident).close()

    def _without_tables(self, exc: Exception) -> QueueError:
        return QueueError(
            f"The queue on {self.shown()} has no tables there ({str(exc).strip()}). "
            f"Usually they have not been made yet. Make them once: {self._missing}"
        )


_SET_PATH = (
    "select before, set_config('search_path', :path, true) "
    "from (select current_setting('search_path') as before offset 0) as now"
)
_MISSING = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedObject,
    psycopg.errors.InvalidSchemaName,
)
_leaked: list[object] = []
"""Connections of a parent process; collected, they would be closed."""


def rows(
    connection: Connection, sql: str, params: Mapping[str, Any] | None = None
) -> list[DictRow]:
    """Run a statement of ours; gives its rows, if it has any."""
    cursor = connection.execute(sql.encode(), params)
    return cursor.fetchall() if cursor.description else []


def executing(connection: Connection) -> Execute:
    """Give *connection* as what the transactions of others are given as."""

    def execute(sql: str, params: Mapping[str, object]) -> list[tuple[Any, ...]]:
        found = rows(connection, pyformat(sql), params)
        return [tuple(row.values()) for row in found]

    return execute


def _place(address: SplitResult) -> tuple[str, int, str]:
    host = address.hostname or "localhost"
    here = host in {"localhost", "127.0.0.1", "::1"}
    name = address.path.removeprefix("/")
    return "localhost" if here else host, address.port or 5432, name


def libpq(address: str) -> str:
    """Give libpq's address for one of ours, without the engine's name before it."""
    return address.partition("+")[2]


def _is_alive(connection: Connection) -> bool:
    """Tell whether the server has kept a connection, without asking it.

    There is nothing to read on an idle one, unless the server said that it closes it,
    and why. Asked, so that a restarted server costs nobody a failed request.
    """
    if connection.closed:
        return False
    with selectors.DefaultSelector() as selector:
        selector.register(connection.fileno(), selectors.EVENT_READ)
        return not selector.select(0)


def split(tokens: Iterable[str]) -> dict[str, Any]:
    """Split tokens `job/run` into columns for `unnest`."""
    pairs = [token.split("/") for token in tokens if token]
    return {"ids": [int(job) for job, _ in pairs], "runs": [int(n) for _, n in pairs]}
