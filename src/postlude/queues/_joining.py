"""Writes calls in the very transactions that they were deferred in (F2)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, cast

from postlude._background import background
from postlude._call import DeferredCall
from postlude._log import say
from postlude._scope import DeferScope
from postlude.queues._ticket import Ticket
from postlude.transactions import _execute, before_commit

if TYPE_CHECKING:
    from postlude.queues._handles import Retrying
    from postlude.queues._line import Line
    from postlude.queues._queue import Transactional
    from postlude.transactions import Execute, Gate


class Joining:
    """Between the calls of a process and the transactions that write them.

    A transaction on the engine's own database writes a call right before its COMMIT, on
    Django at once. Who writes a call first has it to himself: a transaction, or who
    secures what is still unwritten before the response.
    """

    def __init__(
        self, queue: Transactional, line: Line, on_loop: Callable[[], bool]
    ) -> None:
        self._queue = queue
        self._line = line
        self._on_loop = on_loop
        self._asked: Ticket | None = None
        self._looked = False
        self._others: set[object] = set()
        """Databases that are certainly not the engine's."""

    def ask(self) -> None:
        """Have the engine say which database it is, before somebody waits for it."""
        if self._asked is None or self._asked.error is not None:
            self._asked = self._line.do(self._queue.identity)

    def join(self, call: DeferredCall, hold: float) -> None:
        """Have the transactions around *call* write it, if they are the engine's.

        Raises:
            StatementError: a transaction of the call takes no statements any more.
            QueueError: with Django it is written now, and that failed.
        """
        if not call._gates:
            self._look_for_gates(call)
            return
        if not self._fits(call):
            return
        self.ask()
        handle = cast("Retrying", call._handle)
        handle.joins = True
        before_commit(call, lambda execute: self._write(call, execute, hold))

    def _look_for_gates(self, call: DeferredCall) -> None:
        """Say once that nobody tells of SQLAlchemy's transactions, if so it is."""
        known = "postlude.transactions.sqlalchemy" in sys.modules
        if self._looked or known or "sqlalchemy.engine" not in sys.modules:
            return
        self._looked = True
        say(logging.WARNING, UNTOLD, self._queue.name, call.name, call.site)

    def will_write(self, call: DeferredCall) -> bool:
        """Tell whether an open transaction will write *call* when it commits."""
        handle = cast("Retrying", call._handle)
        if not (handle.joins and self._fits(call)) or call._committed is not None:
            return False
        gates = [gate.settled_in().root for gate in call._gates or ()]
        return any(self._is_ours(gate) for gate in gates if not gate.executes_now)

    def _fits(self, call: DeferredCall) -> bool:
        # One with a rule of its own may have to run after a rollback too.
        return call._after_commit and call._rule is None

    def _is_ours(self, gate: Gate) -> bool:
        """Guess before the commit: a wrong no costs only that it is written before."""
        if gate.state != "closed" or not gate.supports_statements:
            return False
        theirs = _execute._identities.get(gate.database)
        mine = self._identity(wait=False)
        if theirs is None or mine is None:
            return self._queue.is_at(gate.database)
        return mine == theirs

    def _write(self, call: DeferredCall, execute: Execute, hold: float) -> bool:
        if not self._fits(call):
            return True  # it is written before the response
        if not self._same(execute):
            return False
        handle = cast("Retrying", call._handle)
        if handle.claim(self):
            token = self._queue.write(execute, handle.job(call), hold=hold)
            handle.ticket = Ticket.answered(token)
            gates = call._gates or ()
            handle.sealed = any(gate.executes_now for gate in gates)
            if hold and token and not handle.sealed:
                self._line.hold(token)
        return True

    def _same(self, execute: Execute) -> bool:
        """Tell whether a transaction is on the engine's own database.

        Only a thread can wait for the engine's answer. On an event loop, the few calls
        that come before it has answered go by the addresses.
        """
        wait = not self._on_loop()
        mine, theirs = self._identity(wait=wait), execute.identity()
        if mine is not None and mine not in {theirs, execute.database}:
            if theirs is None or theirs in self._others:
                return False
            self._asked = None  # a restarted server is no other one
            self.ask()
            mine, theirs = self._identity(wait=wait), execute.identity(fresh=True)
        if mine is None:
            return self._queue.is_at(execute.database)
        if mine in {theirs, execute.database}:
            return True
        self._others.add(theirs)
        return False

    def _identity(self, *, wait: bool) -> object:
        ticket = self._asked
        if ticket is None:
            return None
        return ticket.wait() if wait else ticket.result

    def take_back(self, call: DeferredCall, written: Ticket) -> bool:
        """Take a call out that an open transaction has written; False if none is open.

        It cannot be seen before the end of that, so that is waited for.
        """
        gates = [gate for gate in call._gates or () if gate.state == "closed"]
        if not gates:
            return False
        end = DeferredCall(self._line.finish, (written,), {}, Context(), None, 0)
        end.named(f"take back {call.name}").always()
        scope = DeferScope()
        scope.runner = background
        for gate in gates:
            gate.wait_for(end)
        scope.add(end)
        scope.end()
        return True


UNTOLD = (
    "the queue %s can write jobs in your own transactions, and nobody tells Postlude "
    "of SQLAlchemy's: %s is written on its own, and a rollback does not drop it "
    "(deferred at %s). Usually one line is missing: `from postlude.transactions import "
    "sqlalchemy; sqlalchemy.install()`. This is said once."
)
