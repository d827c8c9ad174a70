"""What SQLAlchemy's events tell: of all sessions, and of all statements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast
from weakref import ref

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
    name_of,
    note_of,
    share,
)

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, ExceptionContext, ExecutionContext
    from sqlalchemy.orm import SessionTransaction
    from sqlalchemy.pool import ConnectionPoolEntry

_MYSQL_DEADLOCK = 1213


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
    for name in ("do_execute", "do_execute_no_params", "do_executemany"):
        event.listen(Engine, name, _executing)
    event.listen(Engine, "handle_error", _failed)
    event.listen(Pool, "connect", _opened)
    return True


def _opened(_connection: object, record: ConnectionPoolEntry) -> None:
    claim(record.driver_connection)


def _began(session: Session, transaction: SessionTransaction) -> None:
    """Note a session's transaction, before it has a connection; a flush is none."""
    if transaction.origin is SessionTransactionOrigin.SUBTRANSACTION:
        return
    outer = None
    if transaction.nested:
        outer = session.get_nested_transaction() or session.get_transaction()
    bind = session.bind
    name = "a session of SQLAlchemy" if bind is None else name_of(bind)
    begun(transaction, outer, name)


def _connected(
    session: Session, transaction: SessionTransaction, connection: Connection
) -> None:
    """Tie the session to the connection's transaction, its own or one it joins.

    One that it has begun itself is noted only here, see `_touch`; usually both go by
    one gate. Not where the session's transaction was begun elsewhere: calls of this
    unit may not see that.
    """
    of_session, of_connection = note_of(transaction), innermost(connection)
    if of_session is not None:
        of_session.connections += (ref(connection),)
        if session.bind is None:
            of_session.gate.database = name_of(connection)
    if of_connection is None and not connection._is_autocommit_isolation():
        own = connection.get_transaction()
        if (
            of_session is not None
            and session.bind is not None
            and is_of_here(of_session.gate)
        ):
            share(of_session, own)
            return
        begun(own, None, name_of(connection))
        of_connection = note_of(own)
    if of_connection is not None and of_session is not None:
        of_connection.session = of_session.gate


def _added(session: Session, _state: object) -> None:
    note = innermost(session)
    if note is not None:
        note.write()


def _committed(session: Session) -> None:
    """COMMIT has returned, on all connections; or RELEASE SAVEPOINT has."""
    note = innermost(session)
    if note is not None:
        note.gate.release()


def _rolled_back(session: Session) -> None:
    note = innermost(session)
    if note is not None:
        note.gate.drop()


def _ended(_session: Session, transaction: SessionTransaction) -> None:
    if transaction.origin is SessionTransactionOrigin.SUBTRANSACTION:
        return
    note = note_of(transaction)
    if note is not None and note.gate.state == "closed":
        note.end()


def _executing(_cursor: object, statement: str, *rest: Any) -> None:
    if statement.startswith("SELECT ") or (context := rest[-1]) is None:
        return
    note = innermost(cast("ExecutionContext", context).root_connection)
    if note is not None and writes(statement):
        note.write()


def _failed(context: ExceptionContext) -> None:
    """Note that a statement failed, and whether it took the transaction with it."""
    connection = context.connection
    note = None if connection is None else note_of(connection.get_transaction())
    if note is not None:
        note.failed = True
        if context.dialect.name in {"mysql", "mariadb"}:
            code = context.original_exception.args[:1]
            note.lost = note.lost or code == (_MYSQL_DEADLOCK,)
