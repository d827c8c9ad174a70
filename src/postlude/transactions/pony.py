"""Pony ORM 0.7: `postlude.transactions.pony.install()`, once, and calls wait.

From then on a deferred call waits for each database that its `db_session` has used so
far, and for what was not flushed yet. `commit()`, `rollback()`, both also of one
`Database`, the end of the session and its retries count; what follows a `commit()` in
the same session is a transaction of its own. Where Pony commits one of several
databases and another one fails, calls that waited for both are dropped.

Pony tells nobody of an end. All roads lead through `pony.orm.core.SessionCache`, one
per session and database, so these methods of it are wrapped: `__init__`, `commit`
and `close`. Checked on Pony 0.7.20.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from postlude.transactions._stack import Stack
from postlude.transactions._subclasses import wrap

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["install"]

_core: Any = import_module("pony.orm.core")
_stacks: WeakKeyDictionary[Any, Stack] = WeakKeyDictionary()


def install() -> None:
    """Have calls wait for the sessions of every Pony database of this process.

    Once, at any time. A second time does nothing.
    """
    wrap(
        _core.SessionCache,
        {
            "__init__": _beginning,
            "commit": _committing,
            "close": _closing,
        },
    )


def _beginning(original: Callable[..., Any]) -> Callable[..., Any]:
    def __init__(self: Any, database: Any) -> None:  # noqa: N807 - Pony's name for it
        original(self, database)
        _stacks[self] = Stack()
        _begin(self)

    return __init__


def _committing(original: Callable[..., Any]) -> Callable[..., Any]:
    def commit(self: Any) -> None:
        original(self)  # one that fails closes the cache, with a rollback
        stack = _stacks.get(self)
        if stack is not None:
            stack.commit()
            _begin(self)  # the session goes on

    return commit


def _closing(original: Callable[..., Any]) -> Callable[..., Any]:
    def close(self: Any, rollback: bool = True) -> None:
        stack = _stacks.pop(self, None)
        try:
            original(self, rollback)
        finally:
            if stack is not None:
                stack.drop() if rollback else stack.commit()

    return close


def _begin(cache: Any) -> None:
    stack = _stacks[cache]
    stack.begin(_name_of(cache.database))
    stack.wrote()  # Pony keeps what is new to itself, and writes when it must


def _name_of(database: Any) -> str:
    """Name a database for records, without user and password."""
    provider = database.provider
    kind, pool = provider.dialect.lower(), provider.pool
    if hasattr(pool, "filename"):
        return f"{kind}:///{pool.filename}"
    given = pool.kwargs
    names = [given[key] for key in ("dbname", "database", "db") if key in given]
    port = f":{given['port']}" if "port" in given else ""
    return f"{kind}://{given.get('host', '')}{port}/{names[0] if names else ''}"
