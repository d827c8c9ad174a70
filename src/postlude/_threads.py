"""Postlude's own threads: bounded, lazy, watched (D3, D5, D6)."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from threading import current_thread, get_ident
from typing import TYPE_CHECKING, Any

from postlude import _greenlets, _reporting, _runner, _scope
from postlude._log import logger
from postlude._settings import in_force
from postlude.transactions import _gate

if TYPE_CHECKING:
    from postlude._call import DeferredCall
    from postlude._scope import DeferScope
    from postlude.transactions._gate import Gate

_monotonic = time.monotonic
_LONG = 64
"""Units in the queue that are too many for one thread, however short their calls."""


class Bell:
    """Wakes one waiting thread per ring, and keeps the rings that nobody waited for.

    Through a pipe: `os.write` lets go of the interpreter's lock, so the thread that it
    wakes finds it free. A `SimpleQueue`, as any lock, wakes a thread while it holds
    that lock: the thread runs into it, waits again, and is woken again. Measured on a
    loaded uvicorn: 0.2 switches of context per request instead of 0.55.
    """

    def __init__(self) -> None:
        self._ends: tuple[int, int] | None = None
        self._rings = threading.Semaphore(0)
        if not _greenlets.are_threads():  # else a pipe would stop all of them
            try:
                self._ends = os.pipe()
            except OSError:  # out of file descriptors: no reason to lose a call
                return
            os.set_blocking(self._ends[1], False)

    def ring(self) -> None:
        """Wake one thread, now or when it waits. Any thread; never blocks."""
        if self._ends is None:
            self._rings.release()
        else:
            os.write(self._ends[1], b"!")

    def wait(self) -> None:
        """Wait for a ring that is nobody else's."""
        if self._ends is None:
            self._rings.acquire()
        else:
            os.read(self._ends[0], 1)

    def close(self) -> None:
        """Give the pipe back, in a forked child, where nobody waits (D8)."""
        if self._ends is not None:
            for end in self._ends:
                with suppress(OSError):  # a daemon's start closes all that it finds
                    os.close(end)


