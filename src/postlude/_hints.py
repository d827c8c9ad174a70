"""The hint in the log line of a call that failed on what ended with its request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from postlude._inspector import found

if TYPE_CHECKING:
    from postlude._call import DeferredCall

_LONGEST_CHAIN = 5
_INSTANCE = (
    "it used an ORM instance of its request; pass its key (`order.id`) and load it "
    "again in the call"
)
_EAGER = (
    "it used an ORM instance that loads what is missing only when asked; pass its key "
    "(`order.id`) and load it in the call, with all that the call reads"
)
_SESSION = (
    "it used a session or connection of its request; open one in the call: "
    "`with Session.begin() as session:`"
)
_SYNC_ONLY = (
    "Django's ORM was asked from an async call, perhaps by a lazy `request.user`; pass "
    "its key (`user.pk`), and load it with `await` or in a sync function"
)
_REQUEST = (
    "it used the request, which is over; pass what the call needs (`request.path`)"
)
_FILE = (
    "it used a body or an upload that was closed with its request; read it before the "
    "answer and pass the bytes"
)
_DB_SESSION = (
    "it used an entity of its request, or no db_session; pass its key (`order.id`) and "
    "load it again in the call, inside `with db_session:`"
)

# The class, or one that it inherits from; what its text must have, in lower case; and
# the hint. The first line that fits holds. No library is imported for it.
_HINTS: tuple[tuple[str, str, str], ...] = (
    ("sqlalchemy.orm.exc.DetachedInstanceError", "", _INSTANCE),
    ("sqlalchemy.exc.MissingGreenlet", "", _EAGER),
    ("sqlalchemy.exc.PendingRollbackError", "", _SESSION),
    ("sqlalchemy.exc.InvalidRequestError", "closed", _SESSION),
    ("sqlalchemy.exc.InvalidRequestError", "in 'committed' state", _SESSION),
    ("sqlalchemy.exc.InvalidRequestError", "concurrent operations", _SESSION),
    ("sqlalchemy.exc.InvalidRequestError", "is already attached to session", _INSTANCE),
    ("sqlalchemy.exc.InvalidRequestError", "not persistent within this", _INSTANCE),
    ("django.core.exceptions.SynchronousOnlyOperation", "", _SYNC_ONLY),
    ("django.db.utils.DatabaseError", "only be used in that same thread", _SESSION),
    ("django.db.utils.Error", "connection already closed", _SESSION),
    ("django.db.utils.Error", "connection is closed", _SESSION),
    ("django.db.utils.Error", "closed database", _SESSION),
    ("psycopg.Error", "connection is closed", _SESSION),
    ("psycopg.Error", "cursor is closed", _SESSION),
    ("asyncpg.exceptions._base.InterfaceError", "released back to the pool", _SESSION),
    ("asyncpg.exceptions._base.InterfaceError", "is closed", _SESSION),
    ("sqlite3.ProgrammingError", "closed", _SESSION),
    ("sqlite3.ProgrammingError", "only be used in that same thread", _SESSION),
    ("pony.orm.core.DatabaseSessionIsOver", "", _DB_SESSION),
    ("pony.orm.core.TransactionError", "db_session is required", _DB_SESSION),
    ("builtins.RuntimeError", "working outside of request context", _REQUEST),
    ("starlette.requests.ClientDisconnect", "", _FILE),
    ("builtins.ValueError", "i/o operation on closed file", _FILE),
    ("builtins.ValueError", "of closed file", _FILE),
)


def hint(call: DeferredCall, exc: BaseException) -> str | None:
    """Say what to pass instead, if *exc* is how things fail that ended with a request.

    The inspector's words if it finds such a thing in the call, which names the
    argument; else what such an exception means as a rule.
    """
    general = next(filter(None, map(_general, _chain(exc))), None)
    if general is None:
        return None
    for finding in found(call):
        return f"it holds {finding.what} ({finding.place}). {finding.fix}"
    return general


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """Give the exception and what it was raised from: drivers' errors are wrapped."""
    for _ in range(_LONGEST_CHAIN):
        yield exc
        if exc.__cause__ is None:
            return
        exc = exc.__cause__


def _general(exc: BaseException) -> str | None:
    names = {f"{cls.__module__}.{cls.__qualname__}" for cls in type(exc).__mro__}
    try:
        text = str(exc).lower()
    except BaseException:  # noqa: BLE001 - a str of the user's may do anything
        text = ""
    for name, fragment, general in _HINTS:
        if name in names and fragment in text:
            return general
    return None
