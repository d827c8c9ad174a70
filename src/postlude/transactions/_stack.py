"""The transaction of one connection, and the savepoints in it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, ref

from postlude.transactions._around import begin
from postlude.transactions._gate import GIVEN_BACK, ROLLED_BACK

if TYPE_CHECKING:
    from postlude.transactions._gate import Gate

FAILED = "could not be committed"
_claimed: WeakSet[Any] = WeakSet()


def claim(connection: object) -> None:
    """Have the driver's own adapter say nothing of *connection*.

    For a layer above, which uses the driver's connection and tells of its transactions
    itself: it knows a read-only one from a rolled back one, and a test's from an app's.
    """
    with suppress(TypeError):  # of a driver that nobody else looks at
        _claimed.add(connection)


class Stack:
    """The gates of one connection: its transaction, and each savepoint in the last.

    For drivers that tell what happens to a connection and have no object, or none to
    hold on to, for each transaction. Savepoints go by a key of the adapter's choice.
    What is not there cannot end: a second word about the same thing does nothing.

    Keep it no longer than the connection: what is open when it is collected has ended
    without a commit.
    """

    __slots__ = ("_connection", "_gates")

    def __init__(self, connection: object = None) -> None:
        """Know of no transaction yet; never of one if *connection* is claimed."""
        self._gates: list[tuple[object, Gate]] = []
        self._connection = None if connection is None else ref(connection)

    def __bool__(self) -> bool:
        """Whether a transaction is open."""
        return bool(self._gates)

    def __contains__(self, key: object) -> bool:
        return any(known == key for known, _ in self._gates)

    def __del__(self) -> None:
        """Give up what nobody can end any more. Any lock may be held here."""
        if self._gates:
            self._note_writes().abandon()

    @property
    def top(self) -> Any:
        """The key of the innermost savepoint, else of the transaction."""
        return self._gates[-1][0] if self._gates else None

    @property
    def root(self) -> Gate | None:
        """The gate of the transaction, if one is open."""
        return self._gates[0][1] if self._gates else None

    def begin(self, database: str, key: object = None) -> None:
        """Note that a transaction has begun, in place of one that is left over."""
        self.end()
        if self._connection is None or self._connection() not in _claimed:
            self._gates.append((key, begin(database)))

    def savepoint(self, key: object) -> None:
        """Note that a savepoint has been made."""
        if self._gates:
            outer = self._gates[-1][1]
            self._gates.append((key, begin(outer.database, outer)))

    def wrote(self) -> None:
        """Note that a statement wrote, or is about to."""
        if self._gates:
            self._gates[-1][1].wrote = True

    def release(self, key: object) -> None:
        """A savepoint, and what was made in it, became part of what is around it.

        With the key of the transaction itself: it was committed.
        """
        for gate in reversed(self._pop(key)):
            gate.release()

    def rollback(self, key: object, why: str = ROLLED_BACK) -> None:
        """A savepoint was rolled back, or with its key the transaction."""
        for gate in self._pop(key):
            gate.drop(why)

    def commit(self) -> None:
        """The transaction was committed."""
        gates, self._gates = self._gates, []
        if gates:
            gates[0][1].open()

    def drop(self, why: str = ROLLED_BACK) -> None:
        """The transaction was rolled back."""
        gates, self._gates = self._gates, []
        if gates:
            gates[0][1].drop(why)

    def end(self) -> None:
        """The transaction ended without a word: dropped if it wrote, else opened."""
        if not self._gates:
            return
        if self._note_writes().wrote:
            self._gates[0][1].given_up = True
            self.drop(GIVEN_BACK)
        else:
            self.commit()

    def follow(self, step: str, name: str, database: str, failed: bool = False) -> None:
        """Note what a statement did, as `control()` understood it."""
        if step == "commit":
            self.drop(FAILED) if failed else self.commit()
        elif step == "rollback":
            self.drop()
        elif step == "rollback_to" or (step == "release" and failed):
            self.rollback(name)
        elif step == "release":
            self.release(name)
        elif step == "savepoint" and not failed:
            self.savepoint(name)
        elif step == "begin" and not failed and not self:
            self.begin(database)

    def _pop(self, key: object) -> list[Gate]:
        for place in range(len(self._gates) - 1, -1, -1):
            if self._gates[place][0] == key:
                gates = [gate for _, gate in self._gates[place:]]
                del self._gates[place:]
                return gates
        return []

    def _note_writes(self) -> Gate:
        root = self._gates[0][1]
        root.wrote = any(gate.wrote for _, gate in self._gates)
        return root
