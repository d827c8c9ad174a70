"""psycopg 3: `postlude.transactions.psycopg.install()`, once, and calls wait.

From then on a deferred call waits for the transaction that is open on a `Connection` or
`AsyncConnection` used here: begun by the first statement, by `transaction()`, by
`tpc_begin()` or by a `BEGIN` of your own. Nested `transaction()` blocks are savepoints.
What counts is what the server did: a COMMIT of a failed transaction drops.

A connection that is closed, or goes back to its pool without a commit, ends what is
open: dropped if it wrote, opened if it only read. `rollback()` always drops. A prepared
transaction is decided by `tpc_commit()` or `tpc_rollback()` on the same connection.

psycopg tells nobody, so public methods of it are wrapped. `Connection.wait()`, through
which every exchange with the server goes, is where a transaction is seen to be open or
over; the methods that end one only leave word of what they mean. Checked on 3.3.

Statements before a commit (`Gate.before_commit`) run on the connection itself, those of
an `AsyncConnection` on its own event loop.

Not seen: savepoints as text, and functions that write inside a SELECT. For connections
that are used directly: SQLAlchemy, Django and Tortoise have files of their own.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from psycopg.sql import Composable

from postlude.transactions._execute import Execute
from postlude.transactions._stack import FAILED, Stack
from postlude.transactions._statements import control, pyformat, writes
from postlude.transactions._subclasses import wrap

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from postlude.transactions._gate import Gate
    from postlude.transactions._subclasses import Wrapper

__all__ = ["install"]


class _Known:
    """What is known of one connection."""

    __slots__ = ("broken", "meant", "stack", "wrote")

    def __init__(self, connection: Any) -> None:
        self.stack = Stack(connection)
        self.meant = "rollback"
        """What it is if the transaction ends now: commit, rollback or prepare."""
        self.broken = False
        """Whether a statement has failed, and a COMMIT will be a rollback."""
        self.wrote = False
        """Whether the last statement may have written."""

    def begin(self, connection: Any) -> None:
        """Note that a transaction is open; nobody has said yet how it will end."""
        info = connection.info
        self.stack.begin(f"postgresql://{info.host}:{info.port}/{info.dbname}")
        root = self.stack.root
        if root is not None:  # None: a layer above tells of this connection
            root.supports_statements = True
        self.meant = "rollback"
        self.broken = False

    def end(self, failed: bool) -> None:
        """Note that it is over."""
        self.wrote = False
        if self.meant == "rollback":
            self.stack.drop()
        elif failed or self.broken:
            self.stack.drop(FAILED)
        else:
            self.stack.commit()


_connections: WeakKeyDictionary[Any, _Known] = WeakKeyDictionary()


def install() -> None:
    """Have calls wait for the transactions of every psycopg connection of this process.

    Once, at any time; a second time does nothing. Covers psycopg_pool if installed.
    """
    wrap(psycopg.Connection, {"wait": _waiting})
    wrap(psycopg.AsyncConnection, {"wait": _awaiting})
    for connection, committing in (
        (psycopg.Connection, _committing),
        (psycopg.AsyncConnection, _acommitting),
    ):
        wrap(
            connection,
            {
                "commit": committing("commit"),
                "rollback": _meaning("rollback"),
                "tpc_prepare": committing("prepare"),
                "tpc_commit": committing("commit"),
                "tpc_rollback": _meaning("rollback"),
                "close": _closing,
            },
        )
    wrap(psycopg.Cursor, {"execute": _executing_text})
    wrap(psycopg.AsyncCursor, {"execute": _aexecuting_text})
    for cursor in (psycopg.Cursor, psycopg.AsyncCursor):
        wrap(cursor, dict.fromkeys(("executemany", "stream", "copy"), _executing))
    wrap(psycopg.Transaction, {"__enter__": _entering, "__exit__": _leaving})
    wrap(psycopg.AsyncTransaction, {"__aenter__": _aentering, "__aexit__": _aleaving})
    try:
        pools = import_module("psycopg_pool")
    except ImportError:
        return
    for pool in (pools.ConnectionPool, pools.AsyncConnectionPool):
        wrap(pool, {"putconn": _giving_back})


# -- what the server says ---------------------------------------------------


def _waiting(original: Callable[..., Any]) -> Callable[..., Any]:
    def wait(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            result = original(self, *args, **kwargs)
        except BaseException:
            _look(self, failed=True)
            raise
        _look(self)
        return result

    return wait


def _awaiting(original: Callable[..., Any]) -> Callable[..., Any]:
    async def wait(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            result = await original(self, *args, **kwargs)
        except BaseException:
            _look(self, failed=True)
            raise
        _look(self)
        return result

    return wait


def _look(connection: Any, failed: bool = False) -> None:
    """Note whether a transaction has begun, broken or ended on the server."""
    known = _known(connection)
    stack = known.stack
    status = connection.pgconn.transaction_status
    if status == TransactionStatus.IDLE:
        if stack and (known.meant != "prepare" or failed or known.broken):
            known.end(failed)
    elif status == TransactionStatus.UNKNOWN:  # the connection is lost
        stack.drop(FAILED) if known.meant == "commit" else stack.end()
    elif stack or status != TransactionStatus.ACTIVE or not connection.autocommit:
        if not stack:
            known.begin(connection)
        if known.wrote:
            stack.wrote()
        known.broken = status == TransactionStatus.INERROR


# -- what is meant ----------------------------------------------------------


def _meaning(what: str) -> Wrapper:
    def wrapper(original: Callable[..., Any]) -> Callable[..., Any]:
        def end(self: Any, *args: Any, **kwargs: Any) -> Any:
            _known(self).meant = what
            return original(self, *args, **kwargs)

        return end

    return wrapper


def _committing(what: str) -> Wrapper:
    def wrapper(original: Callable[..., Any]) -> Callable[..., Any]:
        def end(self: Any, *args: Any, **kwargs: Any) -> Any:
            _call_back(self)
            _mean(self, what)
            return original(self, *args, **kwargs)

        return end

    return wrapper


def _acommitting(what: str) -> Wrapper:
    def wrapper(original: Callable[..., Any]) -> Callable[..., Any]:
        async def end(self: Any, *args: Any, **kwargs: Any) -> Any:
            await _acall_back(self)
            _mean(self, what)
            return await original(self, *args, **kwargs)

        return end

    return wrapper


def _mean(connection: Any, what: str) -> None:
    known = _known(connection)
    known.meant = what
    root = known.stack.root
    if root is not None and what == "prepare":
        root.sealed = True


def _executing(original: Callable[..., Any]) -> Callable[..., Any]:
    def execute(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        _note(self.connection, _text_of(query, self.connection))
        return original(self, query, *args, **kwargs)

    return execute


def _executing_text(original: Callable[..., Any]) -> Callable[..., Any]:
    def execute(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        connection = self.connection
        text = _text_of(query, connection)
        if _commits(connection, text):
            _call_back(connection)
        _note(connection, text)
        return original(self, query, *args, **kwargs)

    return execute


def _aexecuting_text(original: Callable[..., Any]) -> Callable[..., Any]:
    async def execute(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        connection = self.connection
        text = _text_of(query, connection)
        if _commits(connection, text):
            await _acall_back(connection)
        _note(connection, text)
        return await original(self, query, *args, **kwargs)

    return execute


def _note(connection: Any, text: str) -> None:
    known = _known(connection)
    step = control(text)
    if step is not None and step[0] in ("commit", "rollback"):
        known.meant = step[0]
    known.wrote = writes(text)


def _commits(connection: Any, text: str) -> bool:
    """Tell whether a statement commits, and somebody is to be called before."""
    root = _known(connection).stack.root
    if root is None or not root._callbacks:
        return False
    step = control(text)
    return step is not None and step[0] == "commit"


# -- before a commit --------------------------------------------------------
#
# If a statement fails the transaction goes on, and whoever commits it meets it again.


def _called_back(connection: Any) -> Gate | None:
    """Give the transaction's gate if somebody is to be called before its commit."""
    root = _known(connection).stack.root
    if root is None or not root._callbacks:
        return None
    root.wrote = True  # not to be taken for one that only read if that is all of it
    return root


