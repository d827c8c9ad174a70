"""SQLAlchemy 2: `postlude.transactions.sqlalchemy.install()`, once, and calls wait.

From then on a deferred call waits for each transaction and savepoint that is open
around it: those of a `Session` in all its forms (`AsyncSession`, `scoped_session`,
SQLModel, Flask-SQLAlchemy, advanced-alchemy) and those of a `Connection` in all of its
own (`engine.begin()`, autobegun, savepoints, two-phase). What counts is what the
database did: a session and the transaction that it begins on a connection go by one
gate. Where it joins another's, calls wait for both, and what the connection hears is
passed on to the session.

A gate opens upon a COMMIT that returned; a RELEASE that returned hands its calls to
what is around it. The rest is an end without commit:

- `rollback()`, and a commit that fails: dropped, even if nothing was written. Whoever
  says rollback means that it shall not have happened.
- `close()`, and a session or connection that is given up: dropped if it wrote, opened
  if it only read. Writing is every statement that is not known to read, and what was
  added, deleted or changed in a session and never flushed.
- AUTOCOMMIT is no transaction, so such a connection has no gate.

Nothing here asks the database anything, but for one case: PostgreSQL answers the COMMIT
of a transaction in which a statement failed with a silent rollback, so after an error a
`SELECT 1` goes before the commit, and fails then.

Not seen: what is done with the driver's own connection, functions that write inside a
SELECT, COMMIT as the text of a statement, and what was deleted or changed in a session
that is given up without `close()`.
"""

from __future__ import annotations

from postlude.transactions.sqlalchemy._events import listen
from postlude.transactions.sqlalchemy._touch import touch

__all__ = ["install"]


def install() -> None:
    """Have calls wait for the transactions of every engine and session of this process.

    Once, where the application makes its engine. A second time does nothing.
    """
    if listen():
        touch()
