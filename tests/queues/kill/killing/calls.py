"""The functions that web processes and workers run: they write into the ledger.

A line is `word id attempt pid call-id`, and is appended in one write.
"""

import os
import signal
import time
from pathlib import Path

from postlude import current_call


def _write(word: str, name: str) -> None:
    call = current_call()
    attempt, ident = (0, "?") if call is None else (call.attempt, call.id)
    line = f"{word} {name} {attempt} {os.getpid()} {ident}\n"
    ledger = os.open(os.environ["KILL_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(ledger, line.encode())
    finally:
        os.close(ledger)


def note(name: str) -> None:
    """End at once."""
    _write("done", name)


async def anote(name: str) -> None:
    """End at once, as a coroutine."""
    _write("done", name)


def wait(name: str) -> None:
    """Run until the gate is opened."""
    _write("began", name)
    gate = Path(os.environ["KILL_GATE"])
    while not gate.exists():
        time.sleep(0.01)
    _write("done", name)


def die(name: str) -> None:
    """Kill the process that runs this."""
    _write("began", name)
    os.kill(os.getpid(), signal.SIGKILL)


def flaky(name: str, times: int) -> None:
    """Fail in the first *times* attempts."""
    _write("began", name)
    call = current_call()
    assert call is not None
    if call.attempt <= times:
        raise ConnectionError(f"attempt {call.attempt} of {name}")
    _write("done", name)