def _call_back(connection: Any) -> None:
    root = _called_back(connection)
    if root is not None:

        def run(sql: str, params: Mapping[str, object]) -> list[tuple[Any, ...]]:
            # Not the connection's own kind of cursor: it may want other parameters.
            with psycopg.Cursor(connection, row_factory=tuple_row) as cursor:
                cursor.execute(pyformat(sql).encode(), params)
                return cursor.fetchall() if cursor.description else []

        root.call_back(Execute(root.database, "postgresql", run))


async def _acall_back(connection: Any) -> None:
    root = _called_back(connection)
    if root is not None:
        from postlude.transactions._bridge import in_thread  # noqa: PLC0415 - asyncio

        async def run(sql: str, params: Mapping[str, object]) -> list[tuple[Any, ...]]:
            cursor = psycopg.AsyncCursor(connection, row_factory=tuple_row)
            async with cursor:
                await cursor.execute(pyformat(sql).encode(), params)
                return await cursor.fetchall() if cursor.description else []

        await in_thread(
            lambda run: root.call_back(Execute(root.database, "postgresql", run)), run
        )


def _closing(original: Callable[..., Any]) -> Callable[..., Any]:
    def close(self: Any) -> Any:
        _known(self).stack.end()
        return original(self)

    return close


def _giving_back(original: Callable[..., Any]) -> Callable[..., Any]:
    def putconn(self: Any, conn: Any) -> Any:
        _known(conn).stack.end()  # the pool says rollback() next, whatever was done
        return original(self, conn)

    return putconn


