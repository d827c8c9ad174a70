"""Functions of jobs: what they do, they write down, a line each, from any process."""

import os
import signal
import time
from pathlib import Path

import postlude


def write(*words: object) -> None:
    """Append a line to the ledger; lines of several processes never mix."""
    line = " ".join(map(str, (*words, time.time()))) + "\n"
    ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(ledger, line.encode())
    finally:
        os.close(ledger)


def _begun(what: str) -> None:
    call = postlude.current_call()
    assert call is not None
    write(what, call.id, call.attempt)


def note(what: str) -> None:
    """Run well."""
    _begun(what)


async def anote(what: str) -> None:
    """Run well, on a loop."""
    _begun(what)


def fail(what: str) -> None:
    """Fail each time."""
    _begun(what)
    raise ValueError(what)


def fail_until(what: str, path: str) -> None:
    """Fail until there is a file."""
    _begun(what)
    if not Path(path).exists():
        raise ValueError(what)


def kill(what: str) -> None:
    """Kill the process that runs it, each time."""
    _begun(what)
    os.kill(os.getpid(), signal.SIGKILL)


def hang(what: str, path: str) -> None:
    """Run until there is a file, then say that it ended."""
    _begun(what)
    deadline = time.monotonic() + 60
    while not Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    _begun(f"{what}-ended")


def hang_then_fail(what: str, path: str, mended: str) -> None:
    """Run until there is a file; fail in the first run."""
    hang(what, path)
    call = postlude.current_call()
    assert call is not None
    if call.attempt == 1 and Path(mended).exists():
        raise ValueError(what)
