"""One SQLite file that many processes and threads use, whatever happens to it."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from postlude._log import say
from postlude.exceptions import StoreError
from postlude.failures import _forks

if TYPE_CHECKING:
    from pathlib import Path

_T = TypeVar("_T")
_PATIENCE = 20.0
"""Seconds to wait for other processes that write."""
_TURN = 0.1
"""Seconds of it at a time: in between, a fork or another thread has its turn."""
_FORK = 5.0
"""Seconds that a fork waits for a statement that runs, and one process for another."""
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_CAUSES = {
    sqlite3.SQLITE_FULL: ("its disk is full", "Make room"),
    sqlite3.SQLITE_READONLY: (
        "the file or its folder belongs to another user, or was made read-only",
        "Let this user write both",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "its folder is missing, or this user may not write there",
        "Make the folder",
    ),
    sqlite3.SQLITE_IOERR: ("its disk is full or fails", "Make room"),
    sqlite3.SQLITE_BUSY: (
        "another program keeps the file locked, a backup or a shell",
        "End that program's transaction",
    ),
}
_UNKNOWN = ("another program changes the file", "Let that program use its own")


class SQLiteFile:
    """An open file, and opened again if it must be. Any thread."""

    def __init__(
        self, path: Path, create: bool, migrate: Callable[[sqlite3.Connection], None]
    ) -> None:
        """Name the file; it is opened with its first use.

        *migrate* brings a file's tables up to date; without *create*, a file that is
        missing or damaged is an error.
        """
        self.path = path
        self._create = create
        self._migrate = migrate
        self._lock = threading.Lock()
        self._has_lock = False
        self._forks = False
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None
        self._replaced = False
        _forks.take_part(self)

    def read(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Give what *work* finds.

        Raises:
            StoreError: the file cannot be used now.
        """
        return self._persist(lambda: self._attempt(work))

    def change(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do *work* in one transaction, all or nothing.

        Raises:
            StoreError: the file cannot be used now, and nothing was changed.
        """

        def transaction(database: sqlite3.Connection) -> _T:
            database.execute("BEGIN IMMEDIATE")
            result = work(database)
            database.execute("COMMIT")
            return result

        return self._persist(lambda: self._attempt(transaction))

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        with self._lock:
            self._let_go()

    def __del__(self) -> None:
        """Close the file that nobody uses now: Python 3.13 warns of an open one."""
        self._let_go()

    # -- using it -----------------------------------------------------------

    def _persist(self, attempt: Callable[[], _T]) -> _T:
        """Try again where others are in the way, and once after damage."""
        deadline = time.monotonic() + _PATIENCE
        healed = False
        while True:
            try:
                return attempt()
            except sqlite3.Error as exc:
                # Not there for errors of Python's own module.
                code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
                if code in _BUSY and time.monotonic() < deadline:
                    time.sleep(0.002)
                    while self._forks:  # or this thread would be quicker every time
                        time.sleep(0.002)
                    continue
                if code in _BROKEN and not healed and self._put_aside(exc):
                    healed = True
                    continue
                raise self._refused(exc, code) from exc
            except StoreError:
                raise
            except OSError as exc:
                raise self._refused(exc, sqlite3.SQLITE_CANTOPEN) from exc

    def _attempt(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        with self._lock:
            database = self._open()
            try:
                return work(database)
            except BaseException as exc:
                self._undo(database, exc)
                raise

    def _undo(self, database: sqlite3.Connection, exc: BaseException) -> None:
        try:
            if database.in_transaction:  # a full disk has ended it already
                database.execute("ROLLBACK")
        except sqlite3.Error:
            self._let_go()
        code = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_BUSY) & 0xFF
        if code not in _BUSY:
            self._let_go()

    def _refused(self, exc: Exception, code: int) -> StoreError:
        if code in _BROKEN:
            return StoreError(
                f"The failure store {self.path} is damaged: {exc}. Usually its disk "
                "was full or the file was cut off. Save what can be read with "
                "`sqlite3 FILE .recover`, or delete it."
            )
        cause, fix = _CAUSES.get(code, _UNKNOWN)
        return StoreError(
            f"The failure store {self.path} cannot be used: {exc}. Usually {cause}. "
            f"{fix}, or name another file: POSTLUDE_FAILURES."
        )

    # -- opening it ---------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            if self._identity() == self._opened and self.path.stat().st_size:
                return self._connection
            # Cut to nothing: closing it writes back what its log still has.
            self._let_go()
            self._replaced = True
        if not self._create and not self.path.exists():
            raise StoreError(
                f"There is no failure store at {self.path}. Usually the command was "
                "started in another folder than the application. Name the file: "
                "--store sqlite:///path/to/postlude.db."
            )
        self._check_writable()
        database = self._connect()
        try:
            # NORMAL: what a killed process had committed is kept; only a power cut may
            # take the last commits, and never break the file.
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            self._migrate(database)
        except BaseException:
            database.close()
            raise
        self._connection = database
        if self._replaced:
            self._replaced = False
            text = (
                "the failure store %s was taken away, emptied or replaced; what is at "
                "that place now is used, or made anew"
            )
            say(logging.WARNING, text, self.path)
        return database

    def _connect(self) -> sqlite3.Connection:
        """Connect to the file of that name, and know which one it is.

        Another process may put the file aside just then, and what is connected to the
        old one would be taken for the new one: whatever is written there is lost.
        """
        mode = "rwc" if self._create else "rw"
        while True:
            before = self._identity()
            database = sqlite3.connect(
                f"{self.path.as_uri()}?mode={mode}",
                uri=True,
                timeout=_TURN,
                isolation_level=None,
                check_same_thread=False,
            )
            self._opened = self._identity()
            if self._opened == before:
                return database
            database.close()

    def _check_writable(self) -> None:
        """Leave a file alone that may only be read.

        SQLite would make its index beside it, as read-only as the file, and whoever
        makes the file writable again seldom thinks of that.
        """
        mine = os.access in os.supports_effective_ids
        if self.path.exists() and not os.access(self.path, os.W_OK, effective_ids=mine):
            exc = PermissionError(f"{self.path.name} may only be read")
            raise self._refused(exc, sqlite3.SQLITE_READONLY)

    def _identity(self) -> tuple[int, int] | None:
        """Tell the file of that name from every other one."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return None
        return stat.st_dev, stat.st_ino

    def _let_go(self) -> None:
        database, self._connection = self._connection, None
        if database is not None:
            try:
                database.close()
            except sqlite3.Error:
                pass  # it is not used any more in any case

    # -- a damaged file -----------------------------------------------------

    def _put_aside(self, exc: sqlite3.Error) -> bool:
        """Give a damaged file another name, so that a new one can be made.

        Several processes meet the damage at once, and the new file must not be put
        aside by those that come late. The other name is of the damaged file itself, and
        a link to it can be made once: whoever makes it does the rest.
        """
        if not self._create or self._opened is None:
            return False
        with self._lock:
            self._let_go()
            self._replaced = False
            place = self.path
            aside = place.with_name(f"{place.name}.damaged-{self._opened[1]}")
            try:
                os.link(place, aside)
                if (found := aside.stat()) and found.st_ino != self._opened[1]:
                    aside.unlink()  # somebody has made the new file
                    return True
                _move(place, aside)
            except FileExistsError:
                return self._is_replaced()
            except OSError:
                return self._identity() != self._opened
        text = (
            "the failure store %s is damaged (%s); it is %s now, and a new one is made"
        )
        say(logging.WARNING, text, place, exc, aside)
        return True

    def _is_replaced(self) -> bool:
        """Wait for another process that puts the same file aside."""
        deadline = time.monotonic() + _FORK
        while self._identity() == self._opened and time.monotonic() < deadline:
            time.sleep(0.005)
        return self._identity() != self._opened

    # -- forks --------------------------------------------------------------

    def before_fork(self) -> None:
        """Close the file: a child must not have it open."""
        self._forks = True
        self._has_lock = self._lock.acquire(timeout=_FORK)
        if self._has_lock:
            self._let_go()

    def after_fork(self, *, in_child: bool) -> None:
        """Go on; the next use opens the file again."""
        if in_child:
            self._lock = threading.Lock()
            if self._connection is not None:
                _of_the_parent.append(self._connection)
                self._connection = None
        elif self._has_lock:
            self._lock.release()
        self._has_lock = False
        self._forks = False


_of_the_parent: list[sqlite3.Connection] = []
"""Never closed: that would meddle with locks that the parent believes to have."""


def _move(place: Path, aside: Path) -> None:
    """Take the name away from a file that has another one by now.

    Its log goes first: as long as the file is there, nobody makes a new one.
    """
    for suffix in ("-wal", "-shm"):
        try:
            place.with_name(place.name + suffix).rename(
                aside.with_name(aside.name + suffix)
            )
        except FileNotFoundError:
            pass
    place.unlink()
