"""Django: calls wait for `atomic()`, its savepoints, and `ATOMIC_REQUESTS`.

```python
from postlude.transactions import django

django.install()  # after django.setup(); PostludeMiddleware does it by itself
```

A call deferred inside `atomic()` waits for every database that has a block open there,
and goes with the innermost savepoint that is rolled back around it. The transaction
that wraps a `TestCase` does not count: the outermost block inside it plays its part.

Django tells of a commit, but neither of a rollback nor of the end of a block inside a
test. So this file, and no other, knows these private parts of it, checked on Django
4.2, 5.2 and 6.1: `run_on_commit`, a list that a rollback replaces by one without what
was rolled back; `atomic_blocks` and `Atomic._from_testcase`; `execute_wrappers`, to
which `execute_wrapper()` can only add at the inner end; `savepoint_ids`,
`needs_rollback` and `closed_in_transaction`.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from asgiref.sync import AsyncToSync
from django.db import connections
from django.db.backends.signals import connection_created

from postlude._log import logger
from postlude._scope import DeferScope, current
from postlude.exceptions import STATEMENTS_ELSEWHERE, StatementError
from postlude.transactions._around import install_probe
from postlude.transactions._execute import Execute
from postlude.transactions._gate import Gate
from postlude.transactions._stack import claim
from postlude.transactions._statements import pyformat

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

    from django.db.backends.base.base import BaseDatabaseWrapper

    from postlude.transactions._execute import Callback

__all__ = ["install"]

NO_AUTOCOMMIT = (
    "Deferred calls do not wait for the transaction on %s: its autocommit is off, and "
    "Django tells nobody of a commit then. Usually `set_autocommit(False)` or the "
    "setting `AUTOCOMMIT` turned it off. Use `with transaction.atomic():` instead, or "
    "put your own commit at the end of a `with postlude.transaction():`."
)


def install() -> None:
    """Have calls wait for Django's transactions, in every thread.

    The middleware of `postlude.integrations.django` does it by itself. Commands,
    workers and scripts that have none say it once. Asking opens no connection.

    Raises:
        ImproperlyConfigured: Django has no settings yet.
    """
    connections.settings  # noqa: B018 - raises here rather than at somebody's defer()
    connection_created.connect(_note_opened, dispatch_uid=__name__)
    install_probe(_gates)


def leave_out(unit: DeferScope) -> None:
    """Take the blocks open around *unit*, a test's request, for those of the test."""
    _outside[unit] = {
        connection.alias: len(connection.atomic_blocks) for connection in _connections()
    }


_outside: WeakKeyDictionary[DeferScope, dict[str, int]] = WeakKeyDictionary()
_warned: set[str] = set()


def _gates() -> Generator[Gate]:
    """Find the transactions that are open here; asked at every `defer()`."""
    for connection in _connections():
        if not connection.in_atomic_block:
            if not connection.autocommit and connection.connection is not None:
                _warn(connection)
        elif not (connection.commit_on_exit or connection.settings_dict["AUTOCOMMIT"]):
            _warn(connection)
        elif depth := _depth(connection):
            if len(connection.atomic_blocks) > depth:
                yield _rehearsal(connection, depth).gate()
        elif connection.closed_in_transaction:
            # Lost, and Django keeps no hooks of it: drop the call once it waits.
            stake = _Stake(connection, _Commit())
            yield stake.gate
            del stake
        else:
            yield _gate(connection)


def _warn(connection: BaseDatabaseWrapper) -> None:
    if connection.alias not in _warned:
        _warned.add(connection.alias)
        logger.warning(NO_AUTOCOMMIT, connection.alias)


# -- whose connections ----------------------------------------------------------


class _Here(threading.local):
    """What a thread remembers: Django takes 3 microseconds per connection to tell."""

    found: tuple[BaseDatabaseWrapper, ...] | None = None
    unsafe = False


_here = _Here()
_opened: dict[ref[BaseDatabaseWrapper], threading.Thread] = {}
"""Which thread has opened which connection."""


