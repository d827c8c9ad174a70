"""Which transactions are open around the place that defers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Any, cast
from weakref import ref

from postlude._scope import DeferScope, current
from postlude.exceptions import UNCOMMITTED, UncommittedError
from postlude.transactions._gate import Gate

if TYPE_CHECKING:
    from postlude._call import DeferredCall

Probe = Callable[[], Iterable[Gate]]
probes: tuple[Probe, ...] = ()
_outside: ContextVar[tuple[Gate, ...]] = ContextVar("postlude_gates", default=())
"""Transactions that began here outside every unit. A block takes them over; a request
does not: what is open around a whole request is the test that sends it."""
_seen: ContextVar[tuple[Gate, ...]] = ContextVar("postlude_seen_gates", default=())
"""Transactions that began in this task or in one that this one was started from."""


def begin(database: str, outer: Gate | None = None) -> Gate:
    """Note that a transaction begins here; calls deferred from now on wait for it.

    Args:
        database: names the database in records, without secrets.
        outer: for a savepoint, the gate of what is around it.
    """
    gate = Gate(database, outer)
    enter(gate)
    return gate


def enter(gate: Gate) -> None:
    """Note that the transaction of a gate, just made, begins here."""
    gate.began = monotonic()
    scope = current.get()
    if scope is None:
        _outside.set((*_closed(_outside.get()), gate))
        return
    task = _task()
    if task is None:
        gate.strand = get_ident()
    else:
        gate.strand = ref(task)
        seen = _seen.get()
        _seen.set((*_closed(seen), gate) if seen else (gate,))
    with DeferScope._lock:
        gate.unit = scope
        if scope._gates is None:
            scope._gates = [gate]
        else:
            scope._gates.append(gate)


def install_probe(probe: Probe) -> None:
    """Have *probe* asked at every `defer()` for the gates that are closed here.

    For libraries that tell whether a transaction is open, but not when one begins. It
    must be quick, open no connection, and may give a new gate for each call. Anything
    that it raises is the caller's to see.
    """
    global probes
    if probe not in probes:
        probes = (*probes, probe)


def close_gates(call: DeferredCall, scope: DeferScope | None) -> None:
    """Have a new call wait for every transaction that is open around it (B3)."""
    gates = _around(scope)
    for gate in gates if len(gates) < 2 else _innermost(gates):  # noqa: PLR2004 - nothing around anything
        gate.wait_for(call)
    for probe in probes:
        for gate in probe():
            gate.wait_for(call)


def _around(scope: DeferScope | None) -> list[Gate]:
    if scope is None:
        return _closed(_outside.get())
    gates: list[Gate] = []
    for gate in scope._gates or ():
        if gate.state == "closed" and (gate in _seen.get() or _surrounds(gate, scope)):
            gates.append(gate)  # noqa: PERF401 - before Python 3.12 that is a call
    if scope._entered:
        gates += _around(scope._outer)
    return gates


def _closed(gates: Iterable[Gate]) -> list[Gate]:
    return [gate for gate in gates if gate.state == "closed"]


def _innermost(gates: list[Gate]) -> list[Gate]:
    """Leave out what is around another of *gates*: a released savepoint leads there."""
    outers: set[Gate] = set()
    for gate in gates:
        outer = gate.outer
        while outer is not None:
            outers.add(outer)
            outer = outer.outer
    return [gate for gate in gates if gate not in outers]


def is_of_here(gate: Gate) -> bool:
    """Tell whether a transaction began in this unit, and in this task or before it."""
    if gate.unit is None or gate.unit is not current.get():
        return False
    return gate in _seen.get() or gate.strand == get_ident()


def _surrounds(gate: Gate, scope: DeferScope) -> bool:
    """Tell whether code here is inside a transaction of its unit that it has not seen.

    All of a unit is, wherever it runs, but for two cases: the transaction of a task
    that is at work beside this one, and the transaction that another deferred call, in
    another thread, began.
    """
    strand = gate.strand
    if type(strand) is int:
        return strand == get_ident() or not scope._ended
    task = cast("Any", strand() if isinstance(strand, ref) else None)
    if task is None or task.done() or task is _task():
        return True
    seen = _seen.get()
    while gate not in seen:
        if gate.outer is None:
            return False
        gate = gate.outer
    return True


def check_committed(scope: DeferScope, call: DeferredCall) -> None:
    """Look, where a call has just ended, whether what it wrote was committed.

    Raises:
        UncommittedError: it left a transaction open in which it wrote, or closed it
            with neither a commit nor a rollback.
    """
    strand = _strand()
    for gate in scope._gates or ():
        began = call.started is not None and gate.began >= call.started
        if (gate.wrote or gate.given_up) and began and gate.strand == strand:
            raise UncommittedError(UNCOMMITTED.format(database=gate.database))


def _strand() -> Any:
    task = _task()
    return get_ident() if task is None else ref(task)


def _task() -> Any:
    """Give the asyncio task that runs here, without importing asyncio."""
    module = sys.modules.get("asyncio")
    loop = None if module is None else module._get_running_loop()
    return None if module is None or loop is None else module.current_task(loop)
