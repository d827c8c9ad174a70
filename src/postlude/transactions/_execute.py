"""Statements of Postlude's own in a transaction of the user's, before its COMMIT."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime

    from postlude._call import DeferredCall

__all__ = ["Execute", "Identity", "before_commit"]

Run = Callable[[str, Mapping[str, object]], list[tuple[Any, ...]]]
_IDENTITY = (
    "SELECT current_database(), "
    "(SELECT oid FROM pg_database WHERE datname = current_database()), "
    "pg_postmaster_start_time()"
)
_identities: dict[str, Identity] = {}


class Identity(NamedTuple):
    """Which database of PostgreSQL this is, by whatever address one came to it."""

    database: str
    oid: int
    started: datetime
    """When its server was started: no two servers share that, but it changes."""


class Execute:
    """Runs statements in one transaction: `execute(sql, params)`, for a short while.

    Given to a callback of `Gate.before_commit()`, in the thread that commits, and of no
    use once the callback has returned. What a statement raises is the driver's own.
    """

    __slots__ = ("_run", "database", "dialect")

    def __init__(self, database: str, dialect: str, run: Run) -> None:
        """Make one for a transaction on *database*, whose SQL is *dialect*."""
        self.database = database
        """The database's name in records, without secrets."""
        self.dialect = dialect
        """`postgresql`, `sqlite`, `mysql`, or what else the library calls it."""
        self._run = run

    def __call__(
        self, sql: str, params: Mapping[str, object] | None = None
    ) -> list[tuple[Any, ...]]:
        """Run *sql*, with parameters named `:name`, and give the rows if there are any.

        What is a parameter is decided as `sqlalchemy.text()` does: `::type` is none,
        nor is a colon after a backslash.
        """
        return self._run(sql, params or {})

    def identity(self, fresh: bool = False) -> Identity | None:
        """Tell which database this is; None where it is not PostgreSQL.

        Asked once for each name of a database in this process, or again if *fresh*:
        after a restart of the server, what is remembered is out of date, so ask again
        before two that differ are taken for two.
        """
        if self.dialect != "postgresql":
            return None
        known = None if fresh else _identities.get(self.database)
        if known is None:
            (row,) = self(_IDENTITY)
            known = _identities[self.database] = Identity(*row)
        return known


Callback = Callable[[Execute], object]


def before_commit(call: DeferredCall, callback: Callback) -> bool:
    """Have *callback* run statements in a transaction that *call* waits for.

    It is registered on each of them that supports statements, and called before each of
    their commits until it has returned anything but False: one of several databases may
    not be the one that it wants. It is not called for a call that was taken back, or
    dropped with a savepoint. See `Gate.before_commit()`.

    Returns:
        Whether any of the transactions supports statements. That one of them commits
        with the callback called is not said: who must know notes it in the callback.

    Raises:
        StatementError: it is too late for a transaction of *call*.
    """
    done = False

    def once(execute: Execute) -> None:
        nonlocal done
        if not done and call.state == "pending" and call._committed is not False:
            done = callback(execute) is not False

    gates = [gate for gate in call._gates or () if gate.supports_statements]
    for gate in gates:
        gate.before_commit(once)
    return bool(gates)
