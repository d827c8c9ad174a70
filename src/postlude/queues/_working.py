"""The worker of engines with leases: in the web process, or `postlude work`."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from postlude._log import say
from postlude._threads import start_thread
from postlude.exceptions import PostludeError
from postlude.queues._running import exhausted, run_lease

if TYPE_CHECKING:
    from postlude.queues._carrier import Carrier
    from postlude.queues._queue import Lease

_IDLE = 0.5
"""Seconds between looks at an empty queue; an empty look at a file takes 50 us."""
_TROUBLE = 5.0
"""The same when the engine failed."""


def work(carrier: Carrier, stop: threading.Event, threads: int) -> None:
    """Run jobs in *threads* threads until *stop*; returns when the last has ended."""
    crew = _Crew(carrier, threads)
    trouble = False
    while not stop.is_set():
        pause = _IDLE
        try:
            for lease, seen in carrier.leasing.exhausted():
                exhausted(lease, seen)
            if (free := crew.free()) > 0:
                leases = carrier.leasing.claim(free, carrier.line.lease)
                for lease in leases:
                    crew.run(lease)
                if leases:
                    pause = 0.0
            trouble = False
        except Exception as exc:  # noqa: BLE001 - an engine that is back is worked again
            pause = _TROUBLE
            if not trouble:
                trouble = True
                error = exc if not isinstance(exc, PostludeError) else None
                say(logging.WARNING, TROUBLE, carrier.queue.name, exc, exc_info=error)
        if crew.free() <= 0:
            crew.changed.wait()
            crew.changed.clear()
        elif pause:
            stop.wait(pause * random.uniform(0.8, 1.2))  # noqa: S311 - so that workers spread
    crew.join()


class _Crew:
    """Threads that run jobs; each ends with its job, and idle ones cost nothing."""

    def __init__(self, carrier: Carrier, threads: int) -> None:
        self._carrier = carrier
        self._size = threads
        self._busy: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self.changed = threading.Event()

    def free(self) -> int:
        with self._lock:
            return self._size - len(self._busy)

    def run(self, lease: Lease) -> None:
        name = f"postlude-job-{lease.token[-6:]}"
        job = _OneJob(lambda: run_lease(self._carrier, lease), self._ended)
        with self._lock:
            job.thread = start_thread(job, name)
            self._busy.add(job.thread)

    def _ended(self, thread: threading.Thread) -> None:
        with self._lock:
            self._busy.discard(thread)
        self.changed.set()

    def join(self) -> None:
        while True:
            with self._lock:
                thread = next(iter(self._busy), None)
            if thread is None:
                return
            thread.join()


class _OneJob:
    def __init__(
        self, run: Callable[[], None], ended: Callable[[threading.Thread], None]
    ) -> None:
        self._run = run
        self._ended = ended
        self.thread: threading.Thread | None = None

    def __call__(self) -> None:
        try:
            self._run()
        except BaseException as exc:  # noqa: BLE001 - a bug of ours costs its job's attempt
            say(logging.ERROR, "Postlude failed to run a job", exc_info=exc)
        finally:
            self._ended(threading.current_thread())


TROUBLE = "the queue %s cannot be worked on now: %s; this goes on until it can"
