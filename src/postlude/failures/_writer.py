"""Writes what became of calls, in batches, on a thread of its own.

A call only puts its record down here. A store that is down, full or locked makes the
records wait; when it works again they are written. Nobody else waits, ever (E3).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import Context
from typing import TYPE_CHECKING, NamedTuple

from postlude._log import say
from postlude._settings import in_force
from postlude.failures._record import host_name
from postlude.failures._store import Batch, ProcessRecord
from postlude.failures._tallies import Tallies

if TYPE_CHECKING:
    from postlude._call import DeferredCall
    from postlude.failures._record import FailureRecord
    from postlude.failures._store import FailureStore, Tally
    from postlude.instrumentation import CallRecord

_BATCH = 1_000
"""Records of one transaction: few enough that others get their turn."""
_MOST = 50_000
_ROOM = 64 * 1024 * 1024
"""Records, and characters in them, that may wait for a store that is down. What comes
then is in the log only."""
_KEPT = 100_000
"""Failure records that a database keeps by default."""
_PAUSE = 0.1
"""Seconds that a batch gathers."""
_PULSE = 5.0
"""Seconds between two looks at what the process does, while it does anything."""
_REST = 60.0
"""The same for a process in which nothing happens."""
_HOUR = 3600.0
_DAY = 24 * _HOUR
_LONGEST = 30.0
"""Seconds between attempts at a store that is down."""
_SETTLED = 10.0
"""Seconds that a store must have worked before it is said to work again."""
_LIMITS = ("threads", "concurrency", "max_pending", "grace", "soft_limit")

_NOTHING = nullcontext()
State = Callable[[], tuple[int, tuple[tuple[str, str, float], ...], tuple[str, ...]]]


class _Numbers(NamedTuple):
    """How many records, of each kind, have come so far."""

    failures: int
    ended: int

    def plus(self, failures: int = 0, ended: int = 0) -> _Numbers:
        return _Numbers(self.failures + failures, self.ended + ended)


class Writer:
    """The one that talks to the store. Any thread may add; a fork starts anew (D8)."""

    def __init__(self, store: FailureStore, state: State) -> None:
        """Begin to gather for *store*; the thread starts with the first call.

        *state* tells how many calls are pending, which run, and which limits are met.
        """
        self.store = store
        self._state = state
        self._lock = threading.Lock()
        self._failures: deque[FailureRecord] = deque()
        self._ended: deque[CallRecord] = deque()
        self._tallies = Tallies()
        self._came = _Numbers(0, 0)
        self._taken = _Numbers(0, 0)
        self._written = _Numbers(0, 0)
        self._room = 0
        self._refused = 0
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._turned = threading.Condition()
        self._turn = 0
        self._ended_turn = 0
        self._failed_turn = 0
        self._complained = False
        self._good_since: float | None = None
        self._closed = False
        self._gone = threading.Event()
        self._began = time.time()
        self._pruned = 0.0
        self._looked = 0.0
        self._busy = False

    def __repr__(self) -> str:
        return f"<Writer to {self.store!r}>"

    # -- any thread ---------------------------------------------------------

    def failed(self, record: FailureRecord) -> None:
        """Have a record written soon."""
        size = _size(record)
        with self._lock:
            if len(self._failures) >= _MOST or self._room + size > _ROOM:
                self._refused += 1
            else:
                self._room += size
                self._came = self._came.plus(failures=1)
                self._failures.append(record)
        self._start()

    def around(self, _call: DeferredCall) -> AbstractContextManager[object]:
        """Have nothing around a call, but look at what runs."""
        if not self._busy:
            self._start()
        return _NOTHING

    def ended(self, record: CallRecord) -> None:
        """Have a call counted."""
        if record.exception is not None:  # it holds all that its frames hold
            record = record._replace(exception=None)
        with self._lock:
            if len(self._ended) < _MOST:
                self._came = self._came.plus(ended=1)
                self._ended.append(record)
        self._start()

    def flush(self, timeout: float) -> bool:
        """Wait, *timeout* seconds at most, until all that came before is written.

        Gives False if it was not: it takes longer, or the store has just refused.
        """
        with self._lock:
            wanted = self._came
        if self._has(wanted) and not self._busy:
            return True
        self._looked = 0.0  # the store's last word must not be that something runs
        if not self._start():
            return self._write_here(wanted)
        with self._turned:
            turn = self._turn
            self._hurry.set()
            self._wake.set()
            # The turn under way may have looked already: what it meets is no answer.
            self._turned.wait_for(
                lambda: (
                    self._ended_turn > turn
                    and (self._has(wanted) or self._failed_turn > turn)
                ),
                timeout,
            )
        return self._has(wanted)

    def close(self) -> None:
        """Have what is there written and the store closed; for good. Waits for nothing.

        A store that refuses now is not asked again: another one has its place.
        """
        self._closed = True
        if not self._start():
            self._write_here(self._came)
            self._let_go()
        self._hurry.set()

    def join(self, timeout: float) -> bool:
        """Wait, after `close`, until the store is closed; False if it is not."""
        return self._gone.wait(timeout)

    def _let_go(self) -> None:
        """Close the store, and say what it did not take."""
        try:
            self.store.close()
        except BaseException as exc:  # noqa: BLE001 - a failing store hurts nobody (E3)
            self._complain(exc)
        if left := len(self._failures):
            text = "%d failures were not kept: the replaced store %r refused them"
            say(logging.ERROR, text, left, self.store)
        self._gone.set()

    def _has(self, wanted: _Numbers) -> bool:
        """Tell whether all up to *wanted* has been written."""
        written = self._written
        return written.failures >= wanted.failures and written.ended >= wanted.ended

    def _start(self) -> bool:
        """Wake the thread; False if there is none, as the interpreter is ending."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    thread = threading.Thread(
                        target=lambda: Context().run(self._run),  # of no request
                        name="postlude-records",
                        daemon=True,
                    )
                    try:
                        thread.start()
                    except RuntimeError:  # at the end, from Python 3.12 on
                        return False
                    self._thread = thread
        if not self._wake.is_set():
            self._wake.set()
        return True

    # -- the thread ---------------------------------------------------------

    def _run(self) -> None:
        pause = _PAUSE
        while True:
            self._wake.wait(_PULSE if self._busy or self._complained else _REST)
            self._wake.clear()
            self._hurry.clear()
            closed = self._closed  # before the turn: it takes all that came until then
            good = self._take_turn()
            if closed and not (good and self._failures):
                break
            pause = _PAUSE if good else min(pause * 2, _LONGEST)
            if not good:
                self._wake.set()
            elif closed or len(self._failures) >= _BATCH:
                continue
            self._hurry.wait(pause)
        self._let_go()

    def _write_here(self, wanted: _Numbers) -> bool:
        while not self._has(wanted):
            if not self._take_turn():
                return False
        return True

    def _take_turn(self) -> bool:
        """Write what is there, and say what is to be said; False if it failed."""
        with self._turned:
            self._turn += 1
        good = True
        try:
            wrote = self._write()
        except BaseException as exc:  # noqa: BLE001 - whatever it is, records wait (E3)
            self._complain(exc)
            self._good_since = None
            good = False
            self._failed_turn = self._turn
        else:
            if wrote and self._complained:
                self._rejoice()
        with self._turned:
            self._ended_turn = self._turn
            self._turned.notify_all()
        return good

    def _write(self) -> bool:
        """Write what is there; False if there was nothing."""
        process = self._process()
        failures, tallies = self._gather()
        batch = Batch(failures, tallies, process)
        if not any(batch):
            return False
        try:
            self.store.write(batch)
        except BaseException:
            self._tallies.put_back(tallies)
            self._taken = self._taken.plus(failures=-len(failures))
            with self._lock:
                self._failures.extendleft(reversed(failures))
            raise
        with self._lock:
            self._room -= sum(map(_size, failures))
            self._written = self._taken
            refused, self._refused = self._refused, 0
        if self._failures:
            self._wake.set()
        if refused:
            text = "%d failures were not kept: the store was away for too long"
            say(logging.ERROR, text, refused)
        self._prune()
        return True

    def _gather(self) -> tuple[tuple[FailureRecord, ...], tuple[Tally, ...]]:
        ended = len(self._ended)
        for _ in range(ended):
            self._tallies.add(self._ended.popleft())
        failures: list[FailureRecord] = []
        room = _ROOM // 8
        while self._failures and len(failures) < _BATCH and room > 0:
            failures.append(self._failures.popleft())
            room -= _size(failures[-1])
        self._taken = self._taken.plus(failures=len(failures), ended=ended)
        return tuple(failures), self._tallies.take()

    def _process(self) -> ProcessRecord | None:
        """Look at the process from time to time."""
        now = time.time()
        pending, running, met = self._state()
        was_busy = self._busy  # then the last word must not be that something runs
        # What this very look adds to the numbers is no reason for another one.
        self._busy = bool(pending or running) or self._came != self._written
        often = self._busy or was_busy or self._complained
        if now - self._looked < (_PULSE if often else _REST) - _PAUSE:
            return None
        self._looked = now
        self._tallies.beat(now, met)
        host, pid = host_name(), os.getpid()
        limits = in_force()
        return ProcessRecord(
            id=f"{host}:{pid}:{self._began:.0f}",
            host=host,
            pid=pid,
            began=self._began,
            seen=now,
            pending=pending,
            running=running,
            limits={name: float(getattr(limits, name)) for name in _LIMITS},
        )

    def _prune(self) -> None:
        now = time.time()
        if now - self._pruned < _HOUR:
            return
        self._pruned = now
        limits = in_force()
        self.store.prune(
            before=now - limits.failures_days * _DAY, keep=limits.failures_kept or _KEPT
        )

    def _complain(self, exc: BaseException) -> None:
        if not self._complained:
            self._complained = True
            text = (
                "the failure store %r cannot be written to (%s); calls go on, records "
                "wait in memory. This is said once"
            )
            say(logging.ERROR, text, self.store, exc)

    def _rejoice(self) -> None:
        """Say that all is well, once it has been for a while.

        A disk that is full is so for large batches first: not every small one is news.
        """
        now = time.monotonic()
        self._good_since = self._good_since or now
        if now - self._good_since >= _SETTLED and not self._failures:
            self._complained = False
            say(logging.WARNING, "the failure store %r works again", self.store)


def _size(record: FailureRecord) -> int:
    """Estimate the characters of a record."""
    long = (record.traceback, record.payload, record.exception)
    shown = sum(map(len, record.arguments.values()))
    return 2_000 + shown + sum(len(text) for text in long if text is not None)
