"""A SQLite file: `postlude.configure(failures="sqlite:///postlude.db")`.

Many processes and threads write to one file at the same time. The file is in WAL mode,
so readers and writers do not wait for each other; see https://sqlite.org/wal.html for
what that asks of the file system (a local one).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from postlude.exceptions import StoreError
from postlude.failures import _schema
from postlude.failures._record import FailureRecord
from postlude.failures._sqlite_file import SQLiteFile
from postlude.failures._store import Batch, ProcessRecord, Tally

if TYPE_CHECKING:
    import os
    import sqlite3

__all__ = ["SQLiteFailureStore"]

_TABLES = """
CREATE TABLE postlude_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE postlude_failures (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, function TEXT NOT NULL,
    arguments TEXT NOT NULL, state TEXT NOT NULL, unit TEXT NOT NULL,
    site TEXT NOT NULL, exception TEXT, traceback TEXT, started REAL,
    ended REAL NOT NULL, attempt INTEGER NOT NULL, hint TEXT, payload TEXT,
    refusal TEXT,
    host TEXT NOT NULL, pid INTEGER NOT NULL
);
CREATE INDEX postlude_failures_ended ON postlude_failures (ended);
CREATE TABLE postlude_tallies (
    minute INTEGER NOT NULL, kind TEXT NOT NULL, function TEXT NOT NULL,
    route TEXT NOT NULL, label TEXT NOT NULL, count INTEGER NOT NULL,
    total REAL NOT NULL,
    PRIMARY KEY (minute, kind, function, route, label)
) WITHOUT ROWID;
CREATE TABLE postlude_processes (
    id TEXT PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, began REAL NOT NULL,
    seen REAL NOT NULL, pending INTEGER NOT NULL, running TEXT NOT NULL,
    limits TEXT NOT NULL
) WITHOUT ROWID;
"""
_MIGRATIONS: dict[int, str] = {0: _TABLES}
"""What leads from each version to the next."""

_FIELDS = ", ".join(FailureRecord._fields)
_PUT_FAILURE = (
    f"INSERT OR REPLACE INTO postlude_failures ({_FIELDS}) "  # noqa: S608 - of constants only
    f"VALUES ({', '.join(f':{name}' for name in FailureRecord._fields)})"
)
_ADD_TALLY = (
    "INSERT INTO postlude_tallies VALUES "
    "(:minute, :kind, :function, :route, :label, :count, :total) "
    "ON CONFLICT DO UPDATE SET count = count + excluded.count, "
    "total = total + excluded.total"
)
_PUT_PROCESS = (
    "INSERT OR REPLACE INTO postlude_processes VALUES "
    "(:id, :host, :pid, :began, :seen, :pending, :running, :limits)"
)
_ROLL_UP = (
    "INSERT INTO postlude_tallies "
    "SELECT minute / 60 * 60, kind, function, route, label, SUM(count), SUM(total) "
    "FROM postlude_tallies WHERE minute < ? AND minute % 60 != 0 "
    "GROUP BY 1, 2, 3, 4, 5 "
    "ON CONFLICT DO UPDATE SET count = count + excluded.count, "
    "total = total + excluded.total"
)
_DROP_BEYOND = (
    "DELETE FROM postlude_failures WHERE id IN (SELECT id FROM postlude_failures "
    "ORDER BY ended DESC, rowid DESC LIMIT -1 OFFSET ?)"
)


class SQLiteFailureStore:
    """Keeps records and numbers in one SQLite file. Any thread, any process."""

    immediate = False

    def __init__(self, path: str | os.PathLike[str], *, create: bool = True) -> None:
        """Name the file; it is opened when it is first needed.

        Args:
            path: the file. Its folder must exist.
            create: make the file if it is not there; without, that is an error.
        """
        self.path = Path(path).absolute()
        self._file = SQLiteFile(self.path, create, self._migrate)

    def __repr__(self) -> str:
        return f"<SQLiteFailureStore {self.path}>"

    # -- writing ------------------------------------------------------------

    def write(self, batch: Batch) -> None:
        """Keep all of *batch* in one transaction.

        Raises:
            StoreError: the file cannot be used now, and nothing was kept.
        """
        failures = [_schema.failure_row(record) for record in batch.failures]
        tallies = _schema.tally_rows(batch.tallies)

        def put(database: sqlite3.Connection) -> None:
            database.executemany(_PUT_FAILURE, failures)
            database.executemany(_ADD_TALLY, tallies)
            if batch.process is not None:
                database.execute(_PUT_PROCESS, _schema.process_row(batch.process))

        self._file.change(put)

    def forget(self, ids: Iterable[str]) -> int:
        """Take records out; gives how many were there."""
        query = "DELETE FROM postlude_failures WHERE id = ?"
        wanted = {_schema.text(one) for one in ids}
        return self._file.change(
            lambda database: sum(
                database.execute(query, (one,)).rowcount for one in wanted
            )
        )

    def prune(self, *, before: float, keep: int | None = None) -> int:
        """Take out what is older than *before*, and the oldest beyond *keep*."""
        fine = int(time.time() // 60) - _schema.KEPT_FINE

        def take_out(database: sqlite3.Connection) -> int:
            run = database.execute
            gone = run(
                "DELETE FROM postlude_failures WHERE ended < ?", (before,)
            ).rowcount
            if keep is not None:
                gone += run(_DROP_BEYOND, (keep,)).rowcount
            run("DELETE FROM postlude_tallies WHERE minute < ?", (before // 60,))
            run("DELETE FROM postlude_processes WHERE seen < ?", (before,))
            run(_ROLL_UP, (fine,))
            run(
                "DELETE FROM postlude_tallies WHERE minute < ? AND minute % 60 != 0",
                (fine,),
            )
            return gone

        return self._file.change(take_out)

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
            StoreError: the file cannot be read.
        """
        where = ["1"]
        values: list[object] = []
        if since is not None:
            where.append("ended >= ?")
            values.append(since)
        if name is not None:
            where.append("(name = ? OR function = ?)")
            values += [_schema.text(name)] * 2
        if state is not None:
            where.append("state = ?")
            values.append(_schema.text(state))
        query = (
            f"SELECT {_FIELDS} FROM postlude_failures WHERE {' AND '.join(where)} "  # noqa: S608 - of constants only
            "ORDER BY ended DESC, rowid DESC LIMIT ?"
        )
        rows = self._rows(query, (*values, -1 if limit is None else limit))
        return [_schema.failure(row) for row in reversed(rows)]

    def find(self, prefix: str) -> Sequence[FailureRecord]:
        """Give the records whose id begins with *prefix*, ten at most."""
        query = (
            f"SELECT {_FIELDS} FROM postlude_failures "  # noqa: S608 - of constants only
            "WHERE substr(id, 1, ?) = ? ORDER BY ended, rowid LIMIT 10"
        )
        prefix = _schema.text(prefix)
        return [
            _schema.failure(row) for row in self._rows(query, (len(prefix), prefix))
        ]

    def count(self) -> int:
        """Give the number of records kept."""
        (row,) = self._rows("SELECT COUNT(*) AS n FROM postlude_failures")
        return int(row["n"])

    def tallies(self, since: float) -> Sequence[Tally]:
        """Give the numbers of all minutes from *since* (Unix seconds) on."""
        query = "SELECT * FROM postlude_tallies WHERE minute >= ? ORDER BY minute"
        return [Tally(**row) for row in self._rows(query, (since // 60,))]

    def processes(self, since: float) -> Sequence[ProcessRecord]:
        """Give the processes seen from *since* (Unix seconds) on."""
        query = "SELECT * FROM postlude_processes WHERE seen >= ? ORDER BY host, pid"
        return [_schema.process(row) for row in self._rows(query, (since,))]

    def _rows(
        self, query: str, values: tuple[object, ...] = ()
    ) -> Sequence[dict[str, Any]]:
        def read(database: sqlite3.Connection) -> Sequence[dict[str, Any]]:
            cursor = database.execute(query, values)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

        return self._file.read(read)

    # -- the file -----------------------------------------------------------

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        self._file.close()

    def _migrate(self, database: sqlite3.Connection) -> None:
        """Bring the tables to this version, one step at a time, all or nothing.

        Raises:
            StoreError: a newer version of Postlude made them.
        """
        if _version(database) == _schema.VERSION:
            return
        database.execute("BEGIN IMMEDIATE")
        version = _version(database)  # again: another process may have been quicker
        if version > _schema.VERSION:
            raise StoreError(_schema.newer(self.path, version))
        while version < _schema.VERSION:
            for statement in _MIGRATIONS[version].split(";"):
                database.execute(statement)
            version += 1
        database.execute(
            "INSERT OR REPLACE INTO postlude_meta VALUES ('version', ?)", (version,)
        )
        database.execute("COMMIT")


def _version(database: sqlite3.Connection) -> int:
    known = "SELECT 1 FROM sqlite_master WHERE name = 'postlude_meta'"
    if database.execute(known).fetchone() is None:
        return 0
    query = "SELECT value FROM postlude_meta WHERE key = 'version'"
    return _schema.version(database.execute(query).fetchone())
