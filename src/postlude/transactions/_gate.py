"""One transaction, and the calls that wait for its end."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Literal

from postlude._scope import DeferScope
from postlude.exceptions import (
    STATEMENTS_TOO_LATE,
    STATEMENTS_UNSUPPORTED,
    StatementError,
)

if TYPE_CHECKING:
    from postlude._call import DeferredCall
    from postlude.transactions._execute import Callback, Execute

ROLLED_BACK = "was rolled back"
GIVEN_BACK = "was never committed, and its connection was given back"
_orphans: deque[Gate] = deque()


class Gate:
    """A transaction or savepoint that calls deferred inside it wait for.

    Closed while the transaction runs. Then exactly one of three things happens, once;
    what comes later does nothing. Any thread may do it.

    - `open()`: it was committed, and its calls may run.
    - `drop()`: it was rolled back, and so are its calls (C2).
    - `release()`: a savepoint became part of what is around it, and so do its calls.

    Made by `begin()`; an adapter may also hand one out for each call (`install_probe`).
    """

    # Class attributes are the defaults, as of a call: what is rare costs no request.
    # What every gate is asked for is set on the object: CPython finds it there at once.
    state: Literal["closed", "open", "dropped", "released"]
    why = ""
    """How a dropped transaction ended, to go on "the transaction ..."."""
    wrote = False
    """Whether the transaction changed data, as far as its adapter can tell."""
    given_up = False
    """Whether it wrote and was closed without a word; see `check_committed()`."""
    unit: DeferScope | None = None
    strand: object = None
    """The task or thread that began it; see `around`."""
    began = 0.0
    sealed = False
    """Whether the transaction takes no statement any more: it is prepared."""
    _callbacks: list[tuple[Gate, Callback]] | None = None
    """Of a whole transaction: whom to call before its commit, for which gate."""
    supports_statements: bool = False
    """Whether `before_commit()` can run statements inside this transaction."""
    executes_now = False
    """Whether `before_commit()` calls back at once: the library tells nobody that it is
    about to commit. A savepoint that is rolled back takes the statements along."""
    _calls: list[DeferredCall] | None
    _inner: list[Gate] | None
    """Every savepoint that was made in it, ended or not."""

    def __init__(self, database: str, outer: Gate | None = None) -> None:
        """Close a gate.

        Args:
            database: names the database in records, without secrets.
            outer: for a savepoint, the gate of what is around it.
        """
        self._database = database
        self.outer = outer
        self.state = "closed"
        self._calls = self._inner = None
        if outer is not None:
            self.supports_statements = outer.supports_statements
            outer._take_in([self])

    def __repr__(self) -> str:
        kind = "transaction" if self.outer is None else "savepoint"
        return f"<Gate of a {kind} on {self.database}, {self.state}>"

    @property
    def database(self) -> str:
        """Names the database in records, without secrets."""
        return self._database

    def open(self) -> None:
        """The transaction was committed; with it every savepoint still open in it."""
        self._end()

    def drop(self, why: str = ROLLED_BACK) -> None:
        """The transaction did not commit; nor did any savepoint in it."""
        self._end(why)

    def release(self) -> None:
        """The savepoint was released: its calls wait for what is around it now."""
        outer = self.outer
        if outer is None:
            self._end()
            return
        with DeferScope._lock:
            if self.state != "closed":
                return
            if outer.state == "closed":
                self._pass_on(outer)
                if self.unit is not None:
                    self._leave(self.unit)
                return
        if outer.state == "dropped":
            self._end(outer.why)
        else:
            self._end()

    def abandon(self) -> None:
        """The transaction is gone, and nobody ended it. Safe in a finaliser.

        Such code runs at any moment, also while this thread holds a lock of Postlude's;
        so it is only noted, and done by whoever looks next.
        """
        if self.state == "closed":
            _orphans.append(self)

    def before_commit(self, callback: Callback) -> None:
        """Call *callback* once, right before COMMIT, with a way to run statements.

        They run inside the whole transaction that this gate is of, on its connection
        and in the thread that commits (under asyncio, *callback* is sync all the same).
        What they raise comes out of the user's `commit()`, which then commits nothing.
        A callback whose gate is dropped before is forgotten. A session with several
        databases calls it once for each, before any of them commits.

        Raises:
            StatementError: the library lets nobody in (`supports_statements`), or the
                transaction is over or prepared.
        """
        root = self.settled_in()
        if root.state == "dropped":
            return  # and so are the calls
        if not root.supports_statements:
            raise StatementError(STATEMENTS_UNSUPPORTED.format(database=self.database))
        root = root.root
        if root.sealed or root.state != "closed":
            raise StatementError(STATEMENTS_TOO_LATE.format(database=self.database))
        if root._callbacks is None:
            root._callbacks = []
        root._callbacks.append((self, callback))

    def call_back(self, *executes: Execute) -> None:
        """Call whom `before_commit()` noted, for adapters, right before a COMMIT.

        Whoever raises is called again if somebody tries to commit once more.
        """
        while self._callbacks:
            gate, callback = self._callbacks[0]
            if gate.settled_in().state != "dropped":
                for execute in executes:
                    callback(execute)
            del self._callbacks[0]

    @property
    def root(self) -> Gate:
        """The gate of the whole transaction."""
        gate = self
        while gate.outer is not None:
            gate = gate.outer
        return gate

    def settled_in(self) -> Gate:
        """Give the gate that decides on this one: around it, if it was released."""
        gate = self
        while gate.state == "released" and gate.outer is not None:
            gate = gate.outer
        return gate

    def poll(self) -> None:
        """Look whether the transaction has ended, where nothing tells of it."""
        drop_orphans()

    def wait_for(self, call: DeferredCall) -> None:
        """Have *call*, which has not been registered yet, wait for this gate."""
        with DeferScope._lock:
            if self.state != "closed":
                return
            if self._calls is None:
                self._calls = [call]
            else:
                self._calls.append(call)
            if call._gates is None:
                call._gates = [self]
                call._plain = False
            else:
                call._gates.append(self)

    def _end(self, why: str | None = None) -> None:
        """Settle this gate and those inside, and wake who waited.

        *why* says how it failed; without, it was committed.
        """
        # Not under the lock: it may take long. Savepoints are of the same database.
        database = "" if why is None else self.database
        woken: list[DeferredCall] = []
        with DeferScope._lock:
            if self.state != "closed":
                return  # most ends are told twice
            for gate in (self,) if self._inner is None else self._line():
                if why is None:
                    gate.state = "open"
                else:
                    gate.state, gate.why = "dropped", why
                if gate.unit is not None:
                    gate._leave(gate.unit)
                if gate._calls is not None:
                    gate._tell(database, woken)
        if woken:
            _wake(woken)

    def _line(self) -> list[Gate]:
        """Give this gate and the closed ones inside; they are not asked again."""
        line: list[Gate] = [self]
        for gate in line:  # no recursion: savepoints may be a thousand deep
            if gate._inner is not None:
                line += (inner for inner in gate._inner if inner.state == "closed")
                gate._inner = None
        return line

    def _tell(self, database: str, woken: list[DeferredCall]) -> None:
        """Tell the calls that wait how it ended; note those that are to be woken."""
        calls, self._calls = self._calls, None
        for call in calls or ():
            gates = call._gates
            if gates is None or call._committed is not None:
                continue
            if self.state == "dropped":
                call._committed = False
                call.rolled_back = database
            else:
                gates.remove(self)
                if gates:
                    continue
                call._committed = True
                call._gates = None
            scope = call._scope
            if scope is not None and scope._aside and call in scope._aside:
                woken.append(call)

    def _pass_on(self, outer: Gate) -> None:
        """Have the calls and savepoints of a released savepoint go with *outer*."""
        self.state = "released"
        outer.wrote = outer.wrote or self.wrote
        if outer._calls is None:
            outer._calls = []
        calls, self._calls = self._calls, None
        for call in calls or ():
            if call._gates is not None and self in call._gates:
                call._gates.remove(self)
                if outer not in call._gates:
                    call._gates.append(outer)
                    outer._calls.append(call)
        inner, self._inner = self._inner, None
        for gate in inner or ():
            gate.outer = outer
        if inner:
            outer._take_in(inner)

    def _take_in(self, savepoints: list[Gate]) -> None:
        if self._inner is None:
            self._inner = []
        self._inner += savepoints

    def _leave(self, unit: DeferScope) -> None:
        self.unit = None
        if self.given_up and unit._ended:
            return  # a call's own, it seems: check_committed() is to see it
        gates = unit._gates
        if gates is not None:
            gates.remove(self)
            if not (gates or unit._entered):
                unit._gates = None


def _wake(calls: list[DeferredCall]) -> None:
    """Have the calls that were set aside go on, each unit's together."""
    units: dict[DeferScope, list[DeferredCall]] = {}
    for call in calls:
        if call._scope is not None:
            units.setdefault(call._scope, []).append(call)
    for unit, theirs in units.items():
        unit.rejoin(theirs)


def drop_orphans() -> None:
    """End the gates of transactions that nobody ended and nobody can end any more."""
    while _orphans:
        try:
            gate = _orphans.popleft()
        except IndexError:  # another thread was quicker
            return
        if gate.wrote:
            gate.drop(GIVEN_BACK)
        else:
            gate.open()  # it only read
