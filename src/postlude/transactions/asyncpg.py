"""asyncpg: `postlude.transactions.asyncpg.install()`, once, and calls wait.

From then on a deferred call waits for each `Connection.transaction()` that is open on a
connection of this task, nested ones as savepoints, whether in an `async with` or by
`start()`, `commit()` and `rollback()`; and for transactions begun and ended as text:
`execute("BEGIN")`. A connection that is closed or goes back to its pool ends what is
open: dropped if it wrote, opened if it only read.

Everything that begins or ends a transaction is a statement that asyncpg itself sends
through `Connection.execute()`; so this public method is wrapped, and for what writes
its siblings; `reset`, `close` and `terminate` for the end of the connection. Private
names in use: `_addr` and `_params`, to name the database. Checked on asyncpg 0.32.

For connections that are used directly. SQLAlchemy and Tortoise have files of their own,
which know more: a connection that SQLAlchemy gives back has been rolled back, even if
it only read.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from postlude.transactions._stack import Stack
from postlude.transactions._statements import control, writes
from postlude.transactions._subclasses import wrap

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["install"]

_asyncpg: Any = import_module("asyncpg")
_stacks: WeakKeyDictionary[Any, Stack] = WeakKeyDictionary()
_QUERYING = (
    "cursor",
    "executemany",
    "fetch",
    "fetchmany",
    "fetchrow",
    "fetchval",
    "prepare",
)
_COPYING = ("copy_records_to_table", "copy_to_table")
_ENDING = ("close", "reset", "terminate")


def install() -> None:
    """Have calls wait for the transactions of every asyncpg connection of this process.

    Once, at any time. A second time does nothing.
    """
    wrap(
        _asyncpg.Connection,
        {
            "execute": _executing,
            **dict.fromkeys(_QUERYING, _querying),
            **dict.fromkeys(_COPYING, _copying),
            **dict.fromkeys(_ENDING, _ending),
        },
    )


def _executing(original: Callable[..., Any]) -> Callable[..., Any]:
    async def execute(self: Any, query: str, *args: Any, **kwargs: Any) -> str:
        step = control(query)
        _note_write(self, query)
        try:
            status: str = await original(self, query, *args, **kwargs)
        except BaseException:
            if step is not None:
                _stack_of(self).follow(*step, "", failed=True)
            raise
        stack = _stack_of(self)
        if step is not None:
            # PostgreSQL answers the COMMIT of a failed transaction with a rollback.
            failed = step[0] == "commit" and status == "ROLLBACK"
            stack.follow(*step, _name_of(self), failed=failed)
        _follow_script(self, stack, status)
        return status

    return execute


def _follow_script(connection: Any, stack: Stack, status: str) -> None:
    """Look what several statements in one text have come to."""
    if connection.is_closed():
        stack.end()
    elif not connection.is_in_transaction():
        stack.commit() if status == "COMMIT" else stack.drop()
    elif not stack:
        stack.begin(_name_of(connection))


def _querying(original: Callable[..., Any]) -> Callable[..., Any]:
    def query(self: Any, query: str, *args: Any, **kwargs: Any) -> Any:
        _note_write(self, query)
        return original(self, query, *args, **kwargs)

    return query


def _copying(original: Callable[..., Any]) -> Callable[..., Any]:
    def copy(self: Any, *args: Any, **kwargs: Any) -> Any:
        _note_write(self, "COPY")
        return original(self, *args, **kwargs)

    return copy


def _ending(original: Callable[..., Any]) -> Callable[..., Any]:
    def end(self: Any, *args: Any, **kwargs: Any) -> Any:
        _stack_of(self).end()
        return original(self, *args, **kwargs)

    return end


def _note_write(connection: Any, query: str) -> None:
    stack = _stacks.get(connection)
    if stack and writes(query):
        stack.wrote()


def _stack_of(connection: Any) -> Stack:
    return _stacks.setdefault(connection, Stack(connection))


def _name_of(connection: Any) -> str:
    """Name a database for records, without user and password."""
    address = connection._addr
    where = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
    return f"postgresql://{where}/{connection._params.database}"