class Threads:
    """Postlude's own threads: started when needed, daemonic, one set per process.

    Daemonic although they are waited for: a thread inherits the flag from whoever
    starts it, and a non-daemonic one would hold the interpreter beyond `grace`.

    Work lies in one queue; idle threads wait for a bell. At most one of them is on its
    way: it wakes another if there is more to do, so that a burst of slow calls soon has
    every thread. Not at once where somebody looks after the work,
    see `submit_all`: most calls are short, and then one thread does best alone.
    """

    def __init__(self) -> None:
        self._ready: deque[tuple[DeferScope, DeferredCall | None, float]] = deque()
        self._bell = Bell()
        self._lock = threading.Lock()
        self._waking = False
        self._patient = False
        self._first = 0
        self._size = 0
        self._idle = 0
        self._stuck = 0
        self._members: set[int] = set()
        self._watch: threading.Thread | None = None
        self._watched = threading.Event()
        self.parked = True
        self.recent = False

    def submit(
        self, scope: DeferScope, call: DeferredCall | None = None, due: float = 0.0
    ) -> None:
        """Have a thread run *call*, then what the unit has next. Any thread.

        *due* (`time.monotonic`) is when the first call may begin.
        """
        self._ready.append((scope, call, due))
        self._patient = False
        if not self._waking:
            self._wake()

    def submit_all(self, scopes: list[DeferScope]) -> None:
        """Have a thread run what each unit has next; for whoever will `look` again.

        Two threads with short calls spend more time on handing each other the
        interpreter's lock than on the calls. So no second one is woken until a look
        finds that the first has met a call that takes its time.
        """
        ready = self._ready
        if not ready:
            self._patient = True
            self._first = 0
        ready.extend([(scope, None, 0.0) for scope in scopes])
        if self._waking:
            return
        with self._lock:  # under which threads become idle
            at_work = self._size > self._idle + self._stuck
        if not (at_work and self._patient):
            self._wake()

    def look(self) -> bool:
        """Wake more threads if work does not get on; True: look again in a moment."""
        ready = self._ready
        try:
            first = ready[0]
        except IndexError:
            return False
        # A thread that was woken and is not there yet waits for the interpreter's lock;
        # one more that waits for it would be no help.
        if not self._waking and (id(first) == self._first or len(ready) > _LONG):
            self.hurry()
        self._first = id(first)  # not itself: it would keep a call alive
        return self._patient

    def hurry(self) -> None:
        """Have as many threads as there are run what is ready."""
        self._patient = False
        if self._ready and not self._waking:
            self._wake()

    def _wake(self) -> None:
        with self._lock:
            # Stuck threads are replaced, but by no more than there are threads.
            most = in_force().threads
            most += min(self._stuck, most)
            if self._waking or not (self._idle or self._size < most):
                return  # one is on its way, or all are busy and will look by themselves
            self._waking = True
            if self._idle:
                self._idle -= 1
            else:
                self._waking = self._grow()
        if self._waking:
            self._bell.ring()
        else:
            self.help()

    def _grow(self) -> bool:
        """Start one more thread; False at interpreter shutdown."""
        self._size += 1
        try:
            start_thread(self._work, f"postlude-{self._size}")
        except RuntimeError:
            self._size -= 1
            return False
        return True

    def _work(self) -> None:
        self._members.add(get_ident())
        while True:
            self._bell.wait()
            self._waking = False
            while (item := self._next()) is not None:
                scope, call, due = item
                if not self._patient and self._ready and not self._waking:
                    self._wake()
                if due and (wait := due - _monotonic()) > 0:
                    time.sleep(wait)
                try:
                    stays = run_unit(scope, call) or self._unstuck()
                except BaseException:  # noqa: BLE001 - a bug of ours costs its unit, not the thread
                    logger.exception("Postlude failed in %s", current_thread().name)
                    stays = True
                if not stays:
                    self._members.discard(get_ident())
                    return
                del item, scope, call  # an idle thread keeps nothing alive

    def _next(self) -> tuple[DeferScope, DeferredCall | None, float] | None:
        try:
            return self._ready.popleft()
        except IndexError:
            pass
        with self._lock:
            try:  # it came while this thread was not yet counted as idle
                return self._ready.popleft()
            except IndexError:  # not asked before: another thread may be quicker
                self._idle += 1
                return None

    def _unstuck(self) -> bool:
        """Note that a given-up call ended; False if its thread has been replaced."""
        with self._lock:
            self._stuck -= 1
            if self._size > in_force().threads + self._stuck:
                self._size -= 1
                return False
            return True

    def help(self) -> bool:
        """Run one queued unit in the calling thread, if no thread is there for it."""
        with self._lock:
            if self._size > self._stuck or not self._ready:
                return False
            scope, call, _due = self._ready.popleft()
        run_unit(scope, call)
        return True

    def see(self) -> None:
        """Have the watch look at what runs from now on."""
        self.recent = True
        if self.parked:
            self.watch_over()

    def watch_over(self) -> None:
        """Look after running calls: their time-outs and the soft limit (D5)."""
        if self._watch is None:
            with self._lock:
                if self._watch is not None:
                    return
                try:
                    self._watch = start_thread(self._watching, "postlude-watch")
                except RuntimeError:  # at interpreter shutdown, which has a grace
                    return
        self._watched.set()

    def _watching(self) -> None:
        reported: set[DeferredCall] = set()
        while True:
            self._watched.clear()
            # Parked only after a second with no call at all: under load, calls come
            # and go many times a millisecond, and each would wake this thread.
            self.parked = not (_runner.running or self.recent or _scope.waiting)
            self.recent = False
            wait = None if self.parked else self._look(reported)
            if _scope.waiting:
                _gate.drop_orphans()
                _look_at_waiting()
            self._watched.wait(wait)

    def _look(self, reported: set[DeferredCall]) -> float:
        now = _monotonic()
        soft = in_force().soft_limit
        wait = min(1.0, in_force().commit_wait) if _scope.waiting else 1.0
        calls = list(_runner.running.items())
        reported.intersection_update([call for call, _ in calls])
        for call, scope in calls:
            if call.started is None:
                continue
            age = now - call.started
            if call not in reported:
                if age >= soft:
                    reported.add(call)
                    _reporting.slow(call, age)
                else:
                    wait = min(wait, soft - age)
            # Without a thread it is on a loop, which looks after the time itself.
            if call._timeout is not None and call._thread is not None:
                if age >= call._timeout:
                    self._give_up(scope, call)
                else:
                    wait = min(wait, call._timeout - age)
        return wait

    def _give_up(self, scope: DeferScope, call: DeferredCall) -> None:
        """Abandon a sync call at its time-out; its thread ends when the call does."""
        if _runner.give_up(call, "timed_out") is None:
            return
        if call._thread in self._members:
            with self._lock:
                self._stuck += 1
        _reporting.timed_out(scope, call, "is still running in its thread")
        if scope.settled():
            self.submit(scope)
        else:
            self.hurry()  # the others of its group may wait for this very thread


