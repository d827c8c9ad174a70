"""What is known of each transaction, by SQLAlchemy's own object for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

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

    __slots__ = ("connections", "failed", "gate", "lost", "session")

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.session: Gate | None = None
        """The gate of the session that works in this transaction of a connection."""
        self.connections: tuple[ref[Connection], ...] = ()
        """Those on which a session works in this transaction. They know the session,
        which is to be collected if nobody else knows it."""
        self.failed = False
        """Whether something failed in it, so that its commit may not be one."""
        self.lost = False
        """Whether its commit will not be one."""

    def __del__(self) -> None:
        if self.gate.outer is None:  # a savepoint goes with what is around it
            self.gate.wrote = _wrote(self.gate)
            self.gate.abandon()

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
_names: WeakKeyDictionary[Dialect, str] = WeakKeyDictionary()


def begun(transaction: object, outer: object, database: str) -> None:
    """Note that a transaction has begun, or a savepoint in *outer*."""
    around = note_of(outer)
    if around is None or _is_of_the_test(around.gate):
        gate = begin(database)
    else:
        gate = begin(database, around.gate)
    gate.supports_statements = True
    _notes[ref(transaction, _notes.__delitem__)] = Note(gate)


def note_of(transaction: object) -> Note | None:
    """Give what is known of a transaction; None if it began before `install()`."""
    return None if transaction is None else _notes.get(ref(transaction))


def innermost(owner: Session | Connection) -> Note | None:
    """Give what is known of the transaction or savepoint in which *owner* works."""
    transaction = owner.get_nested_transaction() or owner.get_transaction()
    return None if transaction is None else _notes.get(ref(transaction))


def _is_of_the_test(gate: Gate) -> bool:
    """Tell whether *gate* began outside the request that runs here (AC9)."""
    scope = current.get()
    while scope is not None and scope._entered:
        scope = scope._outer
    return scope is not None and gate.unit is None


def name_of(engine: Engine) -> str:
    """Name the database without user, password and options, which may hold one."""
    name = _names.get(engine.dialect)  # engines made by execution_options() share it
    if name is None:
        url = engine.url
        shown = URL.create(
            url.get_backend_name(), host=url.host, port=url.port, database=url.database
        )
        name = shown.render_as_string()
        _names[engine.dialect] = name
    return name