# -- transaction() ----------------------------------------------------------


def _entering(original: Callable[..., Any]) -> Callable[..., Any]:
    def __enter__(self: Any) -> Any:  # noqa: N807 - Python's name
        inside = _enter(self)
        result = original(self)
        _entered(self, inside)
        return result

    return __enter__


def _aentering(original: Callable[..., Any]) -> Callable[..., Any]:
    async def __aenter__(self: Any) -> Any:  # noqa: N807 - Python's name
        inside = _enter(self)
        result = await original(self)
        _entered(self, inside)
        return result

    return __aenter__


def _leaving(original: Callable[..., Any]) -> Callable[..., Any]:
    def __exit__(self: Any, kind: Any, exc: Any, traceback: Any) -> Any:  # noqa: N807 - Python's name
        failure = None
        if _commits_block(self, exc):
            try:
                _call_back(self.connection)
            except BaseException as raised:  # noqa: BLE001 - raised below
                failure = exc = raised
                kind, traceback = type(raised), raised.__traceback__
        _leave(self, exc)
        try:
            result = original(self, kind, exc, traceback)
        finally:
            _left(self)
        if failure is not None:
            raise failure
        return result

    return __exit__


def _aleaving(original: Callable[..., Any]) -> Callable[..., Any]:
    async def __aexit__(self: Any, kind: Any, exc: Any, traceback: Any) -> Any:  # noqa: N807 - Python's name
        failure = None
        if _commits_block(self, exc):
            try:
                await _acall_back(self.connection)
            except BaseException as raised:  # noqa: BLE001 - raised below
                failure = exc = raised
                kind, traceback = type(raised), raised.__traceback__
        _leave(self, exc)
        try:
            result = await original(self, kind, exc, traceback)
        finally:
            _left(self)
        if failure is not None:
            raise failure
        return result

    return __aexit__


def _enter(block: Any) -> bool:
    known = _known(block.connection)
    inside = bool(known.stack)
    known.wrote = inside and known.wrote  # what autocommit wrote is over
    return inside


def _entered(block: Any, inside: bool) -> None:
    known = _known(block.connection)
    if inside:
        known.stack.savepoint(id(block))
    elif not known.stack:  # in a pipeline, whose answer is still to come
        known.begin(block.connection)


def _commits_block(block: Any, exc: BaseException | None) -> bool:
    if id(block) in _known(block.connection).stack:  # a mere savepoint
        return False
    return exc is None and not block.force_rollback


def _leave(block: Any, exc: BaseException | None) -> None:
    known = _known(block.connection)
    if id(block) not in known.stack:
        known.meant = "commit" if _commits_block(block, exc) else "rollback"


def _left(block: Any) -> None:
    """End a savepoint as its block says it did.

    Where a RELEASE failed the block says so too, but then no COMMIT can follow.
    """
    stack = _known(block.connection).stack
    if block.status == block.Status.COMMITTED:
        stack.release(id(block))
    else:
        stack.rollback(id(block))


# -- one connection ---------------------------------------------------------


def _known(connection: Any) -> _Known:
    known = _connections.get(connection)
    if known is None:
        known = _connections[connection] = _Known(connection)
    return known


def _text_of(query: Any, connection: Any) -> str:
    """Give a query's text; what has none that we know of counts as a write."""
    if isinstance(query, str):
        return query
    if isinstance(query, bytes):
        return query.decode(errors="replace")
    if isinstance(query, Composable):
        return query.as_string(connection)
    return "".join(getattr(query, "strings", ()))  # a template string
