"""Tell the test what happens inside a server's process, and wait for the test's word.

An event is one JSON datagram, so threads, forks and dying processes need no care. A
gate is a connection to the test: who waits at it goes on when the test sends a byte.
"""

import asyncio
import json
import logging
import os
import socket
import threading
import time

from launch import die_with_parent

EVENTS = os.environ["PROBE_EVENTS"]
GATES = os.environ["PROBE_GATES"]
INSTANCE = os.environ["PROBE_INSTANCE"]


def now() -> int:
    """Return the nanoseconds of the clock the kernel stamps packets with."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME)


def report(
    token: str, what: str, name: str = "", at: int | None = None, **detail: object
) -> None:
    """Send one event to the test."""
    event = {
        "at": at or now(),
        "token": token,
        "what": what,
        "name": name,
        "pid": os.getpid(),
        "thread": threading.get_ident(),
        "instance": INSTANCE,
        "detail": detail,
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outlet:
        outlet.sendto(json.dumps(event).encode(), EVENTS)


def wait_at_gate(token: str, name: str) -> bool:
    """Block until the test opens the gate; return False when the test has gone."""
    with socket.socket(socket.AF_UNIX) as gate:
        gate.connect(GATES)
        gate.sendall(f"{token} {name}\n".encode())
        return gate.recv(1) == b"1"


async def await_gate(token: str, name: str) -> bool:
    """Wait as `wait_at_gate` does, without blocking the loop."""
    reader, writer = await asyncio.open_unix_connection(GATES)
    try:
        writer.write(f"{token} {name}\n".encode())
        return await reader.read(1) == b"1"
    finally:
        writer.close()


class ReportedLog(logging.Handler):
    """Reports what is logged, so that tests read records and no console output."""

    def emit(self, record: logging.LogRecord) -> None:
        """Send the record's level and text, its traceback included."""
        text = logging.Formatter().format(record)
        report("", "log", record.levelname, text=text[-20_000:])


logging.getLogger("postlude").addHandler(ReportedLog())
die_with_parent()
os.register_at_fork(after_in_child=die_with_parent)
_watched: set[int] = set()


def watch_exit() -> None:
    """Report `shutdown-begun` when this process has started to leave the interpreter.

    Registered from a running call, the hook runs before what was registered earlier
    (`threading._register_atexit` is last in, first out): before any drain at exit. The
    report comes when the drain has had time to begin, since a signal that a test sends
    then must find it waiting.
    """
    if os.getpid() in _watched:
        return
    _watched.add(os.getpid())
    begun = threading.Event()

    def announce() -> None:
        begun.wait()
        time.sleep(0.1)
        report("", "shutdown-begun")

    threading.Thread(target=announce, daemon=True).start()
    threading._register_atexit(begun.set)
