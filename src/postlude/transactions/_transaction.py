"""`postlude.transaction()`: a gate of one's own, for drivers that tell nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from postlude.transactions._around import begin

if TYPE_CHECKING:
    from types import TracebackType

    from postlude.transactions._gate import Gate


class Transaction:
    """A block around a transaction: calls deferred in it wait for its end.

    Left without an exception it counts as committed, with one as rolled back. Sync and
    async alike. `commit()` and `rollback()` say it earlier; the first word holds.
    """

    def __init__(self, database: str, outer: Transaction | None = None) -> None:
        """Not for users: `transaction()` and `savepoint()` make these."""
        self._database = database
        self._outer = outer
        self._gate: Gate | None = None

    def savepoint(self) -> Transaction:
        """Give a block around a savepoint: rolled back, it drops its own calls only."""
        return Transaction(self._database, self)

    def commit(self) -> None:
        """Say that the transaction has been committed (or the savepoint released)."""
        if self._gate is not None:
            self._gate.release()

    def rollback(self) -> None:
        """Say that it has been rolled back."""
        if self._gate is not None:
            self._gate.drop()

    def __enter__(self) -> Self:
        """Close the gate.

        Raises:
            RuntimeError: the block is open already.
        """
        if self._gate is not None and self._gate.state == "closed":
            raise RuntimeError(
                "This transaction() block has been entered already. Usually one object "
                "was shared between tasks. Make one per transaction: "
                "`with postlude.transaction():`."
            )
        outer = self._outer._gate if self._outer is not None else None
        self._gate = begin(self._database, outer)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Open the gate, or drop it if the block raised."""
        if exc is None:
            self.commit()
        else:
            self.rollback()

    async def __aenter__(self) -> Self:
        """Close the gate, like `with`."""
        return self.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Open the gate, or drop it if the block raised."""
        self.__exit__(exc_type, exc, traceback)


def transaction(database: str = "the database") -> Transaction:
    """Make calls deferred in this block wait for its end, and go if it raises (B3, C2).

    For drivers and libraries that Postlude has no file for. The database's own block
    stands inside, so that it has committed when this one is left:

        with postlude.transaction("orders.db"), connection:
            connection.execute("INSERT ...")
            defer(send_mail, order_id)

    *database* names it in records.
    """
    return Transaction(database)
