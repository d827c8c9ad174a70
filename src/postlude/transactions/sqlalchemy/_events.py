"""What SQLAlchemy's events tell: of all sessions, and of all statements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session, SessionTransactionOrigin
from sqlalchemy.pool import Pool

from postlude.transactions._around import is_of_here
from postlude.transactions._stack import claim
from postlude.transactions._statements import writes
from postlude.transactions.sqlalchemy._notes import (
    begun,
    innermost,
    note_of,
    notes,
    share,
)

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, ExceptionContext, ExecutionContext
    from sqlalchemy.orm import SessionTransaction
    from sqlalchemy.pool import ConnectionPoolEntry

_MYSQL_DEADLOCK = 1213
_FLUSH = SessionTransactionOrigin.SUBTRANSACTION


def listen() -> bool:
    """Listen to all sessions and engines; False if that has been done."""
    if event.contains(Session, "after_commit", _committed):
        return False
    event.listen(Session, "after_transaction_create", _began)
    event.listen(Session, "after_begin", _connected)
    event.listen(Session, "transient_to_pending", _added, raw=True)
    event.listen(Session, "after_commit", _committed)
    event.listen(Session, "after_rollback", _rolled_back)
    event.listen(Session, "after_transaction_end", _ended)
    # With one for "before_cursor_execute", every statement would cost three times that.
    event.listen(Engine, "do_execute", _executing)
    event.listen(Engine, "do_executemany", _executing)
    event.listen(Engine, "do_execute_no_params", _executing_bare)
    event.listen(Engine, "handle_error", _failed)
    event.listen(Pool, "connect", _opened)
    return True


def _opened(_connection: object, record: ConnectionPoolEntry) -> None:
    claim(record.driver_connection)


def _began(session: Session, transaction: SessionTransaction) -> None:
    """Note a session's transaction, before it has a connection; a flush is none."""
    if transaction.origin is _FLUSH:
        return
    outer = None
    if transaction.nested:
        outer = session.get_nested_transaction() or session.get_transaction()
    bind = session.bind
    begun(transaction, None if bind is None else bind.engine, outer)


def _connected(
    session: Session, transaction: SessionTransaction, connection: Connection
) -> None:
    """Tie the session to the connection's transaction, its own or one it joins.

    One that it has begun itself is noted only here, see `_touch`; usually both go by
    one gate. Not where the session's transaction was begun elsewhere: calls of this
    unit may not see that.
    """
    of_session, of_connection = notes.get(id(transaction)), innermost(connection)
    if of_session is not None and session.bind is None:
        of_session.engine = connection.engine
    if of_connection is None and not connection._is_autocommit_isolation():
        own = connection.get_transaction()
        if (
            of_session is not None
            and session.bind is not None
            and is_of_here(of_session)
        ):
            share(of_session, own)
            return
        of_connection = begun(own, connection.engine)
    if of_connection is not None and of_session is not None:
        of_connection.session = of_session


def _added(session: Session, _state: object) -> None:
    note = innermost(session)
    if note is not None:
        note.write()


def _committed(session: Session) -> None:
    """COMMIT has returned, on all connections; or RELEASE SAVEPOINT has."""
    note = innermost(session)
    if note is not None:
        note.release()


def _rolled_back(session: Session) -> None:
    note = innermost(session)
    if note is not None:
        note.drop()


def _ended(_session: Session, transaction: SessionTransaction) -> None:
    note = notes.get(id(transaction))  # None for a flush
    if note is not None and note.state == "closed":
        note.end()


def _executing(
    _cursor: object,
    statement: str,
    _parameters: object,
    context: ExecutionContext | None,
) -> None:
    if context is None or statement.startswith("SELECT "):
        return
    note = innermost(context.root_connection)
    if note is not None and writes(statement):
        note.write()


def _executing_bare(
    cursor: object, statement: str, context: ExecutionContext | None
) -> None:
    _executing(cursor, statement, None, context)


def _failed(context: ExceptionContext) -> None:
    """Note that a statement failed, and whether it took the transaction with it."""
    connection = context.connection
    note = None if connection is None else note_of(connection.get_transaction())
    if note is not None:
        note.failed = True
        if context.dialect.name in {"mysql", "mariadb"}:
            code = context.original_exception.args[:1]
            note.lost = note.lost or code == (_MYSQL_DEADLOCK,)