def _connections() -> Iterable[BaseDatabaseWrapper]:
    """Give the connections that code here works with, and perhaps more."""
    loop = asyncio._get_running_loop()
    if loop is not None:
        return _around(loop)
    if _here.found is None:
        _here.found = tuple(connections.all(initialized_only=True))
    return _here.found


def _around(loop: asyncio.AbstractEventLoop) -> Iterable[BaseDatabaseWrapper]:
    """Give those of the code that waits for the loop, in this thread or another.

    The loop opens none, unless DJANGO_ALLOW_ASYNC_UNSAFE is set. But a block may be
    around `asyncio.run()`, or around `async_to_sync()`, whose thread asgiref does not
    tell; checked on asgiref 3.7 to 3.13.
    """
    inside = [
        (connection, thread)
        for reference, thread in _opened.copy().items()  # one goes at any moment
        if (connection := reference()) is not None and connection.in_atomic_block
    ]
    found: set[BaseDatabaseWrapper] = set()
    if _here.unsafe:
        found.update(connections.all(initialized_only=True))
    if inside:
        outer: Any = AsyncToSync.loop_thread_executors.get(loop)
        inner: Any = getattr(AsyncToSync.executors, "current", None)
        threads = {threading.current_thread()}
        for executor in (outer, inner):
            if executor is not None and not executor._broken:
                threads.add(executor._work_thread)
        found.update(connection for connection, thread in inside if thread in threads)
    return found


def _note_opened(connection: BaseDatabaseWrapper, **_signal: object) -> None:
    """Note that this thread has opened a connection, for the first time or again."""
    claim(connection.connection)
    if connection not in (_here.found or ()):
        _here.found = None
    if asyncio._get_running_loop() is None:
        _opened[ref(connection, _forget)] = threading.current_thread()
    else:  # then each task has its own
        _here.unsafe = True


def _forget(connection: ref[BaseDatabaseWrapper]) -> None:
    _opened.pop(connection, None)


# -- a transaction ------------------------------------------------------------


class _Open(Gate):
    """The gate of a call deferred in a block, which takes statements at once."""

    __slots__ = ("connection", "path")
    executes_now = True

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        super().__init__(connection.alias)
        self.supports_statements = True
        self.connection = ref(connection)
        self.path = list(connection.savepoint_ids)
        """The savepoints around the gate, outermost first."""

    def before_commit(self, callback: Callback) -> None:
        """Call back now: Django tells nobody that it is about to commit.

        Raises:
            StatementError: this is not the block that the call was deferred in, which
                its statements have to share the fate of.
        """
        connection = self.connection()
        if (
            connection is None
            or not connection.in_atomic_block
            or connection.savepoint_ids != self.path
        ):
            raise StatementError(STATEMENTS_ELSEWHERE.format(database=self.database))

        def run(sql: str, params: Mapping[str, Any]) -> list[tuple[Any, ...]]:
            with connection.cursor() as cursor:
                cursor.execute(pyformat(sql), params)
                return [*map(tuple, cursor)] if cursor.description else []

        callback(Execute(self.database, connection.vendor, run))


def _gate(connection: BaseDatabaseWrapper) -> Gate:
    """Give the gate of calls deferred here; neighbours share one."""
    hooks: Any = connection.run_on_commit
    commit = getattr(hooks[0][1], "__self__", None) if hooks else None
    if type(commit) is not _Commit:
        commit = _Commit()
        connection.on_commit(commit.came, robust=True)
        # To the front: a user's hook that raises costs those behind it, Django says.
        hooks.insert(0, hooks.pop())
    if commit.path != connection.savepoint_ids:
        stake = _Stake(connection, commit)
        connection.on_commit(stake.kept, robust=True)
        commit.gates[stake.gate] = None
        commit.last = stake.gate
        commit.path = list(connection.savepoint_ids)
    return commit.last


