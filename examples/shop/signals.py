"""Ctrl-C, SIGTERM and SIGHUP: when they may interrupt, and how the demo then ends."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StoppedError(KeyboardInterrupt):
    """A signal ended the demo; a KeyboardInterrupt, so that no `except` swallows it."""

    def __init__(self, number: int) -> None:
        """Keep the exit status that shells give to a process ended by this signal."""
        super().__init__()
        self.status = 128 + number


def stop_on_signals() -> None:
    """Raise `StoppedError` in the main thread for each signal that means "end"."""
    for number in HANDLED:
        # Ignored from the start (nohup, a shell's background job): leave it so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold signals back during a block that must not be left half done."""
    held: list[int] = []
    handlers = {number: signal.getsignal(number) for number in HANDLED}
    for number, handler in handlers.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if held:
        signal.raise_signal(held[0])


def _stop(number: int, frame: FrameType | None) -> None:
    """Handle a signal."""
    raise StoppedError(number)
