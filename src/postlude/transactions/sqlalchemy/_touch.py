"""The one place that touches SQLAlchemy's classes. Checked on 2.0.38 to 2.1.9.

Of a connection there is an event before "commit" and none after it; its maintainers
declined one (sqlalchemy#4943). Nor does any tell a rollback from a close. And when
`Session.close()` sends its first event, what was deleted or changed in it and never
flushed has been forgotten.

What is to run in a transaction before its commit goes there, too, and not into
`Session`'s event "before_commit": that comes before the flush, and also for savepoints.

So these public methods are wrapped. All roads lead through them: autobegin, sessions,
`with` blocks, asyncio. Private names in use: `Connection._is_autocommit_isolation()`,
those in `_notes.innermost()`, `SessionTransaction._connections`, and its
`_connection_for_bind`, by whose code a connection knows that a session begins its
transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from inspect import unwrap
from sys import _getframe
from typing import Any, TypeVar

from sqlalchemy import text
from sqlalchemy.engine import Connection, Transaction, TwoPhaseTransaction
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, SessionTransaction

from postlude.transactions._execute import Execute
from postlude.transactions._gate import ROLLED_BACK
from postlude.transactions._subclasses import wrap
from postlude.transactions.sqlalchemy._notes import (
    Note,
    begun,
    innermost,
    name_of,
    note_of,
    notes,
)

_T = TypeVar("_T")
FAILED = "could not be committed"


def touch() -> None:
    """Wrap the methods that begin and end transactions."""
    connections: Any = Connection
    connections.begin = _beginning(connections.begin)
    for name in ("begin_nested", "begin_twophase"):
        setattr(Connection, name, _beginning_inside(getattr(Connection, name)))
    endings: Any = Transaction
    endings.commit = _committing(endings.commit)
    endings.rollback = _rolling_back(endings.rollback)
    endings.close = _closing(endings.close)
    phases: Any = TwoPhaseTransaction
    phases.prepare = _preparing(phases.prepare)
    sessions: Any = SessionTransaction
    sessions.prepare = _preparing_session(sessions.prepare)
    for name in ("close", "reset", "invalidate"):
        setattr(Session, name, _emptying(getattr(Session, name)))


def _beginning(original: Callable[..., _T]) -> Callable[..., _T]:
    # What a session begins, its event "after_begin" tells of right afterwards.
    in_session = unwrap(SessionTransaction._connection_for_bind).__code__

    @wraps(original)
    def begin(self: Connection) -> _T:
        transaction = original(self)
        caller = _getframe().f_back  # none at the bottom of a greenlet
        if (
            caller is None or caller.f_code is not in_session
        ) and not self._is_autocommit_isolation():
            begun(transaction, self.engine)
        return transaction

    return begin


def _beginning_inside(original: Callable[..., _T]) -> Callable[..., _T]:
    @wraps(original)
    def begin(self: Connection, *args: Any, **kwargs: Any) -> _T:
        savepoint = self.get_nested_transaction()
        transaction = original(self, *args, **kwargs)
        if not self._is_autocommit_isolation():
            root = self.get_transaction()
            outer = None if transaction is root else savepoint or root
            begun(transaction, self.engine, outer)
        return transaction

    return begin


def _committing(original: Callable[[Transaction], None]) -> Callable[..., None]:
    @wraps(original)
    def commit(self: Transaction) -> None:
        note = notes.get(id(self))
        if note is None:
            original(self)
            return
        if note._callbacks:
            _call_back(self, note)
        lost = note.failed and (note.lost or _is_lost(self))
        try:
            original(self)
        except BaseException:
            note.undo(FAILED)
            raise
        if lost:
            note.undo(FAILED)
        elif not note.shared:
            note.release()

    return commit


def _preparing(original: Callable[..., None]) -> Callable[..., None]:
    @wraps(original)
    def prepare(self: TwoPhaseTransaction) -> None:
        note = note_of(self)
        if note is not None:
            if note._callbacks:
                _call_back(self, note)
            note.sealed = True
        original(self)

    return prepare


def _call_back(transaction: Transaction, note: Note) -> None:
    """Run the statements of others before a COMMIT.

    If one fails the transaction goes on, and whoever commits it meets them again.
    """
    note.write()  # not to be taken for one that only read if that is all of it
    note.call_back(_execute_on(transaction.connection))


def watch_commits() -> None:
    """Wrap the commit of sessions, once somebody wants statements to run before it."""
    wrap(SessionTransaction, {"commit": _committing_session})


def _committing_session(original: Callable[..., None]) -> Callable[..., None]:
    def commit(self: SessionTransaction, *args: Any, **kwargs: Any) -> None:
        note = note_of(self)  # none of a flush
        if note is not None and note._callbacks:
            _call_back_session(self, note)
        original(self, *args, **kwargs)

    return commit


def _preparing_session(original: Callable[..., None]) -> Callable[..., None]:
    @wraps(original)
    def prepare(self: SessionTransaction) -> None:
        note = note_of(self)
        if note is not None:
            if note._callbacks:
                _call_back_session(self, note)
            note.sealed = True
        original(self)

    return prepare


def _call_back_session(transaction: SessionTransaction, note: Note) -> None:
    """Run the statements of others before a commit; roll back as after a flush."""
    session = transaction.session
    try:
        session.flush()  # first: their statements may refer to its rows
        used = [connection for connection, *_ in transaction._connections.values()]
        connections = dict.fromkeys(used or [session.connection()])
        note.call_back(*map(_execute_on, connections))
    except BaseException:
        transaction.rollback()
        raise


def _execute_on(connection: Connection) -> Execute:
    def run(sql: str, params: Mapping[str, object]) -> list[tuple[Any, ...]]:
        result = connection.execute(text(sql), params)
        return [tuple(row) for row in result] if result.returns_rows else []

    return Execute(name_of(connection), connection.dialect.name, run)


def _is_lost(transaction: Transaction) -> bool:
    """Tell whether COMMIT will be answered, but not done.

    PostgreSQL does so after an error: it rolls back, and no driver says a word. Not
    after every error, as drivers raise some of their own; so it is asked.
    """
    connection = transaction.connection
    if not transaction.is_active:
        return False
    if connection.dialect.name not in {"postgresql", "cockroachdb"}:
        return False
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
                note.undo(ROLLED_BACK)

    return rollback


def _closing(original: Callable[[Transaction], None]) -> Callable[..., None]:
    @wraps(original)
    def close(self: Transaction) -> None:
        try:
            original(self)
        finally:
            note = note_of(self)
            if note is not None and not note.shared:
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
