"""Tortoise ORM 1: `postlude.transactions.tortoise.install()`, once, and calls wait.

From then on a deferred call waits for each `in_transaction()` and `@atomic()` that is
open around it, of any backend, and goes with the nested one that is rolled back around
it. `commit()` and `rollback()` on the connection inside the block count at once.

Tortoise tells nobody of an end, so the public methods of every `TransactionalDBClient`
are wrapped, those that begin, end and execute. `_parent`, which leads from a nested
client to what is around it, is the one private name in use. Checked on Tortoise 1.1.

A call is no part of the transaction that it was deferred in, though Tortoise keeps the
connection of a block in a context variable: the call finds the connection outside.

What Tortoise does inside is followed: a nested `commit()` or `rollback()` is that of
the savepoint with asyncpg and psycopg, and that of the whole transaction with SQLite
and MySQL.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from importlib import import_module
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from postlude import _scope
from postlude.transactions._gate import ROLLED_BACK
from postlude.transactions._stack import FAILED, Stack, claim
from postlude.transactions._statements import writes
from postlude.transactions._subclasses import wrap_subclasses

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from postlude.transactions._subclasses import Wrapper

__all__ = ["install"]

_client: Any = import_module("tortoise.backends.base.client")
_connection: Any = import_module("tortoise.connection")
_stacks: WeakKeyDictionary[Any, Stack] = WeakKeyDictionary()
"""By the client of the outermost block, which stands for the connection."""
_inside: ContextVar[tuple[ref[Any], ...]] = ContextVar("postlude_tortoise", default=())
"""The clients of the outermost blocks around, one for each database."""


def install() -> None:
    """Have calls wait for the transactions of every Tortoise connection here.

    Once, at any time. A second time does nothing.
    """
    wrappers: dict[str, Wrapper] = {
        "begin": _beginning,
        "savepoint": _saving,
        "commit": _committing,
        "rollback": _rolling_back,
        "release_savepoint": _releasing,
        "savepoint_rollback": _rolling_back_to,
        "execute_insert": _executing,
        "execute_many": _executing,
        "execute_query": _executing,
        "execute_query_dict": _executing,
        "execute_script": _executing,
    }
    wrap_subclasses(_client.TransactionalDBClient, wrappers)
    if _outside not in _scope.surroundings:
        _scope.surroundings += (_outside,)


class _Outside:
    """Has a call use the connection outside of transactions that are over (S9)."""

    @contextmanager
    def sync(self) -> Generator[None]:
        """Surround a call that runs in a thread."""
        _leave()
        yield

    @asynccontextmanager
    async def asynchronous(self) -> AsyncGenerator[None]:
        """Surround a call that runs on an event loop."""
        _leave()
        yield


_outside = _Outside()


def _leave() -> None:
    for known in _inside.get():
        client = known()
        if client is not None and not _stack_of(client):
            connections = _connection.get_connections()
            if connections.get(client.connection_name) is client:
                connections.set(client.connection_name, client._parent)


def _beginning(original: Callable[..., Any]) -> Callable[..., Any]:
    async def begin(self: Any) -> None:
        connection = getattr(self, "_connection", None)
        claim(
            getattr(connection, "_con", connection)
        )  # asyncpg's pool gives a face of it
        await original(self)
        stack = _stack_of(self)
        if _root(self) is self:
            stack.begin(self.connection_name, id(self))
            clients = [known() for known in _inside.get()]
            around = [ref(client) for client in clients if client and _stack_of(client)]
            _inside.set((*around, ref(self)))
        else:  # these drivers begin what is nested as they begin the first
            stack.savepoint(id(self))

    return begin


def _saving(original: Callable[..., Any]) -> Callable[..., Any]:
    async def savepoint(self: Any) -> None:
        await original(self)
        stack = _stack_of(self)
        if id(self) not in stack:
            stack.savepoint(_savepoint(self))

    return savepoint


def _committing(original: Callable[..., Any]) -> Callable[..., Any]:
    async def commit(self: Any) -> None:
        try:
            await original(self)
        except BaseException:
            _ended(self, FAILED)
            raise
        _ended(self)

    return commit


def _rolling_back(original: Callable[..., Any]) -> Callable[..., Any]:
    async def rollback(self: Any) -> None:
        try:
            await original(self)
        finally:
            _ended(self, ROLLED_BACK)

    return rollback


def _releasing(original: Callable[..., Any]) -> Callable[..., Any]:
    async def release_savepoint(self: Any) -> None:
        stack = _stack_of(self)
        try:
            await original(self)
        except BaseException:
            stack.rollback(_savepoint(self), FAILED)
            raise
        stack.release(_savepoint(self))

    return release_savepoint


def _rolling_back_to(original: Callable[..., Any]) -> Callable[..., Any]:
    async def savepoint_rollback(self: Any) -> None:
        stack = _stack_of(self)
        try:
            await original(self)
        finally:
            stack.rollback(_savepoint(self))

    return savepoint_rollback


def _executing(original: Callable[..., Any]) -> Callable[..., Any]:
    async def execute(self: Any, query: str, *args: Any, **kwargs: Any) -> Any:
        if writes(query):
            _stack_of(self).wrote()
        return await original(self, query, *args, **kwargs)

    return execute


def _ended(client: Any, why: str | None = None) -> None:
    """End what a client began; if that was a mere savepoint, all that is around it."""
    stack = _stack_of(client)
    whole = _savepoint(client) in stack
    if why is None:
        stack.commit() if whole else stack.release(id(client))
    elif whole:
        stack.drop(why)
    else:
        stack.rollback(id(client), why)


def _stack_of(client: Any) -> Stack:
    return _stacks.setdefault(_root(client), Stack())


def _root(client: Any) -> Any:
    while isinstance(client._parent, _client.TransactionalDBClient):
        client = client._parent
    return client


def _savepoint(client: Any) -> tuple[str, int]:
    """Give the key of a savepoint that its driver does not call a transaction."""
    return "savepoint", id(client)