def run_unit(scope: DeferScope, call: DeferredCall | None) -> bool:  # noqa: C901, PLR0912 - the road of most units, in one place
    """Run *call*, then what the unit has next, until it must go elsewhere.

    False if a call was given up while it ran: somebody else holds the unit now.
    """
    pool = _threads or _make_threads()
    pool.recent = True
    if pool.parked:
        pool.watch_over()
    if call is not None:
        if call._timeout is not None:
            call._thread = get_ident()
            pool.watch_over()
        result = _runner.execute(scope, call)
        if result is not True:
            return _left(scope, call, result)
        if not scope.settled():
            return True
    ok = scope._ok
    if ok is None:
        ok = scope._ok = scope._succeeded()
    calls = scope._calls
    while True:
        # What take() does for most calls, without the call of it.
        if not calls:
            call = batch = None  # whoever waits for the unit may look what is alive
            if scope.put_down():
                return True
        try:
            call = calls.pop(0)
        except IndexError:  # it was taken back just now
            continue
        if call._plain and ok and not call.is_async:
            call.state = "running"
        else:
            batch = scope.take(call)
            if batch is None:
                return True
            if isinstance(batch, list) or batch.is_async:
                spread(scope, batch)
                return True
            call = batch
            if call._timeout is not None:
                call._thread = get_ident()
                pool.watch_over()
        result = _runner.execute(scope, call)
        if result is not True:
            if result is not False:
                scope._outstanding = 1
            return _left(scope, call, result)


def _left(scope: DeferScope, call: DeferredCall, result: Any) -> bool:
    """Leave a unit that goes on elsewhere; False if its call was given up here."""
    if result is False:
        return False
    call._thread = None
    assert scope.runner is not None  # noqa: S101 - set before any call runs
    scope.runner.start(scope, call, result)
    return True


def spread(scope: DeferScope, batch: DeferredCall | list[DeferredCall]) -> None:
    """Begin what was taken, each call where it belongs."""
    assert scope.runner is not None  # noqa: S101 - set before any call runs
    for call in batch if isinstance(batch, list) else (batch,):
        if call.is_async:
            scope.runner.start(scope, call)
        else:
            threads().submit(scope, call)


def start_thread(target: Callable[[], object], name: str) -> threading.Thread:
    """Start a daemonic thread that inherits no context of whoever needs it first."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    # Free-threaded builds let a thread inherit its starter's context variables.
    Context().run(thread.start)
    return thread


def do_in_thread(work: Callable[[], object], name: str) -> None:
    """Have a thread of its own do *work*, or do it if none may start any more."""
    try:
        start_thread(work, name)
    except RuntimeError:
        work()


def _look_at_waiting() -> None:
    """Give up calls whose transaction nobody seems to end any more (B3)."""
    limit = in_force().commit_wait
    now = _monotonic()
    for call, since in list(_scope.waiting.items()):
        scope = call._scope
        if now - since < limit or any(
            _is_around(gate, scope) for gate in call._gates or ()
        ):
            continue
        if scope is not None and scope.lose(call):
            why = (
                f"its transaction on {call.awaited()} was neither committed nor rolled "
                f"back {limit:g} s after the end of its unit"
            )
            _reporting.lost(scope, call, why)


def _is_around(gate: Gate, scope: DeferScope | None) -> bool:
    """Tell whether a transaction is another's, who may be long at it.

    A block has something around it. A request has not: what a library found there, and
    told of no unit, is the request's own.
    """
    if gate.unit is None:
        return scope is None or scope._entered
    return not gate.unit.ended


_threads: Threads | None = None
_making = threading.Lock()


def unwatched() -> bool:
    """Tell whether nobody would look after a call that begins now."""
    return _threads is None or _threads.parked


def threads() -> Threads:
    """Give this process's threads."""
    return _threads or _make_threads()


def _see() -> None:
    threads().see()


_scope.look_after_waiting = _see


def _make_threads() -> Threads:
    global _threads
    with _making:
        if _threads is None:
            _threads = Threads()
    return _threads


def forked() -> None:
    """Forget the parent's threads in a forked child: they do not exist here (D8)."""
    global _threads, _making
    if _threads is not None:
        _threads._bell.close()
    _threads = None
    _making = threading.Lock()
