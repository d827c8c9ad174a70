"""What is known of each transaction, by SQLAlchemy's own object for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

from sqlalchemy.engine import URL

from postlude._scope import current
from postlude.transactions._around import enter
from postlude.transactions._gate import Gate

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Dialect, Engine
    from sqlalchemy.orm import Session

    from postlude.transactions._execute import Callback

UNFINISHED = "was never committed"
UNNAMED = "a session of SQLAlchemy"


class Note(Gate):
    """The gate of a transaction or savepoint, of a connection or a session."""

    supports_statements = True
    engine: Engine | None = None
    """Names the database; None while a session with several has used none of them."""
    shared = False
    """Whether this is known of a session's transaction and of those that it began on
    its connections: then the session says when it is over."""
    session: Note | None = None
    """The session that works in this transaction of a connection."""
    failed = False
    """Whether something failed in it, so that its commit may not be one."""
    lost = False
    """Whether its commit will not be one."""

    @property
    def database(self) -> str:
        """Names the database in records, once somebody wants to know."""
        return self._database if self.engine is None else name_of(self.engine)

    def write(self) -> None:
        """It changes data."""
        self.wrote = True
        if self.session is not None:
            self.session.wrote = True

    def undo(self, why: str) -> None:
        """It did not commit; nor will the session, whatever it says."""
        closed = self.state == "closed"
        self.drop(why)
        if closed and self.session is not None:
            self.session.drop(why)

    def end(self) -> None:
        """Nobody said how it ends: no matter, unless something is lost with it."""
        if self.state != "closed":
            return
        if _wrote(self):
            if self.outer is not None:
                self.outer.wrote = True  # unless that commits, more was lost there
            else:
                self.given_up = True
            self.undo(UNFINISHED)
        else:
            self.release()

    def before_commit(self, callback: Callback) -> None:
        """Call *callback* before COMMIT; from the first time on sessions look for it.

        Raises:
            StatementError: the transaction is over or prepared.
        """
        from postlude.transactions.sqlalchemy._touch import (  # noqa: PLC0415 - it needs notes
            watch_commits,
        )

        watch_commits()
        super().before_commit(callback)


def _wrote(gate: Gate) -> bool:
    """Tell whether a transaction wrote, or a savepoint that is still open in it."""
    line = [gate]
    for one in line:
        if one.wrote:
            return True
        line += (inner for inner in one._inner or () if inner.state == "closed")
    return False


notes: dict[int, Note] = {}
"""By the id of SQLAlchemy's object, as it is asked half a dozen times in each
transaction, and a WeakKeyDictionary takes ten times as long to answer."""
_known: dict[ref[Any], int] = {}
"""The ids of those objects. Each leaves before another can get its id."""
_names: dict[ref[Dialect], str] = {}


def begun(transaction: object, engine: Engine | None, outer: object = None) -> Note:
    """Note that a transaction has begun, or a savepoint in *outer*."""
    around = None if outer is None else notes.get(id(outer))
    if around is not None and _is_of_the_test(around):
        around = None
    note = Note(UNNAMED, around)
    note.engine = engine
    enter(note)
    notes[id(transaction)] = note
    _known[ref(transaction, _forget)] = id(transaction)
    return note


def share(session: Note, transaction: object) -> None:
    """Note that a session has begun a transaction of a connection for its own."""
    session.shared = True
    notes[id(transaction)] = session
    _known[ref(transaction, _forget_shared)] = id(transaction)


def _forget(transaction: ref[Any]) -> None:
    """Give up a transaction that is collected, and that nobody can end any more."""
    note = notes.pop(_known.pop(transaction))
    # A savepoint goes with what is around it.
    if note.state == "closed" and note.outer is None:
        note.wrote = _wrote(note)
        note.abandon()


def _forget_shared(transaction: ref[Any]) -> None:
    del notes[_known.pop(transaction)]


def note_of(transaction: object) -> Note | None:
    """Give what is known of a transaction; None if it began before `install()`."""
    return notes.get(id(transaction))


def innermost(owner: Session | Connection) -> Note | None:
    """Give what is known of the transaction or savepoint in which *owner* works.

    As `get_nested_transaction() or get_transaction()`, which are calls, and were a
    tenth of what gates cost. Checked on 2.0.38 to 2.1.9, as all in `_touch`.
    """
    return notes.get(id(owner._nested_transaction or owner._transaction))


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
