"""The one place that touches SQLAlchemy's classes. Checked on 2.0.38 to 2.1.9.

Of a connection there is an event before "commit" and none after it; its maintainers
declined one (sqlalchemy#4943). Nor does any tell a rollback from a close. And when
`Session.close()` sends its first event, what was deleted or changed in it and never
flushed has been forgotten.

So these public methods are wrapped. All roads lead through them: autobegin, sessions,
`with` blocks, asyncio. `Connection._is_autocommit_isolation()` is the one private name
in use.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from sqlalchemy.engine import Connection, Transaction
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from postlude.transactions._gate import ROLLED_BACK
from postlude.transactions.sqlalchemy._notes import (
    Note,
    begun,
    innermost,
    name_of,
    note_of,
)

_T = TypeVar("_T")
FAILED = "could not be committed"


def touch() -> None:
    """Wrap the methods that begin and end transactions."""
    for name in ("begin", "begin_nested", "begin_twophase"):
        setattr(Connection, name, _beginning(getattr(Connection, name)))
    endings: Any = Transaction
    endings.commit = _committing(endings.commit)
    endings.rollback = _rolling_back(endings.rollback)
    endings.close = _closing(endings.close)
    for name in ("close", "reset", "invalidate"):
        setattr(Session, name, _emptying(getattr(Session, name)))


def _beginning(original: Callable[..., _T]) -> Callable[..., _T]:
    @wraps(original)
    def begin(self: Connection, *args: Any, **kwargs: Any) -> _T:
        savepoint = self.get_nested_transaction()
        transaction = original(self, *args, **kwargs)
        if not self._is_autocommit_isolation():
            root = self.get_transaction()
            outer = None if transaction is root else savepoint or root
            begun(transaction, outer, name_of(self.engine))
        return transaction

    return begin


def _committing(original: Callable[[Transaction], None]) -> Callable[..., None]:
    @wraps(original)
    def commit(self: Transaction) -> None:
        note = note_of(self)
        if note is None:
            original(self)
            return
        lost = _is_lost(self, note)
        try:
            original(self)
        except BaseException:
            note.drop(FAILED)
            raise
        if lost:
            note.drop(FAILED)
        else:
            note.gate.release()

    return commit


def _is_lost(transaction: Transaction, note: Note) -> bool:
    """Tell whether COMMIT will be answered, but not done.

    PostgreSQL does so after an error: it rolls back, and no driver says a word. Not
    after every error, as drivers raise some of their own; so it is asked.
    """
    connection = transaction.connection
    if not note.failed or not transaction.is_active:
        return note.lost
    if connection.dialect.name not in {"postgresql", "cockroachdb"}:
        return note.lost
    try:
        connection.exec_driver_sql("SELECT 1")
    except SQLAlchemyError:
        return True
    return False


def _rolling_back(original: Callable[[Transaction], None]) -> Callable[..., None]:
    @wraps(original)
    def rollback(self: Transaction) -> None:
        try:
            original(self)
        finally:
            note = note_of(self)
            if note is not None:
                note.drop(ROLLED_BACK)

    return rollback


def _closing(original: Callable[[Transaction], None]) -> Callable[..., None]:
    @wraps(original)
    def close(self: Transaction) -> None:
        try:
            original(self)
        finally:
            note = note_of(self)
            if note is not None:
                note.end()

    return close


def _emptying(original: Callable[[Session], None]) -> Callable[..., None]:
    @wraps(original)
    def close(self: Session) -> None:
        note = innermost(self)
        if note is not None and (self.deleted or self.dirty):
            note.write()
        original(self)

    return close
