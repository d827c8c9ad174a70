"""gevent, under which what looks like a thread is a greenlet."""

from __future__ import annotations

import _thread
from types import BuiltinFunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio


def are_threads() -> bool:
    """Tell whether new threads are greenlets, all of them in one thread."""
    return not isinstance(_thread.start_new_thread, BuiltinFunctionType)


def run_loop_in_thread() -> asyncio.AbstractEventLoop:
    """Make an event loop, and run it for ever in a thread of the system's.

    In the greenlets' own thread asyncio would have every greenlet be on that loop: it
    notes per thread which one runs. Made there, too: gevent's selector watches for the
    thread that made it.
    """
    import asyncio  # noqa: PLC0415 - only apps with async calls pay for it
    from importlib import import_module  # noqa: PLC0415 - as above

    get_original: Any = import_module("gevent.monkey").get_original
    made: list[asyncio.AbstractEventLoop] = []
    lock: Any = get_original("_thread", "allocate_lock")()

    def run() -> None:
        try:
            made.append(asyncio.new_event_loop())
        finally:
            lock.release()
        made[0].run_forever()

    lock.acquire()
    get_original("_thread", "start_new_thread")(run, ())
    lock.acquire()  # holds all greenlets, for as long as a loop takes to be made
    return made[0]