class _Commit:
    """What Django calls when the transaction has been committed."""

    __slots__ = ("gates", "last", "path")

    last: Gate

    def __init__(self) -> None:
        self.gates: dict[Gate, None] = {}
        """Those that no savepoint took away, in order."""
        self.path: list[str] | None = None
        """The savepoints around the last gate, outermost first."""

    def came(self) -> None:
        for gate in list(self.gates):
            gate.open()


class _Stake:
    """What Django holds, and nobody else, as long as a transaction may be committed.

    So it goes at once when Django rolls back, or a savepoint, and forgets its hooks.
    """

    __slots__ = ("commit", "gate")

    def __init__(self, connection: BaseDatabaseWrapper, commit: _Commit) -> None:
        self.commit = commit
        self.gate = _Open(connection)
        self.gate.wrote = True  # rolled back is rolled back, whatever was done

    def kept(self) -> None:
        """Do nothing: `_Commit` was called before."""

    def __del__(self) -> None:
        self.commit.path = None
        self.commit.gates.pop(self.gate, None)
        self.gate.abandon()


# -- inside a test's own transaction ------------------------------------------


def _depth(connection: BaseDatabaseWrapper) -> int:
    """Count the outermost blocks that are the test's own."""
    depth = 0
    blocks: list[Any] = connection.atomic_blocks
    for block in blocks:
        if not block._from_testcase:
            break
        depth += 1
    unit = current.get() if _outside else None
    while unit is not None:
        depth = max(depth, _outside.get(unit, {}).get(connection.alias, 0))
        unit = unit._outer
    return depth


def _rehearsal(connection: BaseDatabaseWrapper, depth: int) -> _Rehearsal:
    for wrapper in connection.execute_wrappers:
        if isinstance(wrapper, _Rehearsal) and wrapper.depth == depth:
            return wrapper
    rehearsal = _Rehearsal(connection, depth)
    connection.execute_wrappers.insert(0, rehearsal)  # users take theirs from the end
    return rehearsal


class _Rehearsal:
    """A transaction inside that of a test: a savepoint, whose release is the commit.

    The wrappers of queries tell of it. Django's list of hooks would tell of a rollback,
    but `captureOnCommitCallbacks` is to count those of users only.
    """

    def __init__(self, connection: BaseDatabaseWrapper, depth: int) -> None:
        self.connection = connection
        self.depth = depth
        self.silent = connection.savepoint_ids[depth - 1] is None
        """Whether its block has `savepoint=False`, and so ends without a query."""
        self.gates: list[_Rehearsed] = []

    def gate(self) -> _Rehearsed:
        """Make a gate for a call deferred here."""
        gate = _Rehearsed(self)
        self.gates.append(gate)
        return gate

    def __call__(
        self,
        execute: Callable[..., Any],
        sql: str,
        params: Any,
        many: bool,
        context: dict[str, Any],
    ) -> Any:
        """Run a query, and see what it did to the savepoints."""
        result = execute(sql, params, many, context)
        if isinstance(sql, str) and sql.startswith("ROLLBACK"):
            undo = self.connection.ops.savepoint_rollback_sql
            for gate in self.gates:
                if any(sql == undo(sid) for sid in gate.path if sid is not None):
                    gate.drop()
        self.look()
        return result

    def look(self) -> None:
        """End the gates if the outermost block inside the test has been left."""
        if len(self.connection.atomic_blocks) > self.depth:
            return
        if self in self.connection.execute_wrappers:
            self.connection.execute_wrappers.remove(self)
        for gate in self.gates:
            if self.connection.needs_rollback:
                gate.drop()
            else:
                gate.open()


class _Rehearsed(_Open):
    """The gate of a call deferred in a test."""

    __slots__ = ("rehearsal",)

    def __init__(self, rehearsal: _Rehearsal) -> None:
        super().__init__(rehearsal.connection)
        self.rehearsal = rehearsal

    def poll(self) -> None:
        """Look where nothing tells; elsewhere the block may be just about to end."""
        super().poll()
        if self.rehearsal.silent:
            self.rehearsal.look()
