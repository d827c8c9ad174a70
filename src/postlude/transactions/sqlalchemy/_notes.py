"""What is known of each transaction, by SQLAlchemy's own object for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

from sqlalchemy.engine import URL

from postlude._scope import current
from postlude.transactions._around import begin

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Dialect, Engine
    from sqlalchemy.orm import Session

    from postlude.transactions._gate import Gate

UNFINISHED = "was never committed"


class Note:
    """What is known of a transaction or savepoint, of a connection or a session."""

    shared = False
    """Whether this is known of a session's transaction and of those that it began on
    its connections: then the session says when it is over."""
    session: Gate | None = None
    """The gate of the session that works in this transaction of a connection."""
    connections: tuple[ref[Connection], ...] = ()
    """Those on which a session works in this transaction. They know the session, which
    is to be collected if nobody else knows it."""
    failed = False
    """Whether something failed in it, so that its commit may not be one."""
    lost = False
    """Whether its commit will not be one."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def write(self) -> None:
        """It changes data."""
        self.gate.wrote = True
        if self.session is not None:
            self.session.wrote = True

    def drop(self, why: str) -> None:
        """It did not commit; nor will the session, whatever it says."""
        closed = self.gate.state == "closed"
        self.gate.drop(why)
        if closed and self.session is not None:
            self.session.drop(why)

    def end(self) -> None:
        """Nobody said how it ends: no matter, unless something is lost with it."""
        if self.gate.state != "closed":
            return
        if _wrote(self.gate):
            if self.gate.outer is not None:
                self.gate.outer.wrote = True  # unless that commits, more was lost there
            else:
                self.gate.given_up = True
            self.drop(UNFINISHED)
        else:
            self.gate.release()


def _wrote(gate: Gate) -> bool:
    """Tell whether a transaction wrote, or a savepoint that is still open in it."""
    line = [gate]
    for one in line:
        if one.wrote:
            return True
        line += (inner for inner in one._inner if inner.state == "closed")
    return False


_notes: dict[ref[Any], Note] = {}
"""By the transaction. A dict of weak references, as it is asked a dozen times in each
transaction, and a WeakKeyDictionary takes four times as long to answer."""
_names: dict[ref[Dialect], str] = {}


def begun(transaction: object, outer: object, database: str) -> None:
    """Note that a transaction has begun, or a savepoint in *outer*."""
    around = None if outer is None else _notes.get(ref(outer))
    if around is None or _is_of_the_test(around.gate):
        gate = begin(database)
    else:
        gate = begin(database, around.gate)
    gate.supports_statements = True
    _notes[ref(transaction, _forget)] = Note(gate)


def share(session: Note, transaction: object) -> None:
    """Note that a session has begun a transaction of a connection for its own."""
    session.shared = True
    _notes[ref(transaction, _notes.__delitem__)] = session


def _forget(transaction: ref[Any]) -> None:
    """Give up a transaction that is collected, and that nobody can end any more."""
    gate = _notes.pop(transaction).gate
    # A savepoint goes with what is around it.
    if gate.state == "closed" and gate.outer is None:
        gate.wrote = _wrote(gate)
        gate.abandon()


def note_of(transaction: object) -> Note | None:
    """Give what is known of a transaction; None if it began before `install()`."""
    return None if transaction is None else _notes.get(ref(transaction))


def innermost(owner: Session | Connection) -> Note | None:
    """Give what is known of the transaction or savepoint in which *owner* works.

    As `get_nested_transaction() or get_transaction()`, which are calls, and were a
    tenth of what gates cost. Checked on 2.0.38 to 2.1.9, as all in `_touch`.
    """
    transaction = owner._nested_transaction or owner._transaction
    return None if transaction is None else _notes.get(ref(transaction))


def _is_of_the_test(gate: Gate) -> bool:
    """Tell whether *gate* began outside the request that runs here (AC9)."""
    scope = current.get()
    while scope is not None and scope._entered:
        scope = scope._outer
    return scope is not None and gate.unit is None


def name_of(bind: Engine | Connection) -> str:
    """Name the database without user, password and options, which may hold one."""
    # Engines made by execution_options() share a dialect.
    name = _names.get(ref(bind.dialect))
    if name is None:
        url = bind.engine.url
        shown = URL.create(
            url.get_backend_name(), host=url.host, port=url.port, database=url.database
        )
        name = shown.render_as_string()
        _names[ref(bind.dialect, _names.__delitem__)] = name
    return name
