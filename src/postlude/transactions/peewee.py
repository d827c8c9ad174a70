"""Peewee 4: `postlude.transactions.peewee.install()`, once, and calls wait.

From then on a deferred call waits for each `atomic()`, `transaction()`, `savepoint()`
and `manual_commit()` transaction that is open on a connection of this thread or task,
of any `Database`, also through a `DatabaseProxy` or a pool. The text of `execute_sql()`
counts too: `BEGIN`, `COMMIT`, `ROLLBACK`, and those of savepoints.

Peewee's own `after_commit()` knows no rollback of a savepoint and no
`manual_commit()`, so these public methods of every `Database` class are wrapped:
`begin`, `commit`, `rollback`, `execute_sql` and `close`. Checked on Peewee 4.5.

Not seen: what is done with the driver's own cursors. `AsyncPostgresqlDatabase` leaves
transactions to asyncpg: install that. A thread that dies inside a transaction of SQLite
leaves nothing to notice, so its calls wait until they count as lost (`commit_wait`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from weakref import finalize

from postlude.transactions._stack import FAILED, Stack
from postlude.transactions._statements import control, writes
from postlude.transactions._subclasses import wrap_subclasses

if TYPE_CHECKING:
    from collections.abc import Callable

    from postlude.transactions._subclasses import Wrapper

__all__ = ["install"]

_peewee: Any = import_module("peewee")
_stacks: dict[int, Stack] = {}
"""By the connection's `id()`: those of SQLite can be in no weak dictionary."""


def install() -> None:
    """Have calls wait for the transactions of every Peewee database of this process.

    Once, at any time. A second time does nothing.
    """
    wrappers: dict[str, Wrapper] = {
        "begin": _beginning,
        "commit": _committing,
        "rollback": _rolling_back,
        "execute_sql": _executing,
        "close": _closing,
    }
    wrap_subclasses(_peewee.Database, wrappers)


def _beginning(original: Callable[..., Any]) -> Callable[..., Any]:
    def begin(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        _stack_to_be(self).begin(_name_of(self))
        return result

    return begin


def _committing(original: Callable[..., Any]) -> Callable[..., Any]:
    def commit(self: Any) -> Any:
        stack = _stack_of(self)
        try:
            result = original(self)
        except BaseException:
            stack.drop(FAILED)
            raise
        stack.commit()
        return result

    return commit


def _rolling_back(original: Callable[..., Any]) -> Callable[..., Any]:
    def rollback(self: Any) -> Any:
        stack = _stack_of(self)
        try:
            return original(self)
        finally:
            stack.drop()

    return rollback


def _executing(original: Callable[..., Any]) -> Callable[..., Any]:
    def execute_sql(self: Any, sql: str, *args: Any, **kwargs: Any) -> Any:
        step = control(sql)
        stack = _stack_of(self)
        if step is None:
            if stack and writes(sql):
                stack.wrote()
            return original(self, sql, *args, **kwargs)
        try:
            result = original(self, sql, *args, **kwargs)
        except BaseException:
            stack.follow(*step, _name_of(self), failed=True)
            raise
        _stack_to_be(self).follow(*step, _name_of(self))
        return result

    return execute_sql


def _closing(original: Callable[..., Any]) -> Callable[..., Any]:
    def close(self: Any) -> Any:
        stack = _stack_of(self)
        result = original(self)
        stack.end()
        return result

    return close


def _stack_of(database: Any) -> Stack:
    """Give the stack of the connection in use here; an empty one if there is none."""
    if _stacks and not database.is_closed():  # else connection() would open one
        stack = _stacks.get(id(database.connection()))
        if stack is not None:
            return stack
    return Stack()


def _stack_to_be(database: Any) -> Stack:
    """Give the stack of the connection in use here, which has just been used."""
    connection = database.connection()
    stack = _stacks.get(id(connection))
    if stack is None:
        stack = _stacks[id(connection)] = Stack()
        try:
            finalize(connection, _stacks.pop, id(connection), None).atexit = False
        except TypeError:  # sqlite3.Connection tells nobody of its end
            pass
    return stack


def _name_of(database: Any) -> str:
    """Name a database for records, without user and password."""
    name = str(database.database)
    if isinstance(database, _peewee.SqliteDatabase):
        return f"sqlite:///{name}"
    mysql = isinstance(database, _peewee.MySQLDatabase)
    scheme = "mysql" if mysql else "postgresql"
    if "://" in name:  # an address, as PostgreSQL's drivers take it
        parts = urlsplit(name)
        return f"{scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if "=" in name:  # or words, of which one may be the password
        return scheme
    host = database.connect_params.get("host", "")
    port = database.connect_params.get("port")
    return f"{scheme}://{host}{f':{port}' if port else ''}/{name}"
